"""Sends records to Kafka as any shop should: idempotent, acknowledged by all replicas, keyed by the user."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import msgspec
from kafka import KafkaProducer
from kafka.errors import KafkaError

from jobs.settings import KafkaSettings, python_kafka_options
from schemas import topics
from schemas.catalogue import CatalogueItem
from schemas.consents import ConsentChange
from schemas.errors import FreshetError
from schemas.events import Interaction

LINGER_MS: Final = 5
BATCH_BYTES: Final = 128 * 1024
FLUSH_TIMEOUT_S: Final = 60.0
CLOSE_TIMEOUT_S: Final = 5.0

encode: Final[Callable[[Any], bytes]] = msgspec.json.Encoder().encode


class DeliveryError(FreshetError):
    """Kafka did not take every record; the text says how many and why the first one failed."""


class Producer:
    """A :class:`kafka.KafkaProducer` that forgets no failure: `failed` counts them, `flush` and `close` raise.

    May be used from several threads. `close` always ends the sending thread, also when it raises.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self._producer = KafkaProducer(
            **python_kafka_options(kafka),
            enable_idempotence=True,
            acks="all",
            linger_ms=LINGER_MS,
            batch_size=BATCH_BYTES,
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
        """Send bytes to the interactions as they are, right or wrong."""
        self._send(self._interactions, key, payload)

    def send_consent(self, change: ConsentChange) -> None:
        """Send one consent change, keyed by its user."""
        self._send(self._consents, change.user_id.encode(), encode(change))

    def send_item(self, item: CatalogueItem) -> None:
        """Send one item of the catalogue, keyed by its id."""
        self._send(self._catalogue, item.item_id.encode(), encode(item))

    def flush(self, timeout_s: float = FLUSH_TIMEOUT_S) -> None:
        """Wait until Kafka has acknowledged everything sent; raises :class:`DeliveryError` where it has not."""
        try:
            self._producer.flush(timeout=timeout_s)
        except KafkaError as error:
            self._note_failure(error)
        self.check()

    def check(self) -> None:
        """Raise :class:`DeliveryError` if any record failed so far."""
        if self.failed:
            reason = type(self._first_error).__name__
            raise DeliveryError(f"Kafka did not take {self.failed} record(s); the first failed with {reason}")

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Deliver what is left within `timeout_s` and end; raises :class:`DeliveryError` as `flush` does."""
        try:
            self.flush(timeout_s)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """End at once; what was not delivered is given up. For an interrupted demo whose broker goes away too."""
        with suppress(KafkaError):  # it flushes once more, with no time to do so
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
