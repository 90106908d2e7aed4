"""The catalogue for filters: the `catalogue` topic, kept in memory by a thread that follows it.

Needs `freshet-client[kafka]`.
"""

import logging
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Final, Self

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from schemas import topics
from schemas.catalogue import CatalogueItem
from schemas.ids import is_id

POLL_MS: Final = 200
PAUSE_S: Final = 1.0
DISCOVERY_MS: Final = 5_000
"""How long it takes to discover a new partition."""
ITEMS_MAX: Final = 2_000_000
_decode: Final = msgspec.json.Decoder(CatalogueItem).decode
logger = logging.getLogger(__name__)


class Catalogue(Mapping[str, CatalogueItem]):
    """Item id → item, as read from the topic so far. A record without a value removes its item. Close it.

    `kafka`: options of kafka-python's consumer. `ready` is set once the topic was read to its end. While Kafka is
    unavailable, the items stay. At most :data:`ITEMS_MAX` items are kept; further ones are unknown.
    """

    def __init__(self, kafka: Mapping[str, Any], *, topic_prefix: str = "freshet.") -> None:
        self._kafka = dict(kafka)
        self._topic = topics.prefixed(topic_prefix, topics.CATALOGUE)
        self._items: dict[str, CatalogueItem] = {}
        self._places: dict[TopicPartition, int] = {}
        self._closing = threading.Event()
        self.ready = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="catalogue", daemon=True)
        self._thread.start()

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

    def close(self) -> None:
        """Stop the thread."""
        self._closing.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._closing.is_set():
            try:
                self._read()
            except KafkaError as error:
                logger.warning("the catalogue cannot be read (%s); retrying", type(error).__name__)
                self._closing.wait(PAUSE_S)

    def _read(self) -> None:
        options = {"bootstrap_timeout_ms": 2_000, **self._kafka, "group_id": None, "enable_auto_commit": False}
        options |= {"isolation_level": "read_committed", "metadata_max_age_ms": DISCOVERY_MS}
        consumer = KafkaConsumer(**options, auto_offset_reset="earliest")
        try:
            partitions = [TopicPartition(self._topic, n) for n in consumer.partitions_for_topic(self._topic) or ()]
            if not partitions:  # not there yet
                self._closing.wait(PAUSE_S)
                return
            consumer.assign(partitions)
            for partition, offset in self._places.items():
                consumer.seek(partition, offset)
            ends = consumer.end_offsets(partitions)
            while not self._closing.is_set() and not self._has_more(consumer, partitions):
                for partition, batch in consumer.poll(timeout_ms=POLL_MS).items():
                    for record in batch:
                        self._take(record.key, record.value)
                    self._places[partition] = batch[-1].offset + 1
                if not self.ready.is_set() and all(consumer.position(one) >= end for one, end in ends.items()):
                    self.ready.set()
        finally:
            consumer.close()

    def _has_more(self, consumer: Any, partitions: list[TopicPartition]) -> bool:
        """Whether partitions were added. A new consumer then reads them too, and continues where this one stopped."""
        return len(consumer.partitions_for_topic(self._topic) or ()) > len(partitions)

    def _take(self, key: bytes | None, value: bytes | None) -> None:
        """Apply a record. Invalid ones are ignored: whoever loads the catalogue into a model reports them."""
        try:
            if value is None:
                self._items.pop((key or b"").decode(), None)
                return
            item = _decode(value)
        except (ValueError, RecursionError):
            return
        if not is_id(item.item_id):
            return
        if item.item_id in self._items or len(self._items) < ITEMS_MAX:
            self._items[item.item_id] = item
