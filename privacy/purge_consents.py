"""Removes users with expired tombstones from `consents`, the last place that names them.

An erasure is over when its tombstone has ended: nothing from before it can be read again or restored any more. A record
without a value takes the place of what stands there; compaction deletes the old ones, and later that one too. So that
it comes to that where nothing else is written, each run also writes a record that says nothing to every partition.

A client library must not write under a key but the user's own: such a record grants nothing. It is left, and counted.
Who consents in the very moment in which this command writes has to consent again: without a record there is no consent.
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


class Over(NamedTuple):
    """User ids → the partitions in which something stands of them; how many users stand under a key not their own."""

    partitions: dict[str, set[int]]
    misplaced: int


def erasures_that_are_over(changes: Callable[[], Iterator[Recorded]], before_ms: int) -> Over:
    """Whose last word is an erasure from before `before_ms`. Reads `changes` twice and keeps those who were erased."""
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
    return Over(
        {user: partitions[user] for user in sorted(over - misplaced) if partitions[user]}, len(over & misplaced)
    )


def purge_consents(settings: Settings, say: Say, now_ms: int | None = None) -> int:
    """Take users whose erasure is over out of `events`, then out of `consents`; returns how many. Says counts only."""
    before_ms = (clock_ms() if now_ms is None else now_ms) - settings.tombstone_ms()
    if has_topic(settings.kafka, topics.EVENTS):
        rewrite_events(settings, say)  # it knows them by their record in `consents` only
    tail = Tail(settings.kafka, topics.CONSENTS)
    try:
        over, misplaced = erasures_that_are_over(lambda: recorded_changes(settings), before_ms)
        back = {(record.key or b"").decode(errors="replace") for record in tail.records(CATCH_UP_S)}
    finally:
        tail.close()
    going = {user: partitions for user, partitions in over.items() if user not in back}
    _take_away(settings, going)
    say(f"users removed from the consents topic: {len(going)}; compaction deletes their records")
    if misplaced:
        say(f"users kept: {misplaced}, because one of their records is under a key that is not the user id")
    return len(going)


def move_on(producer: KafkaProducer, topic: str) -> list[Any]:
    """Let every partition close a segment that is due: an idle one never would, and keep what was purged."""
    partitions = sorted(producer.partitions_for(topic) or ())
    return [producer.send(topic, key=MOVE_ON_KEY, value=None, partition=partition) for partition in partitions]


def _take_away(settings: Settings, going: dict[str, set[int]]) -> None:
    topic = settings.kafka.topic(topics.CONSENTS)
    producer = KafkaProducer(**python_kafka_options(settings.kafka), acks="all")
    try:
        sent = [
            producer.send(topic, key=user.encode(), value=None, partition=partition)
            for user, partitions in going.items()
            for partition in sorted(partitions)
        ]
        sent += move_on(producer, topic)
        producer.flush()
        for future in sent:
            future.get(0)
    finally:
        producer.close()
