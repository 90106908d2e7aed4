"""What the job has not read: the age of the oldest consent, and how many records: for alarms, not from the source.

It compares the ends of `consents` and `interactions` with the offsets that Flink commits at each checkpoint. So it
also covers partitions that the source has not discovered yet, and a job that restarts or waits.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from kafka import TopicPartition
from kafka.errors import KafkaError

from adapters.kafka.opening import open_admin
from adapters.kafka.reading import open_consumer
from adapters.kafka.settings import KafkaSettings
from jobs.registration import committed_offsets
from schemas import topics
from schemas.errors import SettingsError
from schemas.threads import in_background

LOOK_EVERY_S: Final = 10.0
FOUND_S: Final = 5.0
"""How long to wait for a record: only transaction markers may follow an offset."""
logger = logging.getLogger(__name__)


class UnreadRecords(NamedTuple):
    """The age in ms of the oldest unread consent, 0 if there is none, and how many records are unread."""

    age_ms: int
    records: int


Look = Callable[[], UnreadRecords]
"""Raises if Kafka does not answer."""


class UnreadWatch:
    """Call it often: every consent older than the returned time (ms) is read and in a completed checkpoint.

    Looks in its own thread, at most every :data:`LOOK_EVERY_S`; in between, and while Kafka does not answer, the age
    grows with time. `records` is from the last look.
    """

    def __init__(self, look: Look, clock: Callable[[], float] = time.monotonic) -> None:
        self._look = look
        self._clock = clock
        self.records = 0
        self._read_up_to_s = self._looked_s = clock()
        self._looking = threading.Lock()

    def __call__(self) -> int:
        """The age in ms; returns at once."""
        now_s = self._clock()
        unread_ms = round(1_000 * (now_s - self._read_up_to_s))
        if now_s >= self._looked_s + LOOK_EVERY_S and self._looking.acquire(blocking=False):
            self._looked_s = now_s
            in_background("freshet-unread", self._look_once, now_s)
        return unread_ms

    def _look_once(self, at_s: float) -> None:
        try:
            found = self._look()
            self._read_up_to_s, self.records = at_s - found.age_ms / 1_000, found.records
        except (KafkaError, SettingsError, OSError, ValueError) as error:
            logger.warning("unread records could not be determined (%s)", type(error).__name__)
        finally:
            self._looking.release()


def look_at_unread(kafka: KafkaSettings) -> UnreadRecords:
    """A :data:`Look` that opens and closes its own clients, so that a job that has ended leaves none behind."""
    consents = kafka.topic(topics.CONSENTS)
    admin = open_admin(kafka)
    try:
        committed = committed_offsets(admin, kafka.group())
        described = admin.describe_topics([consents, kafka.topic(topics.INTERACTIONS)])
    finally:
        admin.close()
    partitions = [
        TopicPartition(one["name"], part["partition_index"]) for one in described for part in one["partitions"]
    ]
    consumer = open_consumer(kafka)
    try:
        begins, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
        at = {one: committed[one].offset if one in committed else begins[one] for one in partitions}
        behind = {one: max(offset, begins[one]) for one, offset in at.items() if offset < ends[one]}
        of_consents = {one: offset for one, offset in behind.items() if one.topic == consents}
        times = [*_first_times(consumer, of_consents, ends)]
    finally:
        consumer.close()
    age_ms = max(0, time.time_ns() // 1_000_000 - min(times)) if times else 0
    return UnreadRecords(age_ms, sum(ends[one] - offset for one, offset in behind.items()))


def _first_times(consumer: Any, behind: dict[TopicPartition, int], ends: dict[TopicPartition, int]) -> Iterable[int]:
    """The append time (ms) of the first record at each offset in `behind`."""
    consumer.assign([*behind])
    for partition, offset in behind.items():
        consumer.seek(partition, offset)
    left, end_s = set(behind), time.monotonic() + FOUND_S
    while left and time.monotonic() < end_s:
        for partition, found in consumer.poll(timeout_ms=200).items():
            if found and partition in left:
                left.remove(partition)
                consumer.pause(partition)
                yield found[0].timestamp
        left -= {one for one in left if consumer.position(one) >= ends[one]}
