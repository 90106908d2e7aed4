"""Reads a topic from its beginning to its current end."""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from adapters.kafka.opening import answering
from adapters.kafka.settings import KafkaSettings, python_kafka_options
from schemas.errors import SettingsError
from schemas.progress import on_progress

OnPoll = Callable[[], None]
"""Called after each poll of Kafka, even without records; may raise to end the reading."""


def do_nothing() -> None:
    """An `OnPoll` that does nothing."""


class TopicAsOfNow:
    """The records of the topic `name`, by default only committed ones, from its beginning to its end at construction.

    Iterate once; records are in order within each partition, and the end closes the consumer. Raises
    :class:`SettingsError` if Kafka does not answer or has no such topic. `done` is the fraction read so far, from 0 to
    1, which is reported to :data:`schemas.progress.on_progress`. `choose` selects the partitions to read, given their
    number. With `last`, only so many records before the end of each partition are read.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        name: str,
        on_poll: OnPoll = do_nothing,
        choose: Callable[[int], Collection[int]] | None = None,
        last: int | None = None,
        isolation_level: str = "read_committed",
    ) -> None:
        self._consumer, self._on_turn = open_consumer(kafka, isolation_level), on_poll
        self._work = f"reading {kafka.topic(name)}"
        try:
            partitions = partitions_of(self._consumer, kafka.topic(name))
            self.count = len(partitions)
            if choose is not None:
                chosen = choose(self.count)
                partitions = [partition for partition in partitions if partition.partition in chosen]
            self.read = [partition.partition for partition in partitions]
            self._consumer.assign(partitions)
            self._consumer.seek_to_beginning(*partitions)
            self._begins = self._consumer.beginning_offsets(partitions)
            self._ends = self._consumer.end_offsets(partitions)
            if last is not None:
                for partition, end in self._ends.items():
                    self._begins[partition] = max(self._begins[partition], end - last)
                    self._consumer.seek(partition, self._begins[partition])
        except BaseException:
            self._consumer.close()
            raise
        self.done = 0.0

    def __iter__(self) -> Iterator[Any]:
        length = sum(self._ends.values()) - sum(self._begins.values())
        try:
            while left := self._left():
                self.done = 1 - left / length
                on_progress.get()(self._work, self.done)
                self._on_turn()
                for batch in self._consumer.poll(timeout_ms=500).values():
                    yield from batch
            self.done = 1.0
            on_progress.get()(self._work, self.done)
        finally:
            self.close()

    def _left(self) -> int:
        return sum(max(0, end - self._consumer.position(partition)) for partition, end in self._ends.items())

    def close(self) -> None:
        """Close the consumer; idempotent."""
        self._consumer.close()


def open_consumer(kafka: KafkaSettings, isolation_level: str = "read_committed") -> Any:
    """A consumer without a group; raises :class:`KafkaUnreachable` if Kafka does not answer."""
    with answering(kafka):
        return KafkaConsumer(
            **python_kafka_options(kafka),
            group_id=None,
            enable_auto_commit=False,
            isolation_level=isolation_level,
            auto_offset_reset="earliest",  # if retention overtakes the reader, skip the gap
            fetch_max_wait_ms=100,
            max_poll_records=10_000,
        )


def partitions_of(consumer: Any, topic: str) -> list[TopicPartition]:
    """The partitions of a topic, by number; raises :class:`SettingsError` if it does not exist."""
    numbers = sorted(consumer.partitions_for_topic(topic) or ())
    if not numbers:
        raise SettingsError(f"topic {topic} does not exist: check kafka.topic_prefix and kafka.bootstrap_servers")
    return [TopicPartition(topic, number) for number in numbers]


def records(kafka: KafkaSettings, name: str) -> Iterator[Any]:
    """All committed records that are in the topic `name` now; see :class:`TopicAsOfNow`."""
    yield from TopicAsOfNow(kafka, name)


def mentions_any(names: Iterable[str]) -> Callable[[Any], bool]:
    """A predicate: does a record contain any of `names`?"""
    wanted = [name.encode() for name in names]
    return lambda record: any(name in part for part in _parts(record) for name in wanted)


def _parts(record: Any) -> Iterator[bytes]:
    yield record.key or b""
    yield record.value or b""
    yield from (value or b"" for _, value in record.headers or ())
