"""Items that can be recommended, as stored in the compacted `catalogue` topic (key = item id)."""

from typing import Final, NamedTuple

import msgspec

from schemas.events import ID_LENGTH_MAX, ItemId, ShortText
from schemas.ids import is_id


class CatalogueItem(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """An item: its display name, its category, and whether it is available."""

    item_id: ItemId
    name: str = ""
    category: ShortText | None = None
    available: bool = True


class CatalogueChange(NamedTuple):
    """What is known of an item from now on, None for nothing; `fault` says why its record could not be used."""

    item_id: str
    item: CatalogueItem | None
    fault: str = ""


class _ItemName(msgspec.Struct):
    item_id: ItemId


_decode: Final = msgspec.json.Decoder(CatalogueItem).decode
_decode_name: Final = msgspec.json.Decoder(_ItemName).decode
NAMELESS: Final = "a record names no item"


def change_of(key: bytes | None, value: bytes | None) -> CatalogueChange:
    """What a record of the topic says. What cannot be used withdraws its item, for it may have been a withdrawal.

    The key decides which item that is, as it does for compaction and deletion; only a record without a key is about the
    item in its value. A record that names no item has an empty `item_id`.

    >>> change_of(b"tea", b'{"item_id": "tea", "available": false}').item.available
    False
    >>> change = change_of(b"tea", b'{"item_id": "tea", "available": "no"}')
    >>> change.item.available, change.fault
    (False, 'a record cannot be read')
    >>> change_of(b"tea", b'{"item_id": "cup", "name": "Cup"}').fault
    'the key of a record is not its item_id'
    """
    item, fault = None, ""
    if value is not None:
        try:
            item = _decode(value)
        except (ValueError, RecursionError):
            fault = "a record cannot be read"
    item_id = _id_in_key(key) if key else _id_in_value(item, value)
    if not item_id:
        return CatalogueChange("", None, NAMELESS)
    if item is not None and item.item_id != item_id:
        fault = "the key of a record is not its item_id"
    return CatalogueChange(item_id, CatalogueItem(item_id, available=False) if fault else item, fault)


def _id_in_key(key: bytes) -> str:
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return ""
    return text if len(text) <= ID_LENGTH_MAX and is_id(text) else ""


def _id_in_value(item: CatalogueItem | None, value: bytes | None) -> str:
    try:
        item_id = _decode_name(value or b"").item_id if item is None else item.item_id
    except (ValueError, RecursionError):
        return ""
    return item_id if is_id(item_id) else ""
