"""Removes erased users from the `events` topic, while the job continues to write to it.

Kafka deletes whole prefixes of a partition only. What stays of the prefix up to the last record that must be erased is
copied to the partition's end, then the prefix is deleted. A copy says in its header `freshet-rewritten` of which offset
it is one, which is how a run that was interrupted is gone on with. The order of a partition changes, so readers of
`events` must go by the times in the records, as history, exports and training do.

Safe beside the job: transactions that were open when the run began are waited for, so nothing is deleted that is not
decided, and no copy overlooked. One run at a time: a second one fences the first, which then stops with an error.
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


class Whose(msgspec.Struct):
    """As much of a clean event as decides whether it must be erased; `appended` in ms, 0 if the record lacks it."""

    pseudonym: str
    appended: int = 0


class Rewritten(NamedTuple):
    """What a run did: `partitions` were rewritten, `removed` records went, of which `aged` for their age only."""

    partitions: int
    copied: int
    removed: int
    aged: int


class EventsRewrite:
    """The steps of a run, for each partition :meth:`plan`, :meth:`copy`, :meth:`cut`. Close it."""

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
        # Ends what an interrupted run left open, before anything is read.
        self._producer.init_transactions()
        # Consents are read after it is known where `events` ends: a later return brings no record into doubt.
        self.ends = settled_ends(settings.kafka, topics.EVENTS)
        hashes = Pseudonymiser(load_key_ring(settings.privacy.key_ring))
        erased = erased_users(settings, hashes.all)
        self._returns = {name: user.returned_at for user in erased.values() for name in user.names}
        self._kept_since = clock_ms() - self._retention_ms()
        self.erased = len(erased)

    def plan(self, partition: TopicPartition) -> RewritePlan | None:
        """What is to be done, None where nothing is."""
        return plan(self._seen(partition))

    def copy(self, partition: TopicPartition, steps: RewritePlan, on_copied: Say = lambda line: None) -> Rewritten:
        """Copy what stays, in the order of offsets, in transactions of at most :data:`TRANSACTION_RECORDS_MAX`.

        A copy begins a new life in the topic, so what is past its retention by its own append time is left behind.
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
            on_copied(f"partition {partition.partition}: copied {copied}, removed {removed}")
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
        """What becomes of a record that is before the last one that must be erased."""
        whose = whose_of(record.value)
        appended = (whose.appended if whose else 0) or record.timestamp
        if whose is not None and must_be_erased(self._returns, whose.pseudonym, appended):
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
    """Take everybody who was erased out of `events`; counts only are said."""
    rewrite = EventsRewrite(settings)
    try:
        say(f"erased users: {rewrite.erased}; partitions to check: {len(rewrite.ends)}")
        done = Rewritten(0, 0, 0, 0)
        for partition in rewrite.ends:
            steps = rewrite.plan(partition)
            if steps is None:
                continue
            one = rewrite.copy(partition, steps, say)
            rewrite.cut(partition, steps)
            done = Rewritten(*map(sum, zip(done, one, strict=True)))
    finally:
        rewrite.close()
    say(
        f"partitions rewritten: {done.partitions}; records removed: {done.removed} (past their retention: "
        f"{done.aged}), copied: {done.copied}"
    )
    return done


_decode: Final = msgspec.json.Decoder(Whose).decode


def whose_of(value: bytes | None) -> Whose | None:
    """Whose clean event `value` is; None where it is none."""
    try:
        return _decode(value or b"")
    except (ValueError, RecursionError):
        return None


def with_append_time(value: bytes | None, timestamp: int) -> bytes | None:
    """A clean event that says when it was appended: the record of a copy is younger than its event.

    >>> with_append_time(b'{"pseudonym":"p1.a"}', 7), with_append_time(b'{"pseudonym":"p1.a","appended":5}', 7)
    (b'{"pseudonym":"p1.a","appended":7}', b'{"pseudonym":"p1.a","appended":5}')
    """
    whose = whose_of(value)
    if value is None or whose is None or whose.appended:
        return value
    return b'%b,"appended":%d}' % (value.rstrip()[:-1], timestamp)


def copied_from(headers: Sequence[tuple[str, bytes]]) -> int | None:
    """The offset that a record is a copy of, by its headers."""
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
