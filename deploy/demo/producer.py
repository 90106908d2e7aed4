"""Sends records to Kafka as a shop should: idempotent, acknowledged by all replicas, keyed by user."""

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final

import msgspec
from kafka import KafkaProducer
from kafka.errors import KafkaError
from kafka.partitioner.default import DefaultPartitioner, murmur2

from adapters.kafka.settings import KafkaSettings, python_kafka_options
from schemas import topics
from schemas.catalogue import CatalogueItem
from schemas.consents import ConsentChange
from schemas.errors import FreshetError
from schemas.events import Interaction

LINGER_MS, BATCH_BYTES = 5, 128 * 1024
BULK_LINGER_MS, BULK_BATCH_BYTES = 200, 512 * 1024
KEYS_REMEMBERED_MAX: Final = 65_536
FLUSH_TIMEOUT_S: Final = 60.0
CLOSE_TIMEOUT_S: Final = 5.0

encode: Final[Callable[[Any], bytes]] = msgspec.json.Encoder().encode


class DeliveryError(FreshetError):
    """Kafka did not accept every record; the text gives the number of failures and the first reason."""


@lru_cache(KEYS_REMEMBERED_MAX)
def _hash_of(key: bytes) -> int:
    return int(murmur2(key)) & 0x7FFF_FFFF


class KnownKeys(DefaultPartitioner):  # type: ignore[misc]
    """Chooses the same partitions as Kafka's own clients, but caches the hashes of keys.

    Kafka-python computes them in pure Python.
    """

    def partition(
        self, topic: str, key: Any, serialized_key: bytes | None, value: Any, serialized_value: bytes, cluster: Any
    ) -> int:
        """Called by the producer for each record."""
        if serialized_key is None:
            return int(super().partition(topic, key, serialized_key, value, serialized_value, cluster))
        return _hash_of(serialized_key) % len(cluster.partitions_for_topic(topic))


class Producer:
    """A :class:`kafka.KafkaProducer` that keeps all failures: `failed` counts them, `flush` and `close` raise.

    It can be used from several threads. `close` always ends the sender thread, even if it raises. With `bulk`, records
    wait longer for a batch: this takes a fifth less CPU if the caller sends as fast as possible and then calls `flush`.
    """

    def __init__(self, kafka: KafkaSettings, *, bulk: bool = False) -> None:
        self._producer = KafkaProducer(
            **python_kafka_options(kafka),
            enable_idempotence=True,
            acks="all",
            linger_ms=BULK_LINGER_MS if bulk else LINGER_MS,
            batch_size=BULK_BATCH_BYTES if bulk else BATCH_BYTES,
            partitioner=KnownKeys(),
        )
        self._interactions = kafka.topic(topics.INTERACTIONS)
        self._consents = kafka.topic(topics.CONSENTS)
        self._catalogue = kafka.topic(topics.CATALOGUE)
        self._lock = threading.Lock()
        self.failed = 0
        self._first_error: BaseException | None = None

    def send_interaction(self, event: Interaction) -> None:
        """Send one interaction, keyed by its user."""
        self.send_raw_interaction(event.user_id.encode(), encode(event))

    def send_raw_interaction(self, key: bytes | None, payload: bytes) -> None:
        """Send bytes to the interactions topic unchanged, valid or not."""
        self._send(self._interactions, key, payload)

    def send_consent(self, change: ConsentChange) -> None:
        """Send one consent change, keyed by its user."""
        self._send(self._consents, change.user_id.encode(), encode(change))

    def send_item(self, item: CatalogueItem) -> None:
        """Send one catalogue item, keyed by its id."""
        self._send(self._catalogue, item.item_id.encode(), encode(item))

    def flush(self, timeout_s: float = FLUSH_TIMEOUT_S) -> None:
        """Wait until Kafka has acknowledged all records; raises :class:`DeliveryError` if it has not."""
        try:
            self._producer.flush(timeout=timeout_s)
        except KafkaError as error:
            self._note_failure(error)
        self.check()

    def check(self) -> None:
        """Raise :class:`DeliveryError` if any record has failed so far."""
        if self.failed:
            reason = type(self._first_error).__name__
            raise DeliveryError(f"Kafka did not accept {self.failed} record(s); the first failed with {reason}")

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Deliver pending records within `timeout_s` and end; raises :class:`DeliveryError` as `flush` does."""
        try:
            self.flush(timeout_s)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """End immediately and discard pending records: for an interrupted demo whose broker is stopped, too."""
        with suppress(KafkaError):  # it flushes once more, with a timeout of zero
            self._producer.close(timeout=0)

    def _send(self, topic: str, key: bytes | None, payload: bytes) -> None:
        try:
            self._producer.send(topic, value=payload, key=key).add_errback(self._note_failure)
        except KafkaError as error:
            self._note_failure(error)

    def _note_failure(self, error: BaseException) -> None:
        with self._lock:
            self.failed += 1
            self._first_error = self._first_error or error
