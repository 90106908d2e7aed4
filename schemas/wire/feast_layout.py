"""How Feast stores a row in Redis: key, fields and values, byte for byte (`entity_key_serialization_version: 3`).

The key is the entity key with the project behind it. A field is the MurmurHash3 (x86, 32 bits, little-endian) of
``view:feature``, and holds a `feast.types.Value`; ``_ts:view`` holds the event time as `google.protobuf.Timestamp`.
The format: https://docs.feast.dev/reference/online-stores/redis (data model). `tests/contract/test_feast.py` compares
it with what Feast itself writes, and the generated repository checks it when it is applied (:data:`FEAST_VERSION`).
"""

import struct
from typing import Final

FEAST_VERSION: Final = "0.67.0"
"""The release that this was tested with."""
_STRING: Final = 2
"""`ValueType.STRING` of Feast."""
_MASK: Final = 0xFFFFFFFF
_FIELD_OF: Final = {"int": 4, "float": 5, "texts": 12, "ints": 14, "floats": 15}
"""Fields of the message `Value`: int64_val, double_val, string_list_val, int64_list_val, double_list_val."""


def row_key(project: str, entity: str, name: str) -> bytes:
    """The key of the row of the entity `name`, whose only join key is `entity`.

    >>> row_key("shop", "user", "ada").hex()
    '01000000020000000400000075736572020000000300000061646173686f70'
    """
    key, value = entity.encode(), name.encode()
    head = struct.pack("<III", 1, _STRING, len(key)) + key
    return head + struct.pack("<II", _STRING, len(value)) + value + project.encode()


def field_of(view: str, feature: str) -> bytes:
    """The field of a feature."""
    return struct.pack("<I", murmur3(f"{view}:{feature}".encode()))


def time_field(view: str) -> bytes:
    """The field of the event time."""
    return f"_ts:{view}".encode()


def timestamp(at_ms: int) -> bytes:
    """A `google.protobuf.Timestamp`.

    >>> timestamp(1_001).hex()
    '080110c0843d'
    """
    seconds, ms = divmod(at_ms, 1_000)
    return _number(1, seconds) + _number(2, ms * 1_000_000)


def value(kind: str, of: object) -> bytes:
    """A `feast.types.Value`: `of` is an int, a float, or a list of texts, ints or floats, as `kind` says.

    >>> value("int", 300).hex(), value("texts", ["a", "bc"]).hex(), value("ints", []).hex()
    ('20ac02', '62070a01610a026263', '7200')
    """
    field = _FIELD_OF[kind]
    if kind == "int":
        return _tag(field, 0) + _varint(of)  # type: ignore[arg-type]
    if kind == "float":
        return _tag(field, 1) + struct.pack("<d", of)
    assert isinstance(of, list)
    if kind == "texts":
        packed = b"".join(_bytes(1, text.encode()) for text in of)
    else:
        raw = b"".join(_varint(one) for one in of) if kind == "ints" else struct.pack(f"<{len(of)}d", *of)
        packed = _bytes(1, raw) if of else b""
    return _bytes(field, packed)


def murmur3(text: bytes) -> int:
    """MurmurHash3_x86_32 with seed 0 (Appleby 2011).

    >>> hex(murmur3(b"The quick brown fox jumps over the lazy dog"))
    '0x2e4ff723'
    """
    hashed, whole = 0, len(text) & ~3
    for place in range(0, whole, 4):
        hashed ^= _scrambled(int.from_bytes(text[place : place + 4], "little"))
        hashed = (_rotated(hashed, 13) * 5 + 0xE6546B64) & _MASK
    hashed ^= _scrambled(int.from_bytes(text[whole:], "little"))
    hashed ^= len(text)
    hashed = ((hashed ^ hashed >> 16) * 0x85EBCA6B) & _MASK
    hashed = ((hashed ^ hashed >> 13) * 0xC2B2AE35) & _MASK
    return hashed ^ hashed >> 16


def _scrambled(block: int) -> int:
    return _rotated(block * 0xCC9E2D51 & _MASK, 15) * 0x1B873593 & _MASK


def _rotated(number: int, bits: int) -> int:
    return (number << bits | number >> (32 - bits)) & _MASK


def _varint(number: int) -> bytes:
    number &= (1 << 64) - 1  # as protobuf encodes negative numbers
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _tag(field: int, wire: int) -> bytes:
    return _varint(field << 3 | wire)


def _number(field: int, number: int) -> bytes:
    return _tag(field, 0) + _varint(number) if number else b""


def _bytes(field: int, content: bytes) -> bytes:
    return _tag(field, 2) + _varint(len(content)) + content
