"""Protobuf and Avro parsers drop fields silently: a consent that loses something is a withdrawal."""

from io import BytesIO
from typing import Any

import fastavro
import msgspec
import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.consents import ConsentChange
from schemas.wire import avro_codec, protobuf_codec
from schemas.wire.codecs import BadRecord, Codec
from schemas.wire.confluent import Form, frame
from schemas.wire.consent_records import UNREADABLE, consents_in
from schemas.wire.protobuf_wire import FIELDS_MAX, wire_fields
from schemas.wire.shapes import fields_of
from tests.support.vocabulary import BEGINNING

pytestmark = pytest.mark.privacy

PROTOBUF = protobuf_codec.protobuf_codec()
NUMBERS = {field.name: number for number, field in enumerate(fields_of(ConsentChange), start=1)}
KINDS = {field.name: field.kind for field in fields_of(ConsentChange)}
VARINT, FIXED64, LENGTH, GROUP, FIXED32 = 0, 1, 2, 3, 5
WIRE_TYPE = {"text": LENGTH, "texts": LENGTH, "int32": VARINT, "int64": VARINT, "bool": VARINT}
MINIMAL = protobuf_codec.encode(ConsentChange("ada", "full", BEGINNING))


def varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def field(number: int, wire_type: int, content: bytes = b"") -> bytes:
    """A field of `wire_type`; `content` matters only for strings."""
    tag = varint(number << 3 | wire_type)
    bodies = {
        VARINT: b"\0",
        FIXED64: b"\0" * 8,
        FIXED32: b"\0" * 4,
        GROUP: b"\x08\x01" + varint(number << 3 | 4),
        LENGTH: varint(len(content)) + content,
    }
    return tag + bodies[wire_type]


def counts(value: bytes, codec: Codec = PROTOBUF, key: bytes | None = None) -> dict[str, str]:
    """user → level; unless it grants, the record counts as unreadable for all of them."""
    said = [one.change for one in consents_in(codec, key, value, BEGINNING + 7)]
    assert all(change.method == UNREADABLE or change.level == "full" for change in said)
    return {change.user_id: change.level for change in said}


def test_minimal_record_grants() -> None:
    assert counts(MINIMAL) == {"ada": "full"}


WIRE_TYPES = VARINT, FIXED64, LENGTH, GROUP, FIXED32
WRONG = [(name, wrong) for name in NUMBERS for wrong in WIRE_TYPES if wrong != WIRE_TYPE[KINDS[name]]]


@pytest.mark.parametrize(("name", "wire_type"), WRONG)
@pytest.mark.promise("broken-consent-withdraws")
def test_known_field_of_another_wire_type_withdraws(name: str, wire_type: int) -> None:
    wrong = field(NUMBERS[name], wire_type, b"2030-01-01")
    for value in (MINIMAL + wrong, wrong + MINIMAL):
        assert counts(value) == {"ada": "none"}
        assert counts(value, key=b"bob") == {"ada": "none", "bob": "none"}


@pytest.mark.parametrize("name", ["granted", "denied"])
@pytest.mark.parametrize("inner", [field(2, LENGTH, b"personalise"), field(1, VARINT), field(9, FIXED64)])
@pytest.mark.promise("broken-consent-withdraws")
def test_protobuf_purpose_list_with_other_content_withdraws(name: str, inner: bytes) -> None:
    for texts in (inner, inner + field(1, LENGTH, b"train"), field(1, LENGTH, b"train") + inner):
        assert counts(MINIMAL + field(NUMBERS[name], LENGTH, texts)) == {"ada": "none"}


FULL = ConsentChange(
    "ada", "full", BEGINNING, ["train"], ["measure"], "banner", "7", "EU", BEGINNING + 9, False, "t", "g", 1, False
)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.promise("broken-consent-withdraws")
def test_singular_field_twice_withdraws(name: str) -> None:
    full = protobuf_codec.encode(FULL) + field(NUMBERS["erase"], VARINT) + field(NUMBERS["schema_v"], VARINT)
    [again] = [one.raw for one in wire_fields(full) if one.number == NUMBERS[name]]
    for value in (full + again, again + full):
        assert counts(value) == {"ada": "none"}
    assert counts(full + field(99, LENGTH, b"x") * 2) == {"ada": "full"}, "a newer producer may repeat its own"


def test_all_users_of_one_message_withdraw_and_none_is_erased() -> None:
    value = field(1, LENGTH, b"bob") + MINIMAL + field(NUMBERS["erase"], VARINT)[:-1] + b"\1"
    assert counts(value, key=b"eve") == {"eve": "none", "bob": "none", "ada": "none"}
    assert not any(one.change.erase for one in consents_in(PROTOBUF, b"eve", value, BEGINNING))


def test_number_of_fields_is_bounded() -> None:
    for count, level in ((FIELDS_MAX - 3, "full"), (FIELDS_MAX - 2, "none")):
        assert counts(MINIMAL + field(99, VARINT) * count) == {"ada": level}


NOISE = st.lists(st.builds(field, st.integers(15, 2**29 - 1), st.sampled_from(WIRE_TYPES), st.binary())).map(b"".join)


@given(NOISE, NOISE)
def test_fields_of_newer_producers_are_skipped_whole(before: bytes, after: bytes) -> None:
    assert counts(before + MINIMAL + after) == {"ada": "full"}
    assert counts(before + MINIMAL + after + field(2, LENGTH, b"full")) == {"ada": "none"}


PARTS = st.lists(
    st.one_of(
        st.sampled_from([one.raw for one in wire_fields(protobuf_codec.encode(FULL))]),
        st.builds(field, st.integers(1, 16), st.sampled_from(WIRE_TYPES), st.binary()),
    ),
    max_size=8,
)
MESSAGE = GetMessageClass(protobuf_codec._PUBLISHED.descriptor((1,)))


@given(PARTS, st.integers(0, 40))
@example([MINIMAL, MINIMAL], 0)
def test_grant_is_read_the_same_in_any_field_order(parts: list[bytes], cut: int) -> None:
    """Readers cannot differ on a grant: no field occurs twice."""
    value = MINIMAL + b"".join(parts)
    value = value[: len(value) - cut] if cut % 2 else value
    try:
        change, _ = PROTOBUF.consent(value)
    except BadRecord:
        return
    backwards = b"".join(one.raw for one in reversed(list(wire_fields(value))))
    assert PROTOBUF.consent(backwards)[0] == change
    assert len(backwards) == len(value), "the walk sees every byte"


@given(st.binary(max_size=40) | PARTS.map(b"".join))
def test_wire_walk_covers_every_message_the_parser_accepts(payload: bytes) -> None:
    try:
        MESSAGE.FromString(payload)
    except DecodeError:
        list(wire_fields(payload))
        return
    assert b"".join(one.raw for one in wire_fields(payload)) == payload


class Schemas:
    """A registry that holds one schema."""

    def __init__(self, schema: bytes) -> None:
        self._schema = schema

    def fetch(self, form: Form, schema_id: int) -> bytes | None:
        return self._schema


def own_protobuf(**types: int) -> Codec:
    """The codec of a producer whose message has three strings and one more field."""
    file = FileDescriptorProto(name="shop.proto", package="shop", syntax="proto2")
    file.enum_type.add(name="Kind").value.add(name="KNOWN", number=1)
    message = file.message_type.add(name="Consent")
    text = FieldDescriptorProto.TYPE_STRING
    wanted = {"user_id": text, "level": text, "ts": FieldDescriptorProto.TYPE_INT64, **types}
    for number, (name, type_) in enumerate(wanted.items(), start=1):
        added = message.field.add(name=name, number=number, type=type_, label=FieldDescriptorProto.LABEL_OPTIONAL)
        if type_ == FieldDescriptorProto.TYPE_ENUM:
            added.type_name = ".shop.Kind"
            added.label = FieldDescriptorProto.LABEL_REPEATED
    return protobuf_codec.protobuf_codec(Schemas(FileDescriptorSet(file=[file]).SerializeToString()))


def test_unknown_value_of_a_producers_enum_withdraws() -> None:
    """The parser drops it, like a field with another wire type."""
    codec = own_protobuf(denied=FieldDescriptorProto.TYPE_ENUM)
    assert counts(frame(7, b"\0" + MINIMAL), codec) == {"ada": "full"}
    assert counts(frame(7, b"\0" + MINIMAL + b"\x20\x09"), codec) == {"ada": "none"}


@pytest.mark.parametrize("name", ["Denied", "expiresAt", "LEVEL"])
def test_protobuf_field_resembling_a_known_one_withdraws(name: str) -> None:
    codec = own_protobuf(**{name: FieldDescriptorProto.TYPE_STRING})
    assert counts(frame(7, b"\0" + MINIMAL), codec) == {"ada": "full"}
    assert counts(frame(7, b"\0" + MINIMAL + field(4, LENGTH, b"none")), codec) == {"ada": "none"}


def avro_counts(*more: tuple[str, Any, Any]) -> dict[str, str]:
    fields = [("user_id", "string", "ada"), ("level", "string", "full"), ("ts", "long", BEGINNING), *more]
    schema = {"type": "record", "name": "C", "fields": [{"name": name, "type": type_} for name, type_, _ in fields]}
    stream = BytesIO()
    fastavro.schemaless_writer(stream, schema, {name: value for name, _, value in fields})
    return counts(frame(7, stream.getvalue()), avro_codec.avro_codec(Schemas(msgspec.json.encode(schema))), b"ada")


AVRO = {
    "string": "9",
    "bytes": b"x",
    "boolean": True,
    "double": 1e12,
    "long": 7,
    "array": ["x"],
    "map": {"x": "y"},
}
FITS = {"text": {"string"}, "int64": {"long"}, "int32": {"long"}, "bool": {"boolean"}, "texts": {"array"}}


MISFITS = [(name, type_) for name in list(NUMBERS)[3:] for type_ in AVRO if type_ not in FITS[KINDS[name]]]


@pytest.mark.parametrize(("name", "type_"), MISFITS)
@pytest.mark.promise("broken-consent-withdraws")
def test_known_field_of_another_type_in_the_writers_schema_withdraws(name: str, type_: str) -> None:
    whole = {"array": {"type": "array", "items": "string"}, "map": {"type": "map", "values": "string"}}.get(
        type_, type_
    )
    assert avro_counts((name, whole, AVRO[type_])) == {"ada": "none"}
    assert avro_counts((name, ["null", whole], AVRO[type_])) == {"ada": "none"}


@pytest.mark.parametrize("name", ["Denied", "expiresAt", "LEVEL"])
def test_avro_field_resembling_a_known_one_withdraws(name: str) -> None:
    assert avro_counts((name, "string", "none")) == {"ada": "none"}
    assert avro_counts(("source", "string", "none")) == {"ada": "full"}


def test_writers_schema_with_two_fields_of_one_name_counts_as_unknown() -> None:
    fields = [{"name": name, "type": "string"} for name in ("user_id", "level", "level")]
    with pytest.raises(ValueError, match="cannot be read"):
        avro_codec.writer_schema(msgspec.json.encode({"type": "record", "name": "C", "fields": fields}))
