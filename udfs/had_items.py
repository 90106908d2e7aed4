"""Which items a user has met, and how often: 6 bytes each, the one met last at the end.

An item is known by the CRC-32 of its id (4 bytes, little-endian), followed by its count (2 bytes). Two items of one
catalogue rarely share a checksum: with 512 items and 100,000 in the catalogue, one item in 80,000 is wrongly taken as
met, by one user.
"""

from binascii import crc32
from typing import Final

import numpy as np
import numpy.typing as npt

ENTRY: Final = np.dtype([("item", "<u4"), ("count", "<u2")])
COUNT_MAX: Final = 65_535


def item_hash(item: str) -> int:
    """The checksum that `item` is known by."""
    return crc32(item.encode())


def with_item(had: bytes, item: str, items_max: int) -> bytes:
    """`had` after meeting `item` once more; at most `items_max` items, those met last.

    >>> once = with_item(b"", "tea", 2)
    >>> counts_of(with_item(with_item(once, "cup", 2), "tea", 2))["count"].tolist()
    [1, 2]
    >>> len(with_item(with_item(with_item(once, "cup", 2), "pot", 2), "jam", 2)) // 6
    2
    """
    key = item_hash(item).to_bytes(4, "little")
    place, count = had.find(key), 0
    while place > 0 and place % ENTRY.itemsize:
        place = had.find(key, place + 1)
    if place >= 0:
        count = int.from_bytes(had[place + 4 : place + 6], "little")
        had = had[:place] + had[place + 6 :]
    return (had + key + min(count + 1, COUNT_MAX).to_bytes(2, "little"))[-items_max * ENTRY.itemsize :]


def counts_of(had: bytes) -> npt.NDArray[np.void]:
    """The entries: a structured array with `item` uint32 and `count` uint16, the item met last at the end."""
    return np.frombuffer(had, ENTRY)
