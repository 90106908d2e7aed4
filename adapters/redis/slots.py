"""Slots of a Redis Cluster: CRC-16 (XMODEM) of a key's hash tag or, without one, of the whole key."""

from binascii import crc_hqx
from typing import Final

SLOTS: Final = 16_384


def slot_of(key: str) -> int:
    """The slot of a key.

    >>> slot_of("123456789"), slot_of("shop:{p1.a}:list") == slot_of("{p1.a}:gone")
    (12739, True)
    """
    begin = key.find("{")
    if begin >= 0:
        end = key.find("}", begin + 1)
        if end > begin + 1:
            key = key[begin + 1 : end]
    return crc_hqx(key.encode(), 0) % SLOTS
