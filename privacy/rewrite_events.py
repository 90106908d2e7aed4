"""Removes erased users from the `events` topic, while the job continues to write to it.

Kafka can only delete a prefix of a partition. So the records to keep, up to the last one that must be erased, are
copied to the partition's end, then the prefix is deleted. The header `freshet-rewritten` of a copy holds the offset of
its original, so that an interrupted run can be resumed. The order of a partition changes, so readers of `events` must
use the times in the records, as history, exports and training do.

Safe alongside the job: a run waits for transactions that were open when it started, so it deletes no undecided record
and misses no copy. One run at a time: a second one fences the first, which then stops with an error.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeVar

import msgspec
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

from adapters.kafka.settings import python_kafka_options
from adapters.kafka.settled_topic import settled, settled_ends
from adapters.secrets.key_rings import load_key_ring
from jobs.clock import clock_ms
from jobs.settings import Settings
from jobs.topic_creation import topic_settings
from privacy.erased_users import erased_users
from privacy.rules.erasure import RewritePlan, SeenRecord, must_be_erased, plan
from schemas import topics
from schemas.pseudonyms import Pseudonymiser

Say = Callable[[str], None]
T = TypeVar("T")
REWRITTEN: Final = "freshet-rewritten"
TRANSACTION_RECORDS_MAX: Final = 5_000


class EventOwner(msgspec.Struct):
    """The part of a clean event that decides whether it must be erased; `appended` in ms, 0 if the record lacks it."""

    pseudonym: str
    appended: int = 0


class Rewritten(NamedTuple):
    """The result of a run.

    `partitions` rewritten, `removed` records, of which `aged` were only past their retention.
    """

    partitions: int
    copied: int
    removed: int
    aged: int


class EventsRewrite:
    """The steps of a run: :meth:`plan`, :meth:`copy` and :meth:`cut` for each partition. Close it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        options = python_kafka_options(settings.kafka)
        self._admin = KafkaAdminClient(**options)
        self._producer = KafkaProducer(
            **options,
            transactional_id=f"{settings.kafka.group()}-rewrite-events",
            acks="all",
            linger_ms=20,
            max_in_flight_requests_per_connection=1,
        )
        # Aborts what an interrupted run left open, before anything is read.
        self._producer.init_transactions()
        # Determine the end of `events` before reading consents, so that no later return affects the records read.
        self.ends = settled_ends(settings.kafka, topics.EVENTS)
        hashes = Pseudonymiser(load_key_ring(settings.privacy.key_ring))
        erased = erased_users(settings, hashes.all)
        self._returns = {name: user.returned_at for user in erased.values() for name in user.names}
        self._kept_since = clock_ms() - self._retention_ms()
        self.erased = len(erased)

    def plan(self, partition: TopicPartition) -> RewritePlan | None:
        """The steps for a partition; None if there is nothing to do."""
        return plan(self._seen(partition))

    def copy(self, partition: TopicPartition, steps: RewritePlan) -> Rewritten:
        """Copy the records to keep, by offset, in transactions of at most :data:`TRANSACTION_RECORDS_MAX`.

        A copy gets a new append time, so records past their retention by their own append time are not copied.
        """
        copied = removed = aged = 0
        ends = {partition: steps.up_to + 1}
        begin = steps.copied + 1 if steps.copied >= 0 else None
        for chunk in chunked(settled(self._settings.kafka, ends, begin), TRANSACTION_RECORDS_MAX):
            fates = [self._fate(record) for record in chunk]
            stay = [record for record, fate in zip(chunk, fates, strict=True) if fate == "stays"]
            self._commit(partition, stay)
            copied, removed = copied + len(stay), removed + len(chunk) - len(stay)
            aged += fates.count("aged")
        return Rewritten(1, copied, removed, aged)

    def cut(self, partition: TopicPartition, steps: RewritePlan) -> None:
        """Delete the prefix."""
        self._admin.delete_records({partition: steps.up_to + 1})

    def close(self) -> None:
        """Close the clients."""
        self._producer.close()
        self._admin.close()

    def _seen(self, partition: TopicPartition) -> Iterator[SeenRecord]:
        for record in settled(self._settings.kafka, {partition: self.ends[partition]}):
            yield SeenRecord(record.offset, copied_from(record.headers), self._fate(record) == "erased")

    def _fate(self, record: Any) -> Literal["erased", "aged", "stays"]:
        """What happens to a record before the last one that must be erased."""
        owner = owner_of(record.value)
        appended = (owner.appended if owner else 0) or record.timestamp
        if owner is not None and must_be_erased(self._returns, owner.pseudonym, appended):
            return "erased"
        return "aged" if appended < self._kept_since else "stays"

    def _commit(self, partition: TopicPartition, stay: Sequence[Any]) -> None:
        if not stay:
            return
        self._producer.begin_transaction()
        sent = [
            self._producer.send(
                partition.topic,
                key=record.key,
                value=with_append_time(record.value, record.timestamp),
                headers=[*(h for h in record.headers if h[0] != REWRITTEN), (REWRITTEN, b"%d" % record.offset)],
                partition=partition.partition,
            )
            for record in stay
        ]
        self._producer.flush()
        for future in sent:
            future.get(0)
        self._producer.commit_transaction()

    def _retention_ms(self) -> int:
        found = int(topic_settings(self._admin, self._settings.kafka.topic(topics.EVENTS)).get("retention.ms", -1))
        return found if found >= 0 else 1 << 62


def rewrite_events(settings: Settings, say: Say) -> Rewritten:
    """Remove all erased users from `events`; logs only counts."""
    rewrite = EventsRewrite(settings)
    try:
        say(f"erased users: {rewrite.erased}; partitions to check: {len(rewrite.ends)}")
        done = Rewritten(0, 0, 0, 0)
        for partition in rewrite.ends:
            steps = rewrite.plan(partition)
            if steps is None:
                continue
            one = rewrite.copy(partition, steps)
            rewrite.cut(partition, steps)
            say(f"partition {partition.partition}: copied {one.copied}, removed {one.removed}")
            done = Rewritten(*map(sum, zip(done, one, strict=True)))
    finally:
        rewrite.close()
    say(
        f"partitions rewritten: {done.partitions}; records removed: {done.removed} (past their retention: "
        f"{done.aged}), copied: {done.copied}"
    )
    return done


_decode: Final = msgspec.json.Decoder(EventOwner).decode


def owner_of(value: bytes | None) -> EventOwner | None:
    """The user and age of the clean event `value`; None if it is not a clean event."""
    try:
        return _decode(value or b"")
    except (ValueError, RecursionError):
        return None


def with_append_time(value: bytes | None, timestamp: int) -> bytes | None:
    """A clean event with its append time, because the copied record is younger than its event.

    >>> with_append_time(b'{"pseudonym":"p1.a"}', 7), with_append_time(b'{"pseudonym":"p1.a","appended":5}', 7)
    (b'{"pseudonym":"p1.a","appended":7}', b'{"pseudonym":"p1.a","appended":5}')
    """
    owner = owner_of(value)
    if value is None or owner is None or owner.appended:
        return value
    return b'%b,"appended":%d}' % (value.rstrip()[:-1], timestamp)


def copied_from(headers: Sequence[tuple[str, bytes]]) -> int | None:
    """The offset that a record is a copy of, from its headers."""
    return next((int(value) for name, value in headers if name == REWRITTEN and value.isdigit()), None)


def chunked(stream: Iterator[T], size: int) -> Iterator[list[T]]:
    """Lists of at most `size`, none empty.

    >>> list(chunked(iter("abc"), 2))
    [['a', 'b'], ['c']]
    """
    chunk: list[T] = []
    for one in stream:
        chunk.append(one)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
