"""Sources of schemas: a directory, or a registry with Confluent's HTTP API."""

import base64
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Final

import msgspec

from adapters.files.edited_files import read_edited
from adapters.http_client import HttpAnswer, HttpClient
from adapters.secrets.secret_files import read_optional_variable
from schemas.errors import HttpUnanswered, SchemaError, SettingsError
from schemas.wire.codec_choice import InputSettings, codec_for
from schemas.wire.codecs import Codec
from schemas.wire.confluent import SCHEMA_BYTES_MAX, Form, SchemaSource
from schemas.wire.writers import Writer, WriteSettings, writer_for

REGISTRY_AUTH_VARIABLE: Final = "FRESHET_SCHEMA_REGISTRY_AUTH"
"""The environment variable with ``user:password`` (Basic) or a token (Bearer) for the registry."""

SUFFIX: Final[dict[Form, str]] = {"avro": ".avsc", "protobuf": ".desc"}
TIMEOUT_S: Final = 2.0
RETRY_PAUSES_S: Final = (0.1, 0.4, 1.6)
SCHEMA_NOT_FOUND: Final = 40403
"""The registry's code for an unknown id. A bare 404 means a wrong address, and must not reject good records."""

_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
Get = Callable[[str], HttpAnswer]
"""Performs a GET of a path. Raises :class:`HttpUnanswered` without a response."""


def source_at(place: str) -> SchemaSource:
    """The source at `place`: the address of a registry (http or https), else a directory.

    Raises :class:`SettingsError` if it is invalid; the address must not contain credentials.
    """
    if not place.startswith(("http://", "https://")):
        return DirectorySource(Path(place))
    auth = read_optional_variable(REGISTRY_AUTH_VARIABLE).strip()
    if not (auth.isascii() and auth.isprintable()):
        raise SettingsError(f"{REGISTRY_AUTH_VARIABLE} is user:password or a token, in printable ASCII")
    headers = {"Accept": "application/vnd.schemaregistry.v1+json, application/json"}
    if auth:
        headers["Authorization"] = (
            f"Basic {base64.b64encode(auth.encode()).decode()}" if ":" in auth else f"Bearer {auth}"
        )
    try:
        if "?" in place:
            raise SettingsError("a query")
        registry = HttpClient(place, TIMEOUT_S, headers, 2 * SCHEMA_BYTES_MAX)
    except SettingsError:
        raise SettingsError(
            f"a schema registry is http(s)://host[:port][/path]; credentials go to {REGISTRY_AUTH_VARIABLE}"
        ) from None
    return RegistrySource(registry.get)


def codec_of(settings: InputSettings) -> Codec:
    """The codec for these settings, with their schema source."""
    return codec_for(settings, source_at)


def writer_of(settings: WriteSettings) -> Writer:
    """The writer of a producer with these settings; raises :class:`SettingsError` if the job could not read it."""
    return writer_for(settings, codec_of(settings))


class DirectorySource:
    """Schemas in files: ``<id>.avsc``, or ``<id>.desc`` as written by ``protoc --include_imports -o``."""

    def __init__(self, directory: Path) -> None:
        if not directory.is_dir():
            raise SettingsError(f"no directory of schemas: {directory}")
        self._directory = directory

    def fetch(self, form: Form, schema_id: int) -> bytes | None:
        """See :class:`schemas.wire.confluent.SchemaSource`."""
        try:
            return read_edited(self._directory / f"{schema_id}{SUFFIX[form]}")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SchemaError(f"schema {schema_id} cannot be read: {error.strerror}") from None


class _Registered(msgspec.Struct):
    schema: str
    schemaType: str = "AVRO"  # noqa: N815 (the registry's own word)
    references: list[msgspec.Raw] | None = None


class _Refusal(msgspec.Struct):
    error_code: int = 0


class RegistrySource:
    """Schemas in a registry. Protobuf is fetched with ``format=serialized``; schemas with references are refused."""

    def __init__(self, get: Get, sleep: Callable[[float], None] = time.sleep) -> None:
        self._get = get
        self._sleep = sleep

    def fetch(self, form: Form, schema_id: int) -> bytes | None:
        """See :class:`schemas.wire.confluent.SchemaSource`."""
        status, body = self._ask(f"/schemas/ids/{schema_id}" + ("?format=serialized" if form == "protobuf" else ""))
        try:
            if status == HTTPStatus.OK:
                return _schema(form, msgspec.json.decode(body, type=_Registered))
            if status == HTTPStatus.NOT_FOUND:
                refusal = msgspec.json.decode(body, type=_Refusal)
                if refusal.error_code == SCHEMA_NOT_FOUND:
                    return None
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        raise SchemaError(
            f"the schema registry's reply for schema {schema_id} (status {status}) is not that of a registry"
        )

    def _ask(self, path: str) -> HttpAnswer:
        trouble = ""
        for pause in (*RETRY_PAUSES_S, None):
            try:
                answer = self._get(path)
                if answer.status not in _AGAIN:
                    return answer
                trouble = f"status {answer.status}"
            except HttpUnanswered as error:
                trouble = str(error)
            if pause is not None:
                self._sleep(pause)
        raise SchemaError(f"the schema registry did not answer: {trouble}")


def _schema(form: Form, registered: _Registered) -> bytes | None:
    if registered.schemaType != form.upper() or registered.references:
        return None
    return registered.schema.encode() if form == "avro" else _descriptor_set(registered.schema)


def _descriptor_set(serialised: str) -> bytes:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
    from google.protobuf.message import DecodeError

    try:
        file = FileDescriptorProto.FromString(base64.b64decode(serialised, validate=True))
    except (ValueError, DecodeError):
        raise SchemaError("the schema registry cannot serialise Protobuf: keep the schemas in a directory") from None
    descriptors: bytes = FileDescriptorSet(file=[file]).SerializeToString()
    return descriptors
