"""The format of each record is detected: nothing is lost if producers of several formats share a topic."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adapters.schema_sources import codec_of, writer_of
from schemas.consents import PURPOSES, ConsentChange
from schemas.errors import SettingsError
from schemas.events import EVENT_TS_MAX, EVENT_TS_MIN, EVENT_TYPES, Interaction
from schemas.wire import avro_codec, protobuf_codec
from schemas.wire.codec_choice import InputSettings
from schemas.wire.codecs import BadRecord
from schemas.wire.confluent import frame
from schemas.wire.writers import WriteSettings
from tests.golden.schemas import CONSENT_2, INTERACTION, schema_files

pytestmark = pytest.mark.privacy

TEXTS = st.text(st.characters(exclude_categories=("C", "Z")))
IDS = TEXTS.filter(bool).map(lambda text: text[:64])
TIMES = st.integers(EVENT_TS_MIN, EVENT_TS_MAX)
EVENTS = st.builds(
    Interaction,
    event_id=IDS,
    type=st.sampled_from(EVENT_TYPES),
    ts=TIMES,
    user_id=st.one_of(IDS, IDS.map(lambda text: (text * 256)[:256])),
    item_id=IDS,
    value=st.none() | st.floats(0, 1e9),
    quantity=st.none() | st.integers(1, 1_000_000),
    query=st.none() | TEXTS.map(lambda text: text[:256]),
    context=st.none() | st.dictionaries(st.from_regex(r"\A[A-Za-z0-9_.\-]{1,32}\Z"), IDS, min_size=1, max_size=16),
)
PURPOSE_LISTS = st.none() | st.lists(st.sampled_from(PURPOSES))
CHANGES = st.builds(
    ConsentChange,
    user_id=st.one_of(IDS, IDS.map(lambda text: (text * 256)[:256])),
    level=st.sampled_from(("none", "session", "full")),
    ts=TIMES,
    granted=PURPOSE_LISTS,
    denied=PURPOSE_LISTS,
    method=st.none() | IDS,
    expires_at=st.none() | TIMES,
    erase=st.booleans(),
    gpc=st.none() | st.booleans(),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("schemas")
    for name, schema in schema_files().items():
        (directory / name).write_bytes(schema)
    return directory


def written(format: str, framing: str, folder: Path, **more: Any) -> WriteSettings:
    if framing == "plain":
        return WriteSettings(format=format)  # type: ignore[arg-type]
    ids = (7, 10) if format == "avro" else (9, 9)
    return WriteSettings(format, framing, str(folder), *ids)  # type: ignore[arg-type]


WAYS = [("json", "plain"), ("avro", "plain"), ("protobuf", "plain"), ("avro", "confluent"), ("protobuf", "confluent")]


def fleet_of(format: str, folder: Path, framed: bool) -> list[Any]:
    """The producers that may write to the same topic."""
    ways = [("json", "plain"), (format, "plain"), *([(format, "confluent")] if framed else [])]
    return [writer_of(written(*way, folder)) for way in ways]


@pytest.mark.parametrize(("format", "framing"), WAYS)
@pytest.mark.promise("mixed-formats")
def test_job_of_any_format_reads_records_of_mixed_producers(format: str, framing: str, folder: Path) -> None:
    framed = framing == "confluent"
    codec = codec_of(InputSettings(format, framing, str(folder) if framed else None))  # type: ignore[arg-type]
    writers = fleet_of(format, folder, framed)

    @given(EVENTS, CHANGES)
    @example(INTERACTION, CONSENT_2)
    @example(Interaction("{" * 61, "search", EVENT_TS_MIN, "{"), ConsentChange("{" * 61, "full", EVENT_TS_MIN))
    def reads(event: Interaction, change: ConsentChange) -> None:
        for writer in writers:
            assert codec.interaction(writer.interaction(event)) == (event, False)
            assert codec.consent(writer.consent(change)) == (change, False)

    reads()


@given(EVENTS, CHANGES)
def test_plain_records_never_begin_like_json_or_a_frame(event: Interaction, change: ConsentChange) -> None:
    for record in (event, change):
        for encode in (avro_codec.encode, protobuf_codec.encode):
            assert encode(record)[:1] not in (b"{", b"\0")


@pytest.mark.parametrize(("format", "framing"), WAYS)
@pytest.mark.parametrize("around", ["\n{}", " \t\r\n{}\n", "frame"])
def test_json_is_read_after_white_space_and_in_a_frame(format: str, framing: str, around: str, folder: Path) -> None:
    codec = codec_of(InputSettings(format, framing, str(folder) if framing == "confluent" else None))  # type: ignore[arg-type]
    for decode, record in ((codec.interaction, INTERACTION), (codec.consent, CONSENT_2)):
        text = msgspec.json.encode(record)
        raw = frame(99, text) if around == "frame" else around.replace("{}", text.decode()).encode()
        assert decode(raw) == (record, False)


@pytest.mark.parametrize("format", ["json", "avro", "protobuf"])
def test_json_errors_are_reported_in_every_format(format: str) -> None:
    codec = codec_of(InputSettings(format))  # type: ignore[arg-type]
    values = {"event_id": "e", "type": "teleport", "ts": EVENT_TS_MIN, "user_id": "ada"}
    for raw in (
        json.dumps(values).encode(),
        b"\n" + json.dumps(values).encode(),
        frame(3, json.dumps(values).encode()),
    ):
        with pytest.raises(BadRecord, match="unknown_type"):
            codec.interaction(raw)


@pytest.mark.parametrize("format", ["json", "avro", "protobuf"])
def test_frame_without_schema_source_has_its_own_reason(format: str) -> None:
    with pytest.raises(BadRecord, match="unknown_schema"):
        codec_of(InputSettings(format)).consent(frame(10, avro_codec.encode(CONSENT_2)))  # type: ignore[arg-type]


@pytest.mark.parametrize("ids", [(None, None), (7, None), (None, 10), (0, 10), (7, 2**31), (10, 7), (8, 8), (7, 99)])
@pytest.mark.promise("mixed-formats")
def test_producer_refuses_schema_ids_the_job_cannot_read(ids: Any, folder: Path) -> None:
    with pytest.raises(SettingsError, match="schemas/wire/published"):
        writer_of(WriteSettings("avro", "confluent", str(folder), *ids))


def test_producer_refuses_schema_with_swapped_fields(folder: Path) -> None:
    schema = json.loads((folder / "10.avsc").read_bytes())
    fields = schema["fields"]
    first, second = (next(at for at, field in enumerate(fields) if field["name"] == name) for name in ("tcf", "gpp"))
    fields[first], fields[second] = fields[second], fields[first]
    (folder / "11.avsc").write_text(json.dumps(schema))
    with pytest.raises(SettingsError, match="schemas/wire/published"):
        writer_of(WriteSettings("avro", "confluent", str(folder), 7, 11))


def test_schema_ids_without_framing_are_refused() -> None:
    with pytest.raises(SettingsError, match="confluent framing"):
        writer_of(WriteSettings("avro", interactions_schema_id=7))
