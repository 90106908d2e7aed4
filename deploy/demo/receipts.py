"""Consumes the product's output: receipts and dead letters, from the current ends of their topics."""

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
    """The job did not respond in time; the text gives the number of missing receipts."""


@contextmanager
def reading(kafka: KafkaSettings, *names: str, from_beginning: bool = False) -> Iterator[KafkaConsumer]:
    """A consumer of the topics `names` of :mod:`schemas.topics`, positioned at their ends or beginnings; it has no
    consumer group."""
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
        (consumer.seek_to_beginning if from_beginning else consumer.seek_to_end)(*partitions)
        for partition in partitions:
            consumer.position(partition)  # the end offset is looked up on first use: force that now
        yield consumer
    finally:
        consumer.close()


def polled(consumer: KafkaConsumer, timeout_ms: int = POLL_MS) -> list[Any]:
    """The records that have arrived."""
    return [record for records in consumer.poll(timeout_ms=timeout_ms).values() for record in records]


class ConsentWaiter:
    """Waits until the consents of a set of pseudonyms are applied. Open it before sending them.

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
        """Return once each of `pseudonyms` has a receipt.

        Raises :class:`MissingReceiptsError` if no receipt arrives for `timeout_s`. `say` receives the number of missing
        receipts; `give_up` ends the wait early without an error.
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
    """A :class:`ConsentWaiter` on the `receipts` topic, starting at its end."""
    with reading(kafka, topics.RECEIPTS) as consumer:
        yield ConsentWaiter(lambda: [decode_receipt(record.value) for record in polled(consumer)])
