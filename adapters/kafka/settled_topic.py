"""Reads a topic up to its end, and waits for open transactions to be committed or aborted.

:mod:`adapters.kafka.reading` reads what is committed now. That is not enough to prove that a topic does not contain
something, or to delete from it: a record of an open transaction would appear, or be lost, a moment later.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from kafka import TopicPartition

from adapters.kafka.reading import OnPoll, do_nothing, open_consumer, partitions_of
from adapters.kafka.settings import KafkaSettings
from schemas.errors import JobSilent

STUCK_S: Final = 120.0


def settled_ends(kafka: KafkaSettings, name: str) -> dict[TopicPartition, int]:
    """The current end of each partition of the topic `name`, open transactions included."""
    consumer = open_consumer(kafka, "read_uncommitted")
    try:
        return dict(consumer.end_offsets(partitions_of(consumer, kafka.topic(name))))
    finally:
        consumer.close()


def has_topic(kafka: KafkaSettings, name: str) -> bool:
    """Whether the topic `name` exists."""
    consumer = open_consumer(kafka)
    try:
        return kafka.topic(name) in consumer.topics()
    finally:
        consumer.close()


def settled(kafka: KafkaSettings, ends: Mapping[TopicPartition, int], begin: int | None = None) -> Iterator[Any]:
    """The committed records before `ends`, in order within each partition, from `begin` or the beginning.

    Raises :class:`JobSilent` if a transaction stays open for :data:`STUCK_S`.
    """
    consumer = open_consumer(kafka)
    try:
        consumer.assign(list(ends))
        consumer.seek_to_beginning(*ends)
        if begin is not None:
            for partition in ends:
                consumer.seek(partition, begin)
        yield from _up_to(consumer, ends)
    finally:
        consumer.close()


def _up_to(consumer: Any, ends: Mapping[TopicPartition, int]) -> Iterator[Any]:
    before, moved_s = -1, time.monotonic()
    while True:
        places = {partition: consumer.position(partition) for partition in ends}
        if all(places[partition] >= end for partition, end in ends.items()):
            return
        if sum(places.values()) != before:
            before, moved_s = sum(places.values()), time.monotonic()
        elif time.monotonic() > moved_s + STUCK_S:
            raise JobSilent(
                f"a transaction in {next(iter(ends)).topic} has been open for {STUCK_S:g} s: does the job run and take "
                "checkpoints?"
            )
        for partition, batch in consumer.poll(timeout_ms=500).items():
            yield from (record for record in batch if record.offset < ends[partition])


class Tail:
    """Records that are committed to a topic from now on. Close it."""

    def __init__(self, kafka: KafkaSettings, name: str) -> None:
        self._topic = kafka.topic(name)
        ends = settled_ends(kafka, name)
        self._consumer = open_consumer(kafka)
        self._consumer.assign(list(ends))
        for partition, end in ends.items():
            self._consumer.seek(partition, end)

    def records(self, timeout_s: float, on_poll: OnPoll = do_nothing) -> Iterator[Any]:
        """The records that arrive within `timeout_s`."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            on_poll()
            for batch in self._consumer.poll(timeout_ms=200).values():
                yield from batch

    def wait_for(self, words: bytes, *more: bytes, timeout_s: float) -> None:
        """Wait for a record with all of these words in its value; raises :class:`JobSilent` if none arrives."""
        for record in self.records(timeout_s):
            if all(word in (record.value or b"") for word in (words, *more)):
                return
        raise JobSilent(
            f"nothing arrived in {self._topic} within {timeout_s:g} s: is the job running with these settings?"
        )

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()
