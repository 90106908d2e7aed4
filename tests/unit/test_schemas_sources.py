"""Schema sources: a folder and a registry behave the same, and faulty registry responses are handled."""

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from adapters.http_client import HttpAnswer
from adapters.schema_sources import (
    REGISTRY_AUTH_VARIABLE,
    RETRY_PAUSES_S,
    DirectorySource,
    RegistrySource,
    codec_of,
    source_at,
)
from deploy.publish_schemas import published_files
from schemas.errors import HttpUnanswered, SchemaError, SettingsError
from schemas.wire.codec_choice import InputSettings
from schemas.wire.codecs import Codec
from schemas.wire.confluent import SchemaSource
from tests.golden.schemas import INTERACTION, golden, schema_files

AVRO = published_files()["interaction.avsc"]
FILES = published_files()["freshet.desc"]
ANSWERS: dict[str, tuple[int, bytes]] = {
    "/schemas/ids/7": (200, json.dumps({"schema": AVRO.decode()}).encode()),
    "/schemas/ids/9?format=serialized": (
        200,
        json.dumps(
            {
                "schemaType": "PROTOBUF",
                "schema": base64.b64encode(FileDescriptorSet.FromString(FILES).file[0].SerializeToString()).decode(),
            }
        ).encode(),
    ),
}
NOT_FOUND = (404, b'{"error_code":40403,"message":"Schema 1 not found"}')


class Registry:
    """A registry as a function of the path; `trouble` comes before the responses."""

    def __init__(self, *trouble: Any) -> None:
        self.trouble = list(trouble)
        self.asked = 0
        self.paused: list[float] = []

    def get(self, path: str) -> HttpAnswer:
        self.asked += 1
        if self.trouble:
            first = self.trouble.pop(0)
            if isinstance(first, Exception):
                raise first
            return HttpAnswer(*first)
        plain = path.partition("?")[0]
        found = ANSWERS.get(path) or next((ANSWERS[key] for key in ANSWERS if key.startswith(f"{plain}?")), NOT_FOUND)
        return HttpAnswer(*found)

    def source(self) -> RegistrySource:
        return RegistrySource(self.get, sleep=self.paused.append)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name, schema in schema_files().items():
        (tmp_path / name).write_bytes(schema)
    return tmp_path


@pytest.fixture(params=["directory", "registry"])
def source(request: pytest.FixtureRequest, directory: Path) -> SchemaSource:
    return DirectorySource(directory) if request.param == "directory" else Registry().source()


def test_a_source_knows_its_schemas(source: SchemaSource) -> None:
    assert source.fetch("avro", 7) == AVRO
    assert source.fetch("protobuf", 9) == FILES


def test_source_reports_unknown_schema_ids(source: SchemaSource) -> None:
    assert source.fetch("avro", 1) is None
    assert source.fetch("protobuf", 1) is None


def test_schema_of_the_other_format_is_unknown(source: SchemaSource) -> None:
    assert source.fetch("avro", 9) is None


def test_unreadable_schema_file_rejects_no_record(directory: Path) -> None:
    (directory / "5.avsc").mkdir()
    with pytest.raises(SchemaError, match="schema 5"):
        DirectorySource(directory).fetch("avro", 5)


@pytest.mark.parametrize("trouble", [HttpUnanswered("TimeoutError"), (503, b""), (429, b"")])
def test_failing_registry_is_retried(trouble: Any) -> None:
    registry = Registry(trouble, trouble)
    assert registry.source().fetch("avro", 7) == AVRO
    assert registry.paused == list(RETRY_PAUSES_S[:2])


def test_unavailable_registry_rejects_no_record() -> None:
    registry = Registry(*[HttpUnanswered("ConnectionRefusedError")] * 100)
    with pytest.raises(SchemaError):
        registry.source().fetch("avro", 7)
    assert registry.asked == len(RETRY_PAUSES_S) + 1


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param((404, b"<html>no such page</html>"), id="a wrong address"),
        pytest.param((404, b'{"error_code":404,"message":"HTTP 404 Not Found"}'), id="a wrong path"),
        pytest.param((401, b'{"error_code":40101}'), id="no credentials"),
        pytest.param((302, b""), id="sent elsewhere"),
        pytest.param((200, b"<html>sign in</html>"), id="a page for people"),
        pytest.param((200, b"\xff"), id="bytes"),
        pytest.param((200, b'{"schema":"\xff"}'), id="bad UTF-8"),
    ],
)
def test_invalid_registry_response_rejects_no_record(answer: tuple[int, bytes]) -> None:
    with pytest.raises(SchemaError):
        Registry(answer).source().fetch("avro", 7)


def test_registry_without_serialised_protobuf_is_reported() -> None:
    text = json.dumps({"schemaType": "PROTOBUF", "schema": 'syntax = "proto3";'}).encode()
    with pytest.raises(SchemaError, match="directory"):
        Registry((200, text)).source().fetch("protobuf", 9)


def test_schemas_with_references_are_refused() -> None:
    references = [{"name": "other", "subject": "other", "version": 1}]
    answer = json.dumps({"schema": AVRO.decode(), "references": references}).encode()
    assert Registry((200, answer)).source().fetch("avro", 7) is None


@contextmanager
def serving(seen: list[str | None]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization"))
            status, body = Registry().get(self.path.removeprefix("/registry"))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/registry/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("auth", "header"), [("me:secret", "Basic bWU6c2VjcmV0"), ("token\n", "Bearer token"), (None, None)]
)
def test_registry_uses_credentials_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, auth: str | None, header: str | None
) -> None:
    seen: list[str | None] = []
    monkeypatch.delenv(REGISTRY_AUTH_VARIABLE, raising=False)
    if auth is not None:
        monkeypatch.setenv(REGISTRY_AUTH_VARIABLE, auth)
    with serving(seen) as address:
        source = source_at(address)
        assert source.fetch("avro", 7) == AVRO
        assert source.fetch("protobuf", 9) == FILES
        assert source.fetch("avro", 1) is None
    assert seen == [header] * 3


def test_no_error_shows_a_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError) as caught:
        source_at("https://me:secret@registry.example/")
    assert "secret" not in str(caught.value)
    monkeypatch.setenv(REGISTRY_AUTH_VARIABLE, "sec\nret")
    with pytest.raises(SettingsError) as unprintable:
        source_at("https://registry.example/")
    assert "ret" not in str(unprintable.value)
    source = RegistrySource(Registry((403, b"secret")).get)
    with pytest.raises(SchemaError) as refused:
        source.fetch("avro", 7)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "place", ["http://", "https://registry.example/?key=1", "http://host:port", "http://[", "/no/such/directory"]
)
def test_location_without_schemas_is_refused(place: str) -> None:
    with pytest.raises(SettingsError):
        source_at(place)


@pytest.mark.parametrize("name", ["json", "avro", "confluent-avro", "protobuf", "confluent-protobuf"])
def test_a_codec_is_chosen_by_settings(name: str, directory: Path) -> None:
    framing, _, format = name.rpartition("-")
    codec: Codec = codec_of(InputSettings(format, framing or "plain", str(directory) if framing else None))  # type: ignore[arg-type]
    assert codec.interaction(golden(f"interaction.{name}")) == (INTERACTION, False)


@pytest.mark.parametrize(
    ("format", "framing", "place"),
    [("json", "confluent", "."), ("avro", "confluent", None), ("avro", "plain", "."), ("xml", "plain", None)],
)
def test_conflicting_settings_are_refused(format: Any, framing: Any, place: str | None) -> None:
    with pytest.raises(SettingsError):
        codec_of(InputSettings(format, framing, place))


def test_reading_json_needs_neither_avro_nor_protobuf() -> None:
    code = (
        "import sys; sys.modules['fastavro'] = sys.modules['google.protobuf'] = None; "
        "from adapters.schema_sources import codec_of, InputSettings; codec_of(InputSettings('json')).interaction"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
