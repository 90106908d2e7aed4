"""Walks the wire format of Protobuf to find what a parser hides.

A parser silently drops a field of the wrong wire type and overwrites a repeated one: in a consent, both can hide a
withdrawal, which only the bytes reveal.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from google.protobuf.unknown_fields import UnknownFieldSet

from schemas.rejects import RejectReason

FIELDS_MAX: Final = 1_000
"""The maximum number of fields of a message that are examined; a consent with more cannot be read."""
_VARINT, _FIXED64, _LENGTH, _GROUP, _GROUP_END, _FIXED32 = 0, 1, 2, 3, 4, 5
_SIZES: Final = {_FIXED64: 8, _FIXED32: 4}


class WireField(NamedTuple):
    """A field: its bytes including the tag, and the content of a length-delimited field, else empty."""

    number: int
    raw: bytes
    content: bytes


def wire_fields(payload: bytes) -> Iterator[WireField]:
    """The fields of a message in order, up to the first incomplete one.

    >>> [(field.number, field.content) for field in wire_fields(b"\\x0a\\x03ada\\x18\\x05\\x12\\x09cut")]
    [(1, b'ada'), (3, b'')]
    """
    at = 0
    while at < len(payload):
        begin = at
        tag, at = _varint(payload, at)
        content, at = _content(payload, tag & 7, at) if tag >= 0 else (0, -1)
        if at < 0:
            return
        yield WireField((tag & 0xFFFFFFFF) >> 3, payload[begin:at], payload[content:at])


def _content(payload: bytes, wire_type: int, at: int) -> tuple[int, int]:
    """Start and end of the content of a field whose tag ends at `at`; the end is -1 if it is incomplete."""
    if wire_type == _LENGTH:
        length, at = _varint(payload, at)
        return at, at + length if 0 <= length <= len(payload) - at else -1
    if wire_type == _VARINT:
        number, at = _varint(payload, at)
        end = at if number >= 0 else -1
    elif wire_type == _GROUP:
        end = _end_of_group(payload, at)
    else:
        end = at + _SIZES.get(wire_type, len(payload))
    return end, end if end <= len(payload) else -1


def _end_of_group(payload: bytes, at: int) -> int:
    depth = 1
    while depth and at >= 0:
        tag, at = _varint(payload, at)
        if tag < 0:
            return -1
        if tag & 7 == _GROUP:
            depth += 1
        elif tag & 7 == _GROUP_END:
            depth -= 1
        else:
            _, at = _content(payload, tag & 7, at)
    return at


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """The varint in `raw` at `at`, and the index of its end; the value is negative if it is incomplete."""
    if at < len(raw) and raw[at] < 0x80:  # the usual case
        return raw[at], at + 1
    number = 0
    for shift, byte in enumerate(raw[at : at + 10]):
        number |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return number, at + shift + 1
    return -1, at


class MessageShape(NamedTuple):
    """The fields that a message may have, for checking its bytes.

    `known`: their numbers. `single`: the fields that may occur at most once, as number → name of the field or of its
    oneof. `wrapped`: messages that only wrap one field, and so may have no other.
    """

    parse: Callable[[bytes], Any]
    known: frozenset[int]
    single: dict[int, str]
    wrapped: "dict[int, MessageShape]"


def ambiguity(payload: bytes, shape: MessageShape, is_wrapper: bool = False) -> RejectReason | None:
    """Why readers may differ on the parsable message `payload`; None if all interpret it the same way.

    Unknown field numbers are no reason: a newer producer may have written them.
    """
    dropped = {field.field_number for field in UnknownFieldSet(shape.parse(payload))}
    if dropped and (is_wrapper or dropped & shape.known):
        return RejectReason.WRONG_TYPE
    seen: set[str] = set()
    for count, field in enumerate(wire_fields(payload)):
        if count == FIELDS_MAX:
            return RejectReason.OUT_OF_RANGE
        name = shape.single.get(field.number)
        if name in seen:
            return RejectReason.REPEATED_FIELD
        if name is not None:
            seen.add(name)
        wrapped = shape.wrapped.get(field.number)
        reason = None if wrapped is None else ambiguity(field.content, wrapped, is_wrapper=True)
        if reason is not None:
            return reason
    return None
