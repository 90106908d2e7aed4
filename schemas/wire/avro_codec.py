"""Avro as an alternative to JSON: the same objects, bounds and reject reasons.

Plain records are written with the published schema (``schemas/wire/published/*.avsc``) of this or an earlier release;
in the latter case, the fields appended since are absent. Framed records name the schema with which they were written;
their fields are matched by name, so a producer may omit, reorder and add fields, use an enum for a text, and annotate
logical types. Added fields are dropped and counted, as in JSON.
"""

from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Any, Final, TypeVar

import fastavro
import msgspec

from schemas.consents import ConsentChange, LenientConsentChange
from schemas.events import Interaction, LenientInteraction
from schemas.rejects import RejectReason
from schemas.wire.codecs import (
    BadRecord,
    Codec,
    bytes_max_of,
    check_consent,
    check_interaction,
    check_names,
    check_size,
    tolerant,
)
from schemas.wire.confluent import SchemaCache, SchemaSource, split_frame
from schemas.wire.naming import Named
from schemas.wire.shapes import Kind, fields_of, summary_of

T = TypeVar("T", bound=msgspec.Struct)
TYPES_MAX: Final = 1024
"""The maximum number of types in a writer's schema: it limits the work that one byte can cause."""

AVRO_TYPE: Final[dict[Kind, Any]] = {
    "text": "string",
    "int32": "int",
    "int64": "long",
    "float": "double",
    "bool": "boolean",
    "texts": {"type": "array", "items": "string"},
    "text_map": {"type": "map", "values": "string"},
}


def avro_schema(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """The published schema of `struct`: required fields unchanged, all others with a default."""
    fields: list[dict[str, Any]] = []
    for name, kind, required, default in fields_of(struct):
        if required:
            fields.append({"name": name, "type": AVRO_TYPE[kind]})
        elif default is None:
            fields.append({"name": name, "type": ["null", AVRO_TYPE[kind]], "default": None})
        else:
            fields.append({"name": name, "type": AVRO_TYPE[kind], "default": default})
    return {
        "type": "record",
        "name": struct.__name__,
        "namespace": "freshet",
        "doc": summary_of(struct),
        "fields": fields,
    }


APPENDED: Final[dict[type[msgspec.Struct], int]] = {Interaction: 0, ConsentChange: 1}
"""The number of fields appended since the first release, one per release."""


def _releases(struct: type[msgspec.Struct], appended: int) -> list[Any]:
    """The published schema of `struct`, and those of earlier releases, newest first."""
    schema = avro_schema(struct)
    ends = range(len(schema["fields"]), len(schema["fields"]) - appended - 1, -1)
    return [fastavro.parse_schema(schema | {"fields": schema["fields"][:end]}) for end in ends]


_PUBLISHED: Final = {struct: _releases(struct, appended) for struct, appended in APPENDED.items()}


def avro_codec(source: SchemaSource | None = None) -> Codec:
    """The codec for Avro: framed if there is a `source` of schemas, else plain.

    With a source, both functions also raise :class:`schemas.errors.SchemaError` if it does not respond.
    """
    cache = SchemaCache(source, "avro", writer_schema) if source else None
    return Codec(
        _decoder(Interaction, LenientInteraction, check_interaction, cache),
        _decoder(ConsentChange, LenientConsentChange, check_consent, cache),
        partial(_named_user, cache),
    )


def _named_user(cache: SchemaCache[Any] | None, raw: bytes) -> Named | None:
    """The user that a consent change names: the fields up to the user's id may be readable even if the rest is not."""
    schemas, payload = _PUBLISHED[ConsentChange], raw
    try:
        if cache is not None:
            schema_id, payload = split_frame(raw)
            schemas = [cache.get(schema_id)]
        record = _read_any(schemas, payload)
        whole = True
    except BadRecord:
        record, whole = _leading_fields(schemas[0], payload), False
    fields = record if isinstance(record, dict) else {}
    user_id = fields.get("user_id")
    return Named(user_id, fields.get("erase") is True, whole) if isinstance(user_id, str) else None


def _leading_fields(schema: Any, payload: bytes) -> object:
    """The fields of a record up to the user's id; None if they cannot be read."""
    names = [field["name"] for field in schema.get("fields", ())] if isinstance(schema, dict) else []
    if "user_id" not in names:
        return None
    cut = schema["fields"][: names.index("user_id") + 1]
    try:
        beginning = fastavro.parse_schema({"type": "record", "name": "freshet.Beginning", "fields": cut})
        read: object = fastavro.schemaless_reader(BytesIO(payload), beginning, None)
        return read
    except Exception:
        # As in `_read`: the exceptions of fastavro for invalid bytes are not documented.
        return None


def encode(record: Interaction | ConsentChange) -> bytes:
    """The plain bytes of `record`; :func:`schemas.wire.confluent.frame` prepends a schema id."""
    stream = BytesIO()
    schema = _PUBLISHED[type(record)][0]
    fastavro.schemaless_writer(stream, schema, msgspec.to_builtins(record), strict_allow_default=True)
    return stream.getvalue()


def _decoder(
    struct: type[T], lenient: type[T], check: Callable[[T], None], cache: SchemaCache[Any] | None
) -> Callable[[bytes], tuple[T, bool]]:
    convert = tolerant(partial(msgspec.convert, type=struct), partial(msgspec.convert, type=lenient), check)
    published = _PUBLISHED[struct]
    is_consent = issubclass(struct, ConsentChange)

    bytes_max = bytes_max_of(struct)

    def decode(raw: bytes) -> tuple[T, bool]:
        check_size(raw, bytes_max)
        if cache is None:
            return convert(_read_any(published, raw))
        schema_id, payload = split_frame(raw)
        fields = _read(cache.get(schema_id), payload)
        if is_consent and isinstance(fields, dict):
            check_names(fields)
        return convert(fields)

    return decode


def _read_any(schemas: list[Any], payload: bytes) -> object:
    """Plain bytes do not name their schema, but records of an older one end where newer fields would start."""
    newest, *older = schemas
    try:
        return _read(newest, payload)
    except BadRecord:
        if not older:
            raise
    return _read_any(older, payload)


def _read(schema: Any, payload: bytes) -> object:
    stream = BytesIO(payload)
    try:
        record: object = fastavro.schemaless_reader(stream, schema, None)
    except UnicodeDecodeError:
        raise BadRecord(RejectReason.BAD_ENCODING) from None
    except Exception:
        # For invalid bytes, fastavro raises undocumented exceptions: EOFError, IndexError, KeyError, OverflowError, …
        raise BadRecord(RejectReason.MALFORMED) from None
    if stream.tell() != len(payload):
        raise BadRecord(RejectReason.MALFORMED)
    return record


def writer_schema(text: bytes) -> Any:
    """The schema in `text`, made safe for reading untrusted bytes; ValueError if that is impossible.

    A record that refers to a record could cause endless recursion, and an array of items that take no bytes an endless
    loop: both are rejected. So is a record with two fields of the same name, of which one would be lost.
    """
    try:
        return fastavro.parse_schema(_SchemaCopier().type(msgspec.json.decode(text)))
    except Exception:
        # A schema registered by somebody else may contain anything until fastavro has parsed it.
        raise ValueError("events cannot be read with this schema") from None


class _SchemaCopier:
    """Copies a schema without what only its owner needs: logical types, defaults, aliases, documentation."""

    def __init__(self) -> None:
        self._records: set[str] = set()
        self._types = 0

    def type(self, schema: Any) -> Any:
        self._types += 1
        if self._types > TYPES_MAX:
            raise ValueError
        match schema:
            case str():
                return self._reference(schema)
            case list():
                return [self.type(branch) for branch in schema]
            case {"type": "record" | "error"}:
                return self._record(schema)
            case {"type": "array", "items": items}:
                tidy = self.type(items)
                if _may_take_no_bytes(tidy):
                    raise ValueError
                return {"type": "array", "items": tidy}
            case {"type": "map", "values": values}:
                return {"type": "map", "values": self.type(values)}
            case {"type": "enum" | "fixed"}:
                return _leaf(schema)
            case {"type": str(primitive)}:
                return self.type(primitive)
        raise ValueError

    def _reference(self, name: str) -> str:
        if name.rpartition(".")[2] in self._records:
            raise ValueError
        return name

    def _record(self, schema: dict[str, Any]) -> dict[str, Any]:
        self._records.add(schema["name"].rpartition(".")[2])
        if len({field["name"] for field in schema["fields"]}) < len(schema["fields"]):
            raise ValueError
        fields = [{"name": field["name"], "type": self.type(field["type"])} for field in schema["fields"]]
        return _named(schema) | {"type": "record", "fields": fields}


def _leaf(schema: dict[str, Any]) -> dict[str, Any]:
    if schema.get("size", 1) < 1:
        raise ValueError
    return {key: schema[key] for key in ("type", "name", "namespace", "symbols", "size") if key in schema}


def _named(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: schema[key] for key in ("type", "name", "namespace") if key in schema}


def _may_take_no_bytes(schema: object) -> bool:
    if isinstance(schema, dict) and schema["type"] == "record":
        return all(_may_take_no_bytes(field["type"]) for field in schema["fields"])
    return schema in ("null", [])
