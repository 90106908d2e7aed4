"""Follows the `catalogue` topic in a thread: from its beginning, and then as records arrive."""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from schemas import topics
from schemas.catalogue import CatalogueItem, change_of
from schemas.threads import in_background

POLL_MS: Final = 200
PAUSE_S: Final = 1.0
DISCOVERY_MS: Final = 5_000
"""How long it takes to discover a new partition."""
logger = logging.getLogger("freshet.catalogue")

OnItem: TypeAlias = Callable[[str, CatalogueItem | None], None]
"""Called in the follower's thread with an item id, and what is known of it: None if its record was deleted."""


class CatalogueFollower:
    """Calls `on_item` for each record. Close it. `ready` is set once the topic was read to its end. `unread` counts
    records that cannot be used (:func:`schemas.catalogue.change_of`).

    `kafka`: options of kafka-python's consumer. While Kafka is unavailable, nothing is called.
    """

    def __init__(self, kafka: Mapping[str, Any], topic_prefix: str, on_item: OnItem) -> None:
        self._kafka = dict(kafka)
        self._topic = topics.prefixed(topic_prefix, topics.CATALOGUE)
        self._on_item = on_item
        self._places: dict[TopicPartition, int] = {}
        self.unread = 0
        self._closing = threading.Event()
        self.ready = threading.Event()
        self._thread = in_background("freshet-catalogue", self._follow)

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
        """Pass a record on; nothing of one that cannot be used is logged, except why."""
        change = change_of(key, value)
        if change.fault:
            self.unread += 1
            if not self.unread & (self.unread - 1):
                logger.error("catalogue: %s: its item counts as not available; %d so far", change.fault, self.unread)
        if change.item_id:
            self._on_item(change.item_id, change.item)
