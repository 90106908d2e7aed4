"""Replaces what the online model has learned by what the events now in `events` teach (`freshet model relearn`).

After `freshet erase rewrite-events`, erased users have no share in the model any more. The new state goes to the
operator `learn` through Redis, in parts that expire, because the job and this machine need no other storage in common.
"""

import time
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

from adapters.kafka.job_session import JobSession
from adapters.kafka.reading import TopicAsOfNow
from adapters.redis.client import RedisClient, always
from adapters.secrets.key_rings import load_key_ring
from jobs.clock import clock_ms
from jobs.marks import connect_as_tenant
from jobs.registration import last_recorded
from jobs.settings import Settings
from privacy.history import Permitted, permitted
from privacy.standings import read_standings
from schemas import topics
from schemas.consents import PURPOSES, Level
from schemas.control import RelearnCommand
from schemas.errors import JobSilent, SettingsError
from schemas.events import KIND_OF
from schemas.exports import LeftOut
from schemas.pseudonyms import Pseudonymiser
from schemas.store import RELEARNED_TAKEN, relearned_key
from udfs.elements import EventRecord
from udfs.popularity import user_bit_of
from udfs.relearning import EVENTS_PER_UPDATE, Relearning

PARTS_TTL_MS: Final = topics.DAY_MS
"""If the command is read again later than this, the model is emptied: what was erased must not return."""
ANSWER_TIMEOUT_S: Final = 60.0
PERSONALISE: Final = PURPOSES[0]
EVENTS_BETWEEN_LINES: Final = 50 * EVENTS_PER_UPDATE
Say = Callable[[str], None]


class Relearned(NamedTuple):
    """How many events were learned, of how many items, and how many were left out."""

    events: int
    items: int
    left_out: int


def relearn(settings: Settings, say: Say) -> Relearned:
    """Learn from `events`, and have the job go on from there. Raises :class:`JobSilent` if the job does not.

    What the job learns meanwhile is lost, and so is what had left `events` by its retention.
    """
    if settings.model.frozen_directory() is not None:
        raise SettingsError('there is nothing to learn again: [model] names a frozen model, not kind = "online"')
    if not settings.events.publish:
        raise SettingsError("the model cannot be learned again: [events] publish is off, so that no events are kept")
    left_out: Counter[LeftOut] = Counter()
    events = _events(settings, left_out, say)
    relearning = Relearning(settings.profile, settings.lists, settings.learn)
    for begin in range(0, len(events), EVENTS_BETWEEN_LINES):
        relearning.take(events[begin : begin + EVENTS_BETWEEN_LINES])
        say(f"learned {min(begin + EVENTS_BETWEEN_LINES, len(events)):,} of {len(events):,} events")
    _hand_over(settings, relearning, say)
    return Relearned(len(events), relearning.items, left_out.total())


def _events(settings: Settings, left_out: Counter[LeftOut], say: Say) -> list[EventRecord]:
    """The events that may be learned from, in the order of their append times."""
    hashes = Pseudonymiser(load_key_ring(settings.privacy.key_ring))

    recorded = last_recorded(settings.kafka)
    bits_by = settings.job.buckets if recorded is None else recorded.users_bits_by()

    def user_bit(user_id: str) -> str:
        return str(user_bit_of(hashes.route(user_id), bits_by))

    topic = TopicAsOfNow(settings.kafka, topics.EVENTS)
    try:
        say("reading consents")
        standings = read_standings(settings, "train", hashes.all, user_bit)
        say("reading events")
        found = [_record_of(one) for one in permitted(topic, standings, clock_ms(), left_out) if _is_learned(one)]
    finally:
        topic.close()
    return sorted(found, key=lambda event: event.append_ts)


def _is_learned(one: Permitted) -> bool:
    """As in the job: of users whose lists are personal, now and at the time of the event."""
    return one.standing.level == Level.FULL and PERSONALISE in one.event.purposes


def _record_of(one: Permitted) -> EventRecord:
    event, bit = one.event, int(one.standing.export_name)
    kind, name = KIND_OF[event.type], bytes.fromhex(event.event)
    return EventRecord(
        event.pseudonym, name, kind, event.ts, one.appended, 0, 0, bit, event.item_id, None, (), b"", event.schema_v
    )


def _hand_over(settings: Settings, relearning: Relearning, say: Say) -> None:
    """Write the state to Redis, tell the job, and wait until it has taken it.

    The parts stay until they expire: after a restore, the job reads the command again.
    """
    client, request = connect_as_tenant(settings), uuid.uuid4().hex
    prefix = settings.redis.prefix
    try:
        say(f"handing over {relearning.items:,} items")
        for part, raw in relearning.state():
            _write(client, relearned_key(prefix, request, part), raw)
        with JobSession(settings.kafka, settings.job.buckets) as session:
            session.send(RelearnCommand(0, request))
        _wait_until_taken(client, relearned_key(prefix, request, RELEARNED_TAKEN))
    finally:
        client.close()


def _write(client: RedisClient, key: str, part: bytes) -> None:
    client.run(always([(key, ("SET", key, part, "PX", PARTS_TTL_MS))]))


def _wait_until_taken(client: RedisClient, key: str) -> None:
    ends_s = time.monotonic() + ANSWER_TIMEOUT_S
    while time.monotonic() < ends_s:
        [taken] = client.run(always([(key, ("GET", key))]))
        if taken is not None:
            return
        time.sleep(0.2)
    raise JobSilent(
        f"the job has not taken the model within {ANSWER_TIMEOUT_S:g} s: does it run, with these settings and this "
        "release? Type the command again"
    )
