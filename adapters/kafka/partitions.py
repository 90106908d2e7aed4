"""Computes the partitions that common producers choose for a key, so that a search need not read all of them."""

import zlib
from typing import Final

from kafka.partitioner.default import murmur2

_FNV_BASIS: Final = 0x811C9DC5
_FNV_PRIME: Final = 0x01000193
_POSITIVE: Final = 0x7FFFFFFF
_SIGN: Final = 0x80000000


def likely_partitions(key: bytes, count: int) -> frozenset[int]:
    """The partitions, of `count`, where common producers put a record with `key`.

    They hash with murmur2 (Java, kafka-python and most others), CRC-32 (librdkafka and its bindings) or FNV-1a (Sarama,
    kafka-go; optional in librdkafka), and negate or mask negative hashes.

    >>> sorted(likely_partitions(b"ada", 12)), sorted(likely_partitions(b"ada", 1))
    ([0, 5, 7], [0])
    """
    fnv = _fnv1a(key)
    turned = (1 << 32) - fnv if fnv & _SIGN else fnv
    hashes = (murmur2(key) & _POSITIVE, zlib.crc32(key), turned, fnv & _POSITIVE)
    return frozenset(number % count for number in hashes)


def _fnv1a(key: bytes) -> int:
    number = _FNV_BASIS
    for byte in key:
        number = (number ^ byte) * _FNV_PRIME & 0xFFFFFFFF
    return number
