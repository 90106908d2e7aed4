"""Removes users with expired tombstones from `consents`, the last place that names them.

An erasure is over when its tombstone has expired: nothing older can be read or restored any more. For each such user a
record without a value is written; compaction then deletes the older records, and later that one too. Each run also
writes an empty record to every partition, so that compaction happens even if nothing else is written.

Client libraries must use the user's id as the key: a record under another key grants nothing. Such users are kept, and
counted.

A user who consents at the very moment of this write has to consent again: without a record there is no consent.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from kafka import KafkaProducer

from adapters.kafka.settings import python_kafka_options
from adapters.kafka.settled_topic import Tail, has_topic
from jobs.clock import clock_ms
from jobs.settings import Settings
from privacy.consent_topic import Recorded, recorded_changes
from privacy.rewrite_events import rewrite_events
from schemas import topics
from schemas.marks import MOVE_ON_KEY
from udfs.consent import ConsentPlace, comes_after

Say = Callable[[str], None]
CATCH_UP_S: Final = 0.5


class EndedErasures(NamedTuple):
    """User ids → partitions with their records; and how many users have a record under a key that is not their id."""

    partitions: dict[str, set[int]]
    misplaced: int


def ended_erasures(changes: Callable[[], Iterator[Recorded]], before_ms: int) -> EndedErasures:
    """Users whose last record is an erasure before `before_ms`. Reads `changes` twice; buffers erased users only."""
    erased = {one.change.user_id for one in changes() if one.change.erase and one.place[0] < before_ms}
    last: dict[str, Recorded] = {}
    partitions: dict[str, set[int]] = {user: set() for user in erased}
    misplaced = set()
    for one in changes():
        user = one.change.user_id
        if user not in erased:
            continue
        if one.key != user.encode():
            misplaced.add(user)
        if one.absent:
            partitions[user].discard(one.place[1])
        else:
            partitions[user].add(one.place[1])
        if user not in last or comes_after(ConsentPlace(*one.place), ConsentPlace(*last[user].place)):
            last[user] = one
    over = {user for user, one in last.items() if (one.change.erase or one.absent) and one.place[0] < before_ms}
    return EndedErasures(
        {user: partitions[user] for user in sorted(over - misplaced) if partitions[user]}, len(over & misplaced)
    )


def purge_consents(settings: Settings, say: Say, now_ms: int | None = None) -> int:
    """Remove users whose erasure is over from `events`, then from `consents`; returns how many. Logs only counts."""
    before_ms = (clock_ms() if now_ms is None else now_ms) - settings.tombstone_ms()
    if has_topic(settings.kafka, topics.EVENTS):
        rewrite_events(settings, say)  # it only finds them by their records in `consents`
    tail = Tail(settings.kafka, topics.CONSENTS)
    try:
        over, misplaced = ended_erasures(lambda: recorded_changes(settings), before_ms)
        back = {(record.key or b"").decode(errors="replace") for record in tail.records(CATCH_UP_S)}
    finally:
        tail.close()
    going = {user: partitions for user, partitions in over.items() if user not in back}
    _write_removals(settings, going)
    say(f"users removed from the consents topic: {len(going)}; compaction deletes their records")
    if misplaced:
        say(f"users kept: {misplaced}, because one of their records is under a key that is not the user id")
    return len(going)


def write_empty_records(producer: KafkaProducer, topic: str) -> list[Any]:
    """Make every partition close segments that are due: an idle one never would, and would keep purged records."""
    partitions = sorted(producer.partitions_for(topic) or ())
    return [producer.send(topic, key=MOVE_ON_KEY, value=None, partition=partition) for partition in partitions]


def _write_removals(settings: Settings, going: dict[str, set[int]]) -> None:
    topic = settings.kafka.topic(topics.CONSENTS)
    producer = KafkaProducer(**python_kafka_options(settings.kafka), acks="all")
    try:
        sent = [
            producer.send(topic, key=user.encode(), value=None, partition=partition)
            for user, partitions in going.items()
            for partition in sorted(partitions)
        ]
        sent += write_empty_records(producer, topic)
        producer.flush()
        for future in sent:
            future.get(0)
    finally:
        producer.close()
