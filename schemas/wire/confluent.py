"""Confluent framing: a zero byte, the schema id in four bytes, then the payload; and the source of the schemas.

Protobuf has the message's index path in its file between id and payload: a count and that many indexes, as zigzag
varints, or a single zero byte for the first message.
"""

import time
from collections.abc import Callable
from typing import Final, Generic, Literal, Protocol, TypeVar

from schemas.rejects import RejectReason
from schemas.wire.codecs import BadRecord
from schemas.wire.naming import HEADER_BYTES, MAGIC

T = TypeVar("T")
Form = Literal["avro", "protobuf"]

SCHEMA_ID_MAX: Final = 2**31 - 1
SCHEMA_BYTES_MAX: Final = 256 * 1024
SCHEMAS_CACHED_MAX: Final = 256
UNKNOWN_CACHED_MAX: Final = 4096
UNKNOWN_TTL_S: Final = 30.0
"""How long an unknown id is not requested again."""
MESSAGE_DEPTH_MAX: Final = 8
_VARINT_BYTES_MAX: Final = 5


class SchemaSource(Protocol):
    """Finds the schema with which a record was written."""

    def fetch(self, form: Form, schema_id: int) -> bytes | None:
        """The schema: JSON text for Avro, a FileDescriptorSet for Protobuf; None if there is none of that format.

        Raises :class:`schemas.errors.SchemaError` if the source did not respond: the record may be valid, so the caller
        must retry instead of rejecting it.
        """
        ...


class SchemaCache(Generic[T]):
    """Compiled schemas by id, with bounded size; unknown ids are cached for a limited time.

    `compile_schema` raises ValueError for an unusable schema; the id then counts as unknown.
    """

    def __init__(
        self,
        source: SchemaSource,
        form: Form,
        compile_schema: Callable[[bytes], T],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._form: Form = form
        self._compile = compile_schema
        self._clock = clock
        self._known: dict[int, T] = {}
        self._unknown_until: dict[int, float] = {}

    def get(self, schema_id: int) -> T:
        """The compiled schema.

        Raises :class:`BadRecord` if there is none, SchemaError if the source did not respond.
        """
        known = self._known.get(schema_id)
        return known if known is not None else self._find(schema_id)

    def _find(self, schema_id: int) -> T:
        now = self._clock()
        if not 0 < schema_id <= SCHEMA_ID_MAX or self._unknown_until.get(schema_id, now) > now:
            raise BadRecord(RejectReason.UNKNOWN_SCHEMA)
        schema = self._source.fetch(self._form, schema_id)
        try:
            if schema is None or len(schema) > SCHEMA_BYTES_MAX:
                raise ValueError
            compiled = self._compile(schema)
        except ValueError:
            _put(self._unknown_until, schema_id, now + UNKNOWN_TTL_S, UNKNOWN_CACHED_MAX)
            raise BadRecord(RejectReason.UNKNOWN_SCHEMA) from None
        _put(self._known, schema_id, compiled, SCHEMAS_CACHED_MAX)
        return compiled


def _put(cache: dict[int, T], schema_id: int, value: T, entries_max: int) -> None:
    while len(cache) >= entries_max:
        del cache[next(iter(cache))]
    cache[schema_id] = value


def split_frame(raw: bytes) -> tuple[int, bytes]:
    """The schema id and the bytes after it.

    >>> split_frame(frame(7, b"payload"))
    (7, b'payload')
    """
    if len(raw) < HEADER_BYTES or raw[0] != MAGIC:
        raise BadRecord(RejectReason.MALFORMED)
    return int.from_bytes(raw[1:HEADER_BYTES], "big"), raw[HEADER_BYTES:]


def frame(schema_id: int, payload: bytes) -> bytes:
    """`payload` with a header that contains `schema_id`."""
    return bytes([MAGIC]) + schema_id.to_bytes(4, "big") + payload


def split_message_place(payload: bytes) -> tuple[tuple[int, ...], bytes]:
    """The message's index path in its file, outermost first, and the bytes after it.

    >>> split_message_place(message_place((1, 0)) + b"payload")
    ((1, 0), b'payload')
    """
    count, at = _varint(payload, 0)
    if not 0 <= count <= MESSAGE_DEPTH_MAX:
        raise BadRecord(RejectReason.MALFORMED)
    place = []
    for _ in range(count):
        index, at = _varint(payload, at)
        place.append(index)
    return tuple(place) or (0,), payload[at:]


def message_place(place: tuple[int, ...]) -> bytes:
    """The bytes of an index path: a zero byte for the first message of a file.

    >>> message_place((0,)), message_place((1,))
    (b'\\x00', b'\\x02\\x02')
    """
    if place == (0,):
        return b"\0"
    numbers = (len(place), *place)
    assert max(numbers) < 2**6, "one byte holds a zigzag varint below 64"
    return bytes(number << 1 for number in numbers)


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """The zigzag varint in `raw` at `at`, and the index of its end."""
    number = 0
    for shift, byte in enumerate(raw[at : at + _VARINT_BYTES_MAX]):
        number |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at + shift + 1
    raise BadRecord(RejectReason.MALFORMED)
