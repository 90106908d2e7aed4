"""Avro and Protobuf, plain and framed, against JSON: the same objects, the same bounds, the same reasons."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import fastavro
import msgspec
import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.publish_schemas import published_files
from schemas.consents import ConsentChange, purposes_bits
from schemas.events import Interaction
from schemas.rejects import RejectReason
from schemas.wire import avro_codec, protobuf_codec
from schemas.wire.codecs import PAYLOAD_BYTES_MAX, BadRecord, Codec, json_codec
from schemas.wire.confluent import Form, frame, message_place
from tests.golden.schemas import CONSENT, CONSENT_2, INTERACTION, golden, schema_files
from tests.support.examples import examples

MINIMAL = Interaction(event_id="e", type="search", ts=1_767_225_600_000, user_id="ada")


class Schemas(dict[int, bytes]):
    """A source of schemas in memory."""

    def fetch(self, form: Form, schema_id: int) -> bytes | None:
        return self.get(schema_id)


PUBLISHED = Schemas({int(name.partition(".")[0]): schema for name, schema in schema_files().items()})
CODECS: dict[str, Codec] = {
    "json": json_codec(),
    "avro": avro_codec.avro_codec(),
    "confluent-avro": avro_codec.avro_codec(PUBLISHED),
    "protobuf": protobuf_codec.protobuf_codec(),
    "confluent-protobuf": protobuf_codec.protobuf_codec(PUBLISHED),
}
ENCODE: dict[str, Callable[[Any, int], bytes]] = {
    "json": lambda record, _: msgspec.json.encode(record),
    "avro": lambda record, _: avro_codec.encode(record),
    "confluent-avro": lambda record, schema_id: frame(schema_id, avro_codec.encode(record)),
    "protobuf": lambda record, _: protobuf_codec.encode(record),
    "confluent-protobuf": lambda record, _: protobuf_codec.encode_framed(record, 9),
}
every_format = pytest.mark.parametrize("name", CODECS)
binary_format = pytest.mark.parametrize("name", [name for name in CODECS if name != "json"])


def reason(decode: Callable[[bytes], object], raw: bytes) -> RejectReason:
    with pytest.raises(BadRecord) as caught:
        decode(raw)
    return caught.value.reason


@every_format
def test_golden_bytes_decode_as_in_the_first_release(name: str) -> None:
    assert CODECS[name].interaction(golden(f"interaction.{name}")) == (INTERACTION, False)
    assert CODECS[name].consent(golden(f"consent.{name}")) == (CONSENT, False)
    assert CODECS[name].consent(golden(f"consent-2.{name}")) == (CONSENT_2, False)


@every_format
def test_golden_bytes_are_written_unchanged(name: str) -> None:
    assert ENCODE[name](INTERACTION, 7) == golden(f"interaction.{name}")
    assert ENCODE[name](CONSENT_2, 10) == golden(f"consent-2.{name}")


@every_format
def test_omitted_fields_are_absent(name: str) -> None:
    assert CODECS[name].interaction(ENCODE[name](MINIMAL, 7)) == (MINIMAL, False)


@every_format
@pytest.mark.parametrize("granted", [None, [], ["train"]])
def test_empty_grant_differs_from_missing_grant(name: str, granted: list[Any] | None) -> None:
    change = ConsentChange("ada", "full", 1_767_225_600_000, granted=granted)
    assert CODECS[name].consent(ENCODE[name](change, 10))[0].granted == granted
    assert purposes_bits(change) == {None: 7, 0: 0, 1: 4}[None if granted is None else len(granted)]


@every_format
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"user_id": ""}, "missing_user"),
        ({"user_id": "a\0b"}, "control_character"),
        ({"user_id": "u" * 257}, "out_of_range"),
        ({"type": "teleport"}, "unknown_type"),
        ({"type": "view"}, "missing_item"),
        ({"item_id": "", "type": "view"}, "missing_item"),
        ({"ts": 2**53 + 1}, "out_of_range"),
        ({"value": -1.0}, "out_of_range"),
        ({"position": -1}, "out_of_range"),
        ({"surface": "home\n"}, "out_of_range"),
        ({"context": {str(n): "v" for n in range(17)}}, "out_of_range"),
        ({"query": "q" * PAYLOAD_BYTES_MAX}, "too_large"),
    ],
)
def test_the_bounds_are_the_same_in_every_format(name: str, changes: dict[str, Any], expected: str) -> None:
    event = msgspec.structs.replace(MINIMAL, **changes)
    assert reason(CODECS[name].interaction, ENCODE[name](event, 7)) == expected


@binary_format
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nan_is_out_of_range(name: str, value: float) -> None:
    event = msgspec.structs.replace(MINIMAL, value=value)
    assert reason(CODECS[name].interaction, ENCODE[name](event, 7)) == "out_of_range"


@every_format
def test_missing_or_truncated_value_is_refused(name: str) -> None:
    whole = golden(f"interaction.{name}")
    assert reason(CODECS[name].interaction, b"") == "empty_value"
    for end in range(1, len(whole)):
        try:
            taken, _ = CODECS[name].interaction(whole[:end])
        except BadRecord:
            continue
        assert "protobuf" in name, "only Protobuf can be cut between two fields"
        assert taken != INTERACTION


@pytest.mark.parametrize("gpc", [None, False, True])
def test_older_plain_avro_has_no_signals_and_truncated_ones_are_refused(gpc: bool | None) -> None:
    whole = avro_codec.encode(msgspec.structs.replace(CONSENT, gpc=gpc))
    assert whole.startswith(golden("consent.avro"))
    assert CODECS["avro"].consent(whole)[0].gpc is gpc
    if gpc is not None:
        assert reason(CODECS["avro"].consent, whole[:-1]) == "malformed"


@pytest.mark.parametrize("name", ["avro", "confluent-avro"])
def test_bytes_after_the_record_are_refused(name: str) -> None:
    assert reason(CODECS[name].interaction, golden(f"interaction.{name}") + b"\0") == "malformed"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param(b"\xff" * 9 + b"\x01", "malformed", id="a length of -2^63"),
        pytest.param(b"\xfe" + b"\xff" * 8 + b"\x01", "malformed", id="a length of 2^63 - 1"),
        pytest.param(b"\x80" * 60_000, "malformed", id="a number without end"),
        pytest.param(b"\x02\xff", "bad_encoding", id="bad UTF-8"),
    ],
)
def test_avro_bytes_that_claim_too_much_are_malformed(raw: bytes, expected: str) -> None:
    assert reason(CODECS["avro"].interaction, raw) == expected


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", id="a length of 2^63 - 1"),
        pytest.param(b"\x0a\x01\xff", id="bad UTF-8"),
        pytest.param(b"\x9b\x06" * 30_000, id="groups in groups"),
        pytest.param(b"\x82\x01\xff\xff\xff\xff\x0f", id="a map of 4 GB"),
    ],
)
def test_protobuf_bytes_that_claim_too_much_are_malformed(raw: bytes) -> None:
    assert reason(CODECS["protobuf"].interaction, raw) == "malformed"


def test_protobuf_without_required_field_is_named() -> None:
    assert reason(CODECS["protobuf"].interaction, b"\x0a\x01e") == "missing_field"
    without_user = b"\x0a\x01e\x12\x06search\x18\x01"
    assert reason(CODECS["protobuf"].interaction, without_user) == "missing_user"
    assert CODECS["protobuf"].interaction(without_user + b"\x22\x03ada")[0].user_id == "ada"


def test_unknown_protobuf_fields_are_dropped_and_reported() -> None:
    unknown = b"\xa2\x06\x05extra"
    assert CODECS["protobuf"].interaction(golden("interaction.protobuf") + unknown) == (INTERACTION, True)


damage = st.tuples(st.integers(0, 400), st.binary(max_size=10), st.integers(0, 12))


@settings(max_examples=examples(60), deadline=None)
@given(st.binary(max_size=200), st.lists(damage, min_size=1, max_size=3))
def test_arbitrary_bytes_decode_or_raise_bad_record(noise: bytes, wounds: list[tuple[int, bytes, int]]) -> None:
    for name, codec in CODECS.items():
        for decode, whole in zip(codec[:2], (golden(f"interaction.{name}"), golden(f"consent.{name}")), strict=True):
            wounded = whole
            for at, put, cut in wounds:
                at %= len(whole)
                wounded = wounded[:at] + put + wounded[at + cut :]
            for raw in (noise, whole[:5] + noise, wounded):
                try:
                    decode(raw)
                except BadRecord:
                    continue


def test_single_bit_flips_decode_or_raise_bad_record() -> None:
    for name in ("confluent-avro", "confluent-protobuf"):
        whole = int.from_bytes(golden(f"interaction.{name}"), "big")
        size = len(golden(f"interaction.{name}"))
        for bit in range(8 * size):
            try:
                CODECS[name].interaction((whole ^ (1 << bit)).to_bytes(size, "big"))
            except BadRecord:
                continue


# Records of producers with their own schemas.


def written_with(schema: Any, record: Any) -> tuple[Codec, bytes]:
    stream = BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), record)
    return avro_codec.avro_codec(Schemas({5: msgspec.json.encode(schema)})), frame(5, stream.getvalue())


def record_of(*fields: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": "Click", "namespace": "shop", "fields": list(fields)} | more


OWN = record_of(
    {"name": "user_id", "type": "string"},
    {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "event_id", "type": {"type": "string", "logicalType": "uuid"}},
    {"name": "type", "type": {"type": "enum", "name": "Kind", "symbols": ["view", "search", "teleport"]}},
    {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, "default": ""},
    {"name": "value", "type": "int"},
    {"name": "lines", "type": {"type": "array", "items": record_of({"name": "sku", "type": "string"}, name="Line")}},
)
OWN_RECORD = {
    "user_id": "ada",
    "ts": 1_767_225_600_000,
    "event_id": "0190f2a4-7c1e-7b3a-9d2e-3f5a6b7c8d9e",
    "type": "search",
    "price": b"\x01",
    "value": 3,
    "lines": [{"sku": "tea"}],
}


def test_producer_avro_schema_is_matched_by_field_names() -> None:
    codec, raw = written_with(OWN, OWN_RECORD)
    expected = Interaction(OWN_RECORD["event_id"], "search", OWN_RECORD["ts"], "ada", value=3.0)  # type: ignore[arg-type]
    taken, unknown = codec.interaction(raw)
    assert msgspec.to_builtins(taken) == msgspec.to_builtins(expected)
    assert unknown


def test_avro_writer_schema_without_required_field_is_named() -> None:
    codec, raw = written_with(record_of({"name": "event_id", "type": "string"}), {"event_id": "e"})
    assert reason(codec.interaction, raw) == "missing_field"


NODE = record_of({"name": "next", "type": ["null", "Click"]})
LAUGHS = record_of(
    {"name": "a", "type": record_of({"name": "n", "type": "null"}, name="A")},
    {"name": "b", "type": record_of({"name": "x", "type": "shop.A"}, {"name": "y", "type": "shop.A"}, name="B")},
)
EMPTY = record_of({"name": "n", "type": "null"}, name="E")


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param(NODE, id="a record in itself"),
        pytest.param(LAUGHS, id="a record by name"),
        pytest.param({"type": "array", "items": "null"}, id="an array of nothing"),
        pytest.param({"type": "array", "items": EMPTY}, id="an array of empty records"),
        pytest.param({"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}}, id="an array of fixed 0"),
        pytest.param(
            {"type": "array", "items": {"type": "null", "logicalType": "x"}}, id="an array of dressed nothing"
        ),
        pytest.param(record_of(*({"name": f"n{n}", "type": "null"} for n in range(2_000))), id="2,000 types"),
        pytest.param("no such type", id="a name of nothing"),
        pytest.param(7, id="a number"),
        pytest.param({"type": "record", "name": "R"}, id="a record without fields"),
    ],
)
def test_unbounded_avro_writer_schema_counts_as_unknown(schema: Any) -> None:
    codec = avro_codec.avro_codec(Schemas({5: msgspec.json.encode(schema)}))
    assert reason(codec.interaction, frame(5, b"\xfe" + b"\xff" * 8 + b"\x01\x00")) == "unknown_schema"


@pytest.mark.parametrize("name", ["confluent-avro", "confluent-protobuf"])
def test_unknown_schema_has_its_own_reason(name: str) -> None:
    assert reason(CODECS[name].interaction, b"\0\0\0\0\x63" + golden(f"interaction.{name}")[5:]) == "unknown_schema"


@pytest.mark.parametrize("make", [avro_codec.avro_codec, protobuf_codec.protobuf_codec])
@pytest.mark.parametrize("schema", [b"", b"{", b"[" * 90_000, b"\xff\xff", b'{"type":"record"}', b"\x0a\x03\x0a\x01a"])
def test_invalid_schema_counts_as_unknown(make: Callable[[Schemas], Codec], schema: bytes) -> None:
    assert reason(make(Schemas({5: schema})).interaction, frame(5, b"\0payload")) == "unknown_schema"


def test_protobuf_file_with_missing_imports_counts_as_unknown() -> None:
    file = FileDescriptorProto(name="shop.proto")
    file.message_type.add(name="M").field.add(name="f", number=1, type=11, type_name=".no.such.Type", label=1)
    source = Schemas({5: FileDescriptorSet(file=[file]).SerializeToString()})
    assert reason(protobuf_codec.protobuf_codec(source).interaction, frame(5, b"\0payload")) == "unknown_schema"


def own_file(**types: int) -> FileDescriptorProto:
    file = FileDescriptorProto(name="shop.proto", package="shop", syntax="proto3")
    file.dependency.append("google/protobuf/wrappers.proto")
    outer = file.message_type.add(name="Outer")
    message = outer.nested_type.add(name="Click")
    for number, (name, type_of) in enumerate(types.items(), start=31):
        message.field.add(name=name, number=number, type=type_of, label=FieldDescriptorProto.LABEL_OPTIONAL)
    label = FieldDescriptorProto.LABEL_REPEATED
    message.field.add(name="granted", number=30, type=FieldDescriptorProto.TYPE_STRING, label=label)
    wrapper = ".google.protobuf.StringValue"
    message.field.add(name="jurisdiction", number=29, type=11, type_name=wrapper, label=1)
    return file


TEXT, INT64 = FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.TYPE_INT64
OWN_FILE = own_file(level=TEXT, user_id=TEXT, ts=INT64)


def own_consent(**fields: Any) -> tuple[Codec, bytes]:
    file = protobuf_codec.MessageFile([OWN_FILE])
    message = GetMessageClass(file.descriptor((0, 0)))(user_id="ada", level="full", ts=1_767_225_600_000, **fields)
    source = Schemas({5: FileDescriptorSet(file=[OWN_FILE]).SerializeToString()})
    return protobuf_codec.protobuf_codec(source), frame(5, message_place((0, 0)) + message.SerializeToString())


def test_producer_protobuf_file_is_matched_by_field_names() -> None:
    codec, raw = own_consent(granted=["personalise"], jurisdiction={"value": "EU"})
    expected = ConsentChange("ada", "full", 1_767_225_600_000, granted=["personalise"], jurisdiction="EU")
    assert codec.consent(raw) == (expected, False)


def test_empty_repeated_field_grants_nothing() -> None:
    codec, raw = own_consent()
    assert purposes_bits(codec.consent(raw)[0]) == 0


@pytest.mark.parametrize("place", [b"\x02\x02", b"\x04\x00\x12", b"\x02\x01", b"\x06\x00\x00\x00"])
def test_missing_message_is_an_unknown_schema(place: bytes) -> None:
    codec, _ = own_consent()
    assert reason(codec.consent, frame(5, place + b"payload")) == "unknown_schema"


def test_published_file_loads_alone() -> None:
    files = FileDescriptorSet.FromString(published_files()["freshet.desc"]).file
    pool = DescriptorPool()
    pool.Add(files[0])
    assert pool.FindMessageTypeByName("freshet.Interaction").fields_by_name["ts"].number == 3
