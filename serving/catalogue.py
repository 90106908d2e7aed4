"""The catalogue for filters: the `catalogue` topic, kept in memory by a thread that follows it.

Needs `freshet-client[kafka]`.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, Self

from adapters.kafka.catalogue_topic import CatalogueFollower
from schemas.catalogue import CatalogueItem

ITEMS_MAX: Final = 2_000_000


class Catalogue(Mapping[str, CatalogueItem]):
    """Item id → item, as read from the topic so far. A record without a value removes its item. Close it.

    `kafka`: options of kafka-python's consumer. `ready` is set once the topic was read to its end. While Kafka is
    unavailable, the items stay. At most :data:`ITEMS_MAX` items are kept; further ones are unknown. `withdrawn` are
    the ids of those that are not available, among them those whose record cannot be used.
    """

    def __init__(self, kafka: Mapping[str, Any], *, topic_prefix: str = "freshet.") -> None:
        self._items: dict[str, CatalogueItem] = {}
        self.withdrawn: set[str] = set()
        self._follower = CatalogueFollower(kafka, topic_prefix, self._take)
        self.ready = self._follower.ready

    def __getitem__(self, item_id: str) -> CatalogueItem:
        return self._items[item_id]

    def get(self, item_id: str, default: Any = None) -> Any:
        """The item, or `default`."""
        return self._items.get(item_id, default)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._items))

    def __len__(self) -> int:
        return len(self._items)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    @property
    def unread(self) -> int:
        """How many records could not be used since the topic was first read."""
        return self._follower.unread

    def close(self) -> None:
        """Stop the thread."""
        self._follower.close()

    def _take(self, item_id: str, item: CatalogueItem | None) -> None:
        """Note an item. Readers see it withdrawn only once it is known, and available again at once."""
        if item is None:
            self._items.pop(item_id, None)
        elif item_id in self._items or len(self._items) < ITEMS_MAX:
            self._items[item_id] = item
            if not item.available:
                self.withdrawn.add(item_id)
                return
        self.withdrawn.discard(item_id)
