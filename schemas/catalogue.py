"""Items that can be recommended, as stored in the compacted `catalogue` topic (key = item id)."""

import msgspec

from schemas.events import ItemId, ShortText


class CatalogueItem(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """An item: its display name, its category, and whether it is available."""

    item_id: ItemId
    name: str
    category: ShortText | None = None
    available: bool = True
