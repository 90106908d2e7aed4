"""Reading the product's answers: receipts and dead letters, from where they stand now."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from adapters.kafka.settings import KafkaSettings, python_kafka_options
from schemas import topics
from schemas.errors import FreshetError
from schemas.receipts import ConsentReceipt, Receipt, decode_receipt

POLL_MS = 100


class MissingReceiptsError(FreshetError):
    """The job did not answer in time; the text says how many answers are missing."""


@contextmanager
def reading(kafka: KafkaSettings, *names: str) -> Iterator[KafkaConsumer]:
    """A consumer of the topics `names` of :mod:`schemas.topics`, standing at their ends; it belongs to no group."""
    consumer = KafkaConsumer(
        **python_kafka_options(kafka),
        group_id=None,
        enable_auto_commit=False,
        isolation_level="read_committed",
        fetch_max_wait_ms=POLL_MS,
    )
    try:
        partitions = [
            TopicPartition(kafka.topic(name), partition)
            for name in names
            for partition in sorted(consumer.partitions_for_topic(kafka.topic(name)) or ())
        ]
        consumer.assign(partitions)
        consumer.seek_to_end(*partitions)
        for partition in partitions:
            consumer.position(partition)  # the end is looked up when it is first needed: that must be now
        yield consumer
    finally:
        consumer.close()


def polled(consumer: KafkaConsumer, timeout_ms: int = POLL_MS) -> list[Any]:
    """The records that have arrived."""
    return [record for records in consumer.poll(timeout_ms=timeout_ms).values() for record in records]


class ConsentWaiter:
    """Waits until the consents of a set of pseudonyms are in force. Open it before they are sent.

    with waiting_for_consents(kafka) as waiter:
        ...
        waiter.wait(pseudonyms)
    """

    def __init__(self, receive: Callable[[], list[Receipt]]) -> None:
        self._receive = receive

    def wait(
        self,
        pseudonyms: set[str],
        timeout_s: float,
        say: Callable[[int], None] = lambda missing: None,
        give_up: Callable[[], bool] = lambda: False,
    ) -> None:
        """Return when each of `pseudonyms` has a receipt; raises :class:`MissingReceiptsError` where none
        came for `timeout_s`.

        `say` is told how many are missing; `give_up` ends the waiting early without an error.
        """
        missing = set(pseudonyms)
        deadline = time.monotonic() + timeout_s
        while missing and not give_up():
            before = len(missing)
            for receipt in self._receive():
                if isinstance(receipt, ConsentReceipt):
                    missing.discard(receipt.pseudonym)
            if len(missing) < before:
                deadline = time.monotonic() + timeout_s
                say(len(missing))
            elif time.monotonic() > deadline:
                raise MissingReceiptsError(
                    f"{len(missing)} of {len(pseudonyms)} consents have no receipt after {timeout_s:g} s: "
                    "is the job running?"
                )


@contextmanager
def waiting_for_consents(kafka: KafkaSettings) -> Iterator[ConsentWaiter]:
    """A :class:`ConsentWaiter` on the `receipts` topic, from its end on."""
    with reading(kafka, topics.RECEIPTS) as consumer:
        yield ConsentWaiter(lambda: [decode_receipt(record.value) for record in polled(consumer)])
