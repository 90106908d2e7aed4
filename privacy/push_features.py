"""Keeps the rows of users in Feast's online store in line with `events` and `consents` (`freshet features push`).

A process claims the project when it begins: it stores the position under its own name, and one that finds another name
there ends. So of two, the one that was started last goes on, also when there is nothing to write.

Before events are applied, everything that is then in `consents` is, so each event finds the consent that it was
accepted under, and a withdrawal deletes the row within one turn. Applying a record again changes nothing, so a turn
that failed is repeated as a whole, and the position is kept after the rows. Memory is bounded by a turn.
"""

import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final, Self

import msgspec

from adapters.kafka.following import TopicFollower
from adapters.redis.client import connect
from adapters.redis.feature_rows import FeatureRows
from adapters.schema_sources import codec_of
from adapters.secrets.key_rings import load_key_ring
from jobs.clock import clock_ms
from jobs.settings import Settings, load_policy
from privacy.consent_topic import read_record
from privacy.history import PublishedEvent
from schemas import topics
from schemas.consents import PURPOSES
from schemas.errors import SettingsError, StoreFull, StoreUnavailable
from schemas.events import KIND_OF
from schemas.pseudonyms import Pseudonymiser, kid_of
from schemas.stored_features import Position
from udfs.elements import ConsentRecord, EventRecord
from udfs.feature_rows import FeatureRules, row_writes
from udfs.features import ENTITY
from udfs.ingest import consent_record

RECORDS_MAX: Final = 2_000
"""Records that are applied at once."""
POLL_MS: Final = 500
"""How long to wait for events before consents are looked at again."""
RETRY_S: Final = 1.0
SAID_EVERY_S: Final = 60.0
PERSONALISE: Final = PURPOSES[0]
REBUILD: Final = "`freshet features push --rebuild` deletes all rows and begins anew"
Say = Callable[[str], None]
_decode: Final = msgspec.json.Decoder(PublishedEvent).decode


class FeaturePush:
    """Follows the topics; call :meth:`turn` again and again. Close it.

    Raises :class:`SettingsError` if the rows that exist cannot be continued, and once another process has begun. With
    `rebuild` the rows are deleted first.
    """

    def __init__(self, settings: Settings, rebuild: bool, say: Say) -> None:
        if not settings.events.publish:
            raise SettingsError("there are no features without events: [events] publish is off")
        self._settings, self._say = settings, say
        self._writer = secrets.token_hex(8)
        self._ring = load_key_ring(settings.privacy.key_ring)
        self._names = Pseudonymiser(self._ring).all
        self._policy, self._codec = load_policy(settings.privacy.policy), codec_of(settings.input)
        self._rules = FeatureRules(settings.profile, settings.features.ttl_ms, settings.tombstone_ms())
        self.counts: Counter[str] = Counter()
        self._client = connect(settings.features.address(settings.redis))
        self._open: list[TopicFollower] = []
        try:
            self._rows = FeatureRows(self._client, settings.features.project, ENTITY)
            if rebuild:
                say(f"deleted {self._rows.clear()} keys of the project {settings.features.project}")
            position = self._beginning() if rebuild else self._position()
            self._claim(position)
            self._consents, self._events = (self._following(name, position) for name in _FOLLOWED)
        except BaseException:
            self.close()
            raise

    def turn(self) -> None:
        """Apply the next events, and before them all consents that are in their topic by then.

        Raises :class:`StoreFull` once all rows that these consents end are deleted.
        """
        self._check_claim()
        events = self._events.poll(POLL_MS)
        full: StoreFull | None = None
        for records in self._consents.up_to_now():
            try:
                self._apply([change for record in records for change in self._changes(record)], [])
            except StoreFull as error:  # additions are refused, and the deletions in later records are not
                full = error
        if full is not None:
            raise full
        self._apply([], [event for record in events if (event := self._event(record)) is not None])
        self._check_claim()
        self._keep({one.topic: one.offsets() for one in self._open})

    def left(self) -> int:
        """How many records of `events` are not applied yet."""
        return self._events.left()

    def close(self) -> None:
        """Close the clients."""
        for one in self._open:
            one.close()
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _claim(self, position: Position) -> None:
        """Store the position under the name of this process; a full Redis cannot be told, and rows must be deleted."""
        self._kept = self._rows.position()
        with suppress(StoreFull):
            self._keep(position.topics)

    def _keep(self, offsets: dict[str, dict[str, int]]) -> None:
        position = msgspec.json.encode(Position(self._ring.current, offsets, self._writer))
        self._rows.keep_position(position)
        self._kept = position

    def _check_claim(self) -> None:
        """Whether this process still is the one that pushes: only it may store a position."""
        found = self._rows.position()
        if found is None and self._kept is not None:
            raise StoreUnavailable("the position of features is gone: everything is read again")
        if found != self._kept:
            raise SettingsError(
                f"another `freshet features push` has begun for the project {self._settings.features.project}: this "
                "one ends. Run one for a project, or give each job its own features.project"
            )

    def _position(self) -> Position:
        raw = self._rows.position()
        if raw is None:
            return self._beginning()
        try:
            position = msgspec.json.decode(raw, type=Position)
        except (ValueError, RecursionError):
            raise SettingsError(f"how far features were pushed cannot be read: {REBUILD}") from None
        if position.kid != self._ring.current:
            raise SettingsError(f"features are named with key {position.kid}, the key ring has a later one: {REBUILD}")
        if position.topics.keys() != {self._settings.kafka.topic(name) for name in _FOLLOWED}:
            raise SettingsError(f"features of this project come from topics with another prefix: {REBUILD}")
        return position

    def _beginning(self) -> Position:
        return Position(self._ring.current, {self._settings.kafka.topic(name): {} for name in _FOLLOWED})

    def _following(self, name: str, position: Position) -> TopicFollower:
        kafka = self._settings.kafka
        one = TopicFollower(kafka, name, position.topics.get(kafka.topic(name), {}), RECORDS_MAX)
        self._open.append(one)
        return one

    def _apply(self, consents: Sequence[ConsentRecord], events: Sequence[EventRecord]) -> None:
        users = list(dict.fromkeys([*(one.pseudonym for one in consents), *(one.pseudonym for one in events)]))
        if users:
            seen = self._rows.seen(users)
            self._rows.write(row_writes(consents, events, seen, self._rules, clock_ms(), self.counts))

    def _changes(self, record: Any) -> Iterable[ConsentRecord]:
        """The changes in a record of `consents`, under each name of their user: raw ids do not leave this method."""
        place = record.timestamp, record.partition, record.offset
        for said in read_record(self._codec, record.key, record.value, record.timestamp):
            current, *previous = self._names(said.change.user_id)
            change = consent_record(said.change, current, place, self._policy, said.absent)
            yield change
            for name in previous:
                yield msgspec.structs.replace(change, pseudonym=name)

    def _event(self, record: Any) -> EventRecord | None:
        """An event that may be used to personalise; None for others."""
        try:
            event = _decode(record.value or b"")
            name, session = bytes.fromhex(event.event), bytes.fromhex(event.session or "")
            kind, kid = KIND_OF[event.type], int(kid_of(event.pseudonym))
        except (ValueError, LookupError, RecursionError):
            self.counts["unreadable"] += 1
            return None
        if kid > self._ring.current:
            raise SettingsError("events are named with a later key than this process has read: start it again")
        if PERSONALISE not in event.purposes:
            self.counts["not_personalised"] += 1
            return None
        appended = event.appended or record.timestamp
        place = appended, record.partition, record.offset, 0
        return EventRecord(
            event.pseudonym, name, kind, event.ts, *place, event.item_id, session or None, (), b"", event.schema_v
        )


_FOLLOWED: Final = (topics.CONSENTS, topics.EVENTS)


def push(settings: Settings, once: bool, rebuild: bool, say: Say) -> Counter[str]:
    """Push until the process is ended or, with `once`, until all events that exist are applied; returns counts.

    While Redis does not answer, a turn is repeated; with `once`, :class:`StoreUnavailable` is raised. Raises
    :class:`SettingsError` once another process pushes the same project.
    """
    counts: Counter[str] = Counter(rows=0, deleted=0)
    told, told_s = "", 0.0
    while True:
        try:
            with FeaturePush(settings, rebuild, say) as pushing:
                rebuild, pushing.counts = False, counts
                _keep_pushing(pushing, once, say)
                return counts
        except StoreUnavailable as error:
            if once:
                raise
            if str(error) != told or time.monotonic() - told_s >= SAID_EVERY_S:
                told, told_s = str(error), time.monotonic()
                say(f"features are not pushed to the Redis of {_setting(settings)}: {error}{_remedy(error)}")
            time.sleep(RETRY_S)


def _setting(settings: Settings) -> str:
    return "redis.url (or urls)" if settings.features.url is None else "features.url"


def _remedy(error: StoreUnavailable) -> str:
    if not isinstance(error, StoreFull):
        return "; trying again"
    return ". Rows that consents end are deleted; nothing is added until its maxmemory is raised; trying again"


def _keep_pushing(pushing: FeaturePush, once: bool, say: Say) -> None:
    said_s = time.monotonic()
    while True:
        pushing.turn()
        if once and not pushing.left():
            return
        if time.monotonic() - said_s >= SAID_EVERY_S:
            said_s = time.monotonic()
            say(f"{describe(pushing.counts)}; {pushing.left()} events to go")


def describe(counts: Counter[str]) -> str:
    """What was done, in one line."""
    told = ("accepted", "moved", "duplicate", "denied", "too_late", "not_personalised", "unreadable")
    done = f"rows written: {counts['rows']}, deleted: {counts['deleted']}"
    return done + "".join(f"; {name}: {counts[name]}" for name in told if counts[name])
