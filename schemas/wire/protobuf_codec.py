"""Protobuf as an alternative to JSON: the same objects, bounds and reject reasons.

A field's number is its position in the struct, counted from one, so fields are only ever appended. Every field has
presence (`optional`), so that "absent" and "zero" differ; for the same reason, a list has its own message: no `granted`
means every purpose, an empty one means none. If a foreign schema has a plain repeated field there, it is interpreted
strictly: as empty.

A consent in which a known field has another wire type, or a singular field is repeated, cannot be read
(:mod:`schemas.wire.protobuf_wire`). In an interaction, a field of the wrong type is dropped, and the last of repeated
fields counts.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from operator import attrgetter
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from google.protobuf import duration_pb2, struct_pb2, timestamp_pb2, wrappers_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.unknown_fields import UnknownFieldSet

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
from schemas.wire.confluent import SchemaCache, SchemaSource, frame, message_place, split_frame, split_message_place
from schemas.wire.naming import Named
from schemas.wire.protobuf_wire import FIELDS_MAX, MessageShape, ambiguity, wire_fields
from schemas.wire.shapes import Kind, fields_of

T = TypeVar("T", bound=msgspec.Struct)

PACKAGE: Final = "freshet"
MESSAGES: Final[tuple[type[msgspec.Struct], ...]] = (Interaction, ConsentChange)
"""In the order of the published file, to which framed records refer."""


_PRIMITIVE: Final[dict[Kind, int]] = {
    "text": FieldDescriptorProto.TYPE_STRING,
    "int32": FieldDescriptorProto.TYPE_INT32,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "float": FieldDescriptorProto.TYPE_DOUBLE,
    "bool": FieldDescriptorProto.TYPE_BOOL,
}
_WELL_KNOWN: Final = {
    module.DESCRIPTOR.name: module.DESCRIPTOR.serialized_pb
    for module in (duration_pb2, struct_pb2, timestamp_pb2, wrappers_pb2)
}


def file_descriptor() -> FileDescriptorProto:
    """The published file ``freshet.proto`` as a descriptor."""
    file = FileDescriptorProto(name="freshet.proto", package=PACKAGE, syntax="proto3")
    for struct in MESSAGES:
        _describe(file.message_type.add(name=struct.__name__), struct)
    return file


def _describe(message: DescriptorProto, struct: type[msgspec.Struct]) -> None:
    for number, field in enumerate(fields_of(struct), start=1):
        described = message.field.add(name=field.name, number=number, label=FieldDescriptorProto.LABEL_OPTIONAL)
        if field.kind == "text_map":
            _describe_map(message, described)
            continue
        if field.kind == "texts":
            _describe_list(message, described)
        else:
            described.type = _PRIMITIVE[field.kind]
        described.proto3_optional = True
        described.oneof_index = len(message.oneof_decl)
        message.oneof_decl.add(name=f"_{field.name}")


def _describe_map(message: DescriptorProto, field: FieldDescriptorProto) -> None:
    entry = message.nested_type.add(name=field.name.title().replace("_", "") + "Entry")
    entry.options.map_entry = True
    for number, name in enumerate(("key", "value"), start=1):
        entry.field.add(name=name, number=number, type=_PRIMITIVE["text"], label=FieldDescriptorProto.LABEL_OPTIONAL)
    field.label = FieldDescriptorProto.LABEL_REPEATED
    _refer(field, message, entry)


def _describe_list(message: DescriptorProto, field: FieldDescriptorProto) -> None:
    texts = next((nested for nested in message.nested_type if nested.name == "Texts"), None)
    if texts is None:
        texts = message.nested_type.add(name="Texts")
        repeated = FieldDescriptorProto.LABEL_REPEATED
        texts.field.add(name="values", number=1, type=_PRIMITIVE["text"], label=repeated)
    _refer(field, message, texts)


def _refer(field: FieldDescriptorProto, message: DescriptorProto, nested: DescriptorProto) -> None:
    field.type = FieldDescriptorProto.TYPE_MESSAGE
    field.type_name = f".{PACKAGE}.{message.name}.{nested.name}"


class MessageReader(NamedTuple):
    """A message class, and the conversions of its compound fields to plain values."""

    parse: Callable[[bytes], Any]
    unpack: dict[str, Callable[[Any], object]]
    always: tuple[str, ...]
    shape: MessageShape
    numbers: dict[str, int]

    def read(self, payload: bytes) -> tuple[dict[str, object], bool]:
        """The present fields by name, and whether there were unknown ones.

        Raises :class:`BadRecord` for invalid bytes.
        """
        try:
            message = self.parse(payload)
            record: dict[str, object] = {field.name: value for field, value in message.ListFields()}
            for name in self.always:
                record[name] = getattr(message, name)
            for name, unpack in self.unpack.items():
                if name in record:
                    record[name] = unpack(record[name])
            return record, len(UnknownFieldSet(message)) > 0
        except UnicodeDecodeError:
            raise BadRecord(RejectReason.BAD_ENCODING) from None
        except (DecodeError, ValueError, RecursionError):
            raise BadRecord(RejectReason.MALFORMED) from None

    def read_unambiguous(self, payload: bytes) -> tuple[dict[str, object], bool]:
        """The same; also raises :class:`BadRecord` if readers may interpret the message differently."""
        found = self.read(payload)
        reason = ambiguity(payload, self.shape)
        if reason is not None:
            raise BadRecord(reason)
        return found


def message_reader(descriptor: Any) -> MessageReader:
    """The reader for messages of `descriptor` (a Descriptor of google.protobuf)."""
    unpack: dict[str, Callable[[Any], object]] = {}
    always = []
    for field in descriptor.fields:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            unpack[field.name] = dict
        elif field.label == field.LABEL_REPEATED:
            unpack[field.name] = list
            always.append(field.name)
        elif field.message_type is not None and len(field.message_type.fields) == 1:
            unpack[field.name] = _unwrapper(field.message_type.fields[0])
    shape = _shape_of(descriptor, frozenset(unpack) - frozenset(always))
    numbers = {field.name: field.number for field in descriptor.fields}
    return MessageReader(shape.parse, unpack, tuple(always), shape, numbers)


def _shape_of(descriptor: Any, wrapped: frozenset[str] = frozenset()) -> MessageShape:
    """The shape of a message, whose fields `wrapped` are maps or messages that wrap one field."""
    fields = descriptor.fields
    once = [field for field in fields if field.label != field.LABEL_REPEATED]
    return MessageShape(
        GetMessageClass(descriptor).FromString,
        frozenset(field.number for field in fields),
        {field.number: (field.containing_oneof or field).full_name for field in once},
        {field.number: _shape_of(field.message_type) for field in once if field.name in wrapped},
    )


def _unwrapper(inner: Any) -> Callable[[Any], object]:
    """Returns the value inside a message that only wraps `inner`."""
    value = attrgetter(inner.name)
    return (lambda message: list(value(message))) if inner.label == inner.LABEL_REPEATED else value


class MessageFile:
    """The messages of one file, by their index path."""

    def __init__(self, files: list[FileDescriptorProto]) -> None:
        self._pool = DescriptorPool()
        needed = {name for file in files for name in file.dependency} - {file.name for file in files}
        for name in needed & _WELL_KNOWN.keys():
            self._pool.AddSerializedFile(_WELL_KNOWN[name])
        for file in files:
            self._pool.Add(file)
        self._file = files[-1]
        self._readers: dict[tuple[int, ...], MessageReader] = {}

    def descriptor(self, place: tuple[int, ...]) -> Any:
        """The Descriptor of the message at `place`; raises IndexError if there is none."""
        if min(place) < 0:
            raise IndexError
        message = self._file.message_type[place[0]]
        names = [self._file.package, message.name] if self._file.package else [message.name]
        for index in place[1:]:
            message = message.nested_type[index]
            names.append(message.name)
        return self._pool.FindMessageTypeByName(".".join(names))

    def reader(self, place: tuple[int, ...]) -> MessageReader:
        """The reader for the message at `place`; raises :class:`BadRecord` if there is none."""
        reader = self._readers.get(place)
        if reader is None:
            try:
                reader = self._readers[place] = message_reader(self.descriptor(place))
            except IndexError:
                raise BadRecord(RejectReason.UNKNOWN_SCHEMA) from None
        return reader


def writer_file(descriptor_set: bytes) -> MessageFile:
    """The last file of a serialised FileDescriptorSet; raises ValueError if it cannot be used."""
    try:
        file = MessageFile(list(FileDescriptorSet.FromString(descriptor_set).file))
        file.descriptor((0,))
    except (DecodeError, TypeError, KeyError, IndexError, RecursionError):
        raise ValueError("events cannot be read with this Protobuf file") from None
    return file


_PUBLISHED: Final = MessageFile([file_descriptor()])
_PLACE: Final[dict[type[msgspec.Struct], tuple[int, ...]]] = {struct: (at,) for at, struct in enumerate(MESSAGES)}


def protobuf_codec(source: SchemaSource | None = None) -> Codec:
    """The codec for Protobuf: framed if there is a `source` of schemas, else plain.

    With a source, both functions also raise :class:`schemas.errors.SchemaError` if it does not respond.
    """
    cache = SchemaCache(source, "protobuf", writer_file) if source else None
    return Codec(
        _decoder(Interaction, LenientInteraction, check_interaction, cache),
        _decoder(ConsentChange, LenientConsentChange, check_consent, cache),
        partial(_named, cache),
    )


def _named(cache: SchemaCache[MessageFile] | None, raw: bytes) -> Named | None:
    """All users that a consent change names. Unlike a parser, it finds all values of a repeated field."""
    reader, payload = _PUBLISHED.reader(_PLACE[ConsentChange]), raw
    try:
        if cache is not None:
            schema_id, framed = split_frame(raw)
            place, payload = split_message_place(framed)
            reader = cache.get(schema_id).reader(place)
    except BadRecord:
        return None
    records = list(_read_singly(reader, payload, ("user_id", "erase")))
    whole = False
    with suppress(BadRecord):
        records.append(reader.read(payload)[0])
        whole = True
    users = list(dict.fromkeys(user for record in records if isinstance(user := record.get("user_id"), str)))
    if not users:
        return None
    if len(users) > 1:
        return Named(users[0], False, False, whole, tuple(users[1:]))
    erases = [record["erase"] for record in records if "erase" in record]
    return Named(users[0], bool(erases) and all(erase is True for erase in erases), whole)


def _read_singly(reader: MessageReader, payload: bytes, names: tuple[str, ...]) -> Iterator[dict[str, object]]:
    """The fields with these `names`, including repeated ones, each decoded separately; incomplete ones are skipped."""
    numbers = {reader.numbers[name] for name in names if name in reader.numbers}
    for field in islice(wire_fields(payload), FIELDS_MAX):
        if field.number in numbers:
            with suppress(BadRecord):
                yield reader.read(field.raw)[0]


def _decoder(
    struct: type[T], lenient: type[T], check: Callable[[T], None], cache: SchemaCache[MessageFile] | None
) -> Callable[[bytes], tuple[T, bool]]:
    convert = tolerant(partial(msgspec.convert, type=struct), partial(msgspec.convert, type=lenient), check)
    published = _PUBLISHED.reader(_PLACE[struct])
    read = _read_consent if issubclass(struct, ConsentChange) else MessageReader.read

    bytes_max = bytes_max_of(struct)

    def decode(raw: bytes) -> tuple[T, bool]:
        check_size(raw, bytes_max)
        if cache is None:
            reader, payload = published, raw
        else:
            schema_id, framed = split_frame(raw)
            place, payload = split_message_place(framed)
            reader = cache.get(schema_id).reader(place)
        fields, unnamed = read(reader, payload)
        record, unknown = convert(fields)
        return record, unknown or unnamed

    return decode


def _read_consent(reader: MessageReader, payload: bytes) -> tuple[dict[str, object], bool]:
    fields, unnamed = reader.read_unambiguous(payload)
    check_names(fields)
    return fields, unnamed


def encode(record: Interaction | ConsentChange) -> bytes:
    """The plain bytes of `record`."""
    message = GetMessageClass(_PUBLISHED.descriptor(_PLACE[type(record)]))()
    for name, value in msgspec.to_builtins(record).items():
        if isinstance(value, dict):
            getattr(message, name).update(value)
        elif isinstance(value, list):
            getattr(message, name).values.extend(value)
        else:
            setattr(message, name, value)
    payload: bytes = message.SerializeToString(deterministic=True)
    return payload


def encode_framed(record: Interaction | ConsentChange, schema_id: int) -> bytes:
    """The framed bytes of `record`, for a registry that has the published file as `schema_id`."""
    return frame(schema_id, message_place(_PLACE[type(record)]) + encode(record))
