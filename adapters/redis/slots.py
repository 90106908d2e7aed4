"""Slots of a Redis Cluster: CRC-16 (XMODEM) of a key's hash tag or, without one, of the whole key."""

from binascii import crc_hqx
from typing import Final

SLOTS: Final = 16_384


def slot_of(key: str | bytes) -> int:
    """The slot of a key.

    >>> slot_of("123456789"), slot_of("shop:{p1.a}:list") == slot_of("{p1.a}:gone")
    (12739, True)
    """
    raw = key.encode() if isinstance(key, str) else key
    begin = raw.find(b"{")
    if begin >= 0:
        end = raw.find(b"}", begin + 1)
        if end > begin + 1:
            raw = raw[begin + 1 : end]
    return crc_hqx(raw, 0) % SLOTS
