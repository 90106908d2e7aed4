"""The vocabulary of the tests: ``an_interaction(user="ada", at=BEGINNING + 5 * MINUTE, item="tea")``.

There are two kinds of records: raw ones, as stored in Kafka (`a_raw_…`), and those after the ingest operator.
Times are event times in ms; a record is appended when it happened unless `appended` says otherwise.
"""

import hashlib
from typing import Any, Final

import msgspec

from schemas.consents import LEVEL_OF, LevelName
from schemas.control import Command
from schemas.events import KIND_OF
from schemas.pseudonyms import DOMAINS, Domain, KeyRing, Pseudonymiser
from schemas.rejects import Origin, Reject, RejectReason
from schemas.store import decision_of
from schemas.wire.codecs import json_codec
from udfs.elements import ConsentRecord, EventRecord
from udfs.ingest import Ingest, RawRecord, TopicNames
from udfs.state import Profile, UserState

SECOND: Final = 1_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
BEGINNING: Final = 1_749_600_000_000
"""A midnight (UTC) in June 2025."""

ALL_PURPOSES: Final = 0b111
INTERACTIONS: Final = "t.interactions"
CONSENTS: Final = "t.consents"
CONTROL: Final = "t.control"
TOPICS: Final = TopicNames(INTERACTIONS, CONSENTS, CONTROL)


def _key(name: str) -> str:
    return hashlib.sha256(f"a key for tests only: {name}".encode()).hexdigest()


def _keys() -> dict[Domain, dict[str, str]]:
    return {domain: {"1": _key(domain)} for domain in DOMAINS}


KEY_RING: Final = KeyRing(current=1, routing=_key("routing"), keys=_keys())
PSEUDONYMISER: Final = Pseudonymiser(KEY_RING)


def an_event_id(text: str) -> bytes:
    """8 bytes that represent the event id `text`."""
    return hashlib.sha256(text.encode()).digest()[:8]


def an_interaction(
    user: str = "ada",
    at: int = BEGINNING,
    item: str | None = "tea",
    kind: str = "click",
    *,
    id: str | None = None,
    session: str | None = None,
    appended: int | None = None,
    offset: int = 0,
    user_bit: int | None = None,
    segments: tuple[str, ...] = (),
) -> EventRecord:
    """An interaction after ingest; its pseudonym is `user` itself. The default `id` derives from all fields."""
    told = id if id is not None else f"{user} {at} {item} {kind} {session} {offset}"
    bit = an_event_id(user)[0] % 64 if user_bit is None else user_bit
    session_id = None if session is None else an_event_id(session)
    clean = msgspec.json.encode({"pseudonym": user, "item_id": item})
    append_ts = at if appended is None else appended
    kind_place = KIND_OF[kind]
    event = an_event_id(told)
    return EventRecord(
        user, event, kind_place, at, append_ts, 0, offset, bit, item, session_id, segments, clean, schema_v=1
    )


def a_consent(
    user: str = "ada",
    level: LevelName = "full",
    at: int = BEGINNING,
    *,
    offset: int | None = None,
    partition: int = 0,
    expires_at: int = 0,
    purposes: int | None = None,
    said_at: int | None = None,
    erase: bool = False,
    absent: bool = False,
) -> ConsentRecord:
    """A consent change after ingest, appended at `at`; by default, `offset` and `said_at` grow with `at`.

    By default, `purposes` are all of them, or none at the level none.
    """
    place = at - BEGINNING + 1_000_000 if offset is None else offset
    said = at + (0 if offset is None else offset) if said_at is None else said_at
    granted = (ALL_PURPOSES if level != "none" else 0) if purposes is None else purposes
    return ConsentRecord(user, LEVEL_OF[level], granted, at, partition, place, expires_at, said, erase, absent)


def an_erasure(user: str = "ada", at: int = BEGINNING, **fields: Any) -> ConsentRecord:
    """The record that erases a user."""
    return a_consent(user, "none", at, erase=True, **fields)


def a_user(level: LevelName = "full", since: int = BEGINNING, **fields: Any) -> UserState:
    """The state of a user who gave `level` at `since` and has done nothing yet."""
    state = UserState(
        level=LEVEL_OF[level],
        purposes=ALL_PURPOSES,
        consent_at=since,
        consent_partition=0,
        consent_offset=0,
        not_before=since,
        version=1,
        profile=None if level == "none" else Profile(),
    )
    return msgspec.structs.replace(state, **fields)


def a_reject(reason: RejectReason = RejectReason.MALFORMED, topic: str = INTERACTIONS, offset: int = 0) -> Reject:
    """A reject from ingest."""
    return Reject(reason, Origin(topic, 0, offset, BEGINNING))


def a_raw_interaction(
    user: str = "ada",
    at: int = BEGINNING,
    item: str | None = "tea",
    kind: str = "click",
    *,
    id: str = "e1",
    appended: int | None = None,
    partition: int = 0,
    offset: int = 0,
    **fields: Any,
) -> RawRecord:
    """An interaction as stored in Kafka; `fields` are further fields of its JSON."""
    body = {"event_id": id, "type": kind, "ts": at, "user_id": user, "item_id": item, **fields}
    value = msgspec.json.encode({name: value for name, value in body.items() if value is not None})
    return RawRecord(INTERACTIONS, partition, offset, at if appended is None else appended, user.encode(), value)


def a_raw_consent(
    user: str = "ada", level: str = "full", at: int = BEGINNING, *, partition: int = 0, offset: int = 0, **fields: Any
) -> RawRecord:
    """A consent change as stored in Kafka, appended at `at`."""
    value = msgspec.json.encode({"user_id": user, "level": level, "ts": at, **fields})
    return RawRecord(CONSENTS, partition, offset, at, user.encode(), value)


def a_tombstone(user: str = "ada", at: int = BEGINNING, *, topic: str = CONSENTS, offset: int = 0) -> RawRecord:
    """A record without a value."""
    return RawRecord(topic, 0, offset, at, user.encode(), None)


def a_raw_command(kind: str = "account", bucket: int = 0, request: str = "r1", *, offset: int = 0) -> RawRecord:
    """A command as stored in Kafka."""
    value = msgspec.json.encode({"kind": kind, "bucket": bucket, "request": request})
    return RawRecord(CONTROL, 0, offset, BEGINNING, None, value)


def a_command(kind: str = "account", bucket: int = 0, request: str = "r1") -> Command:
    """A command after ingest."""
    command: Command = msgspec.convert({"kind": kind, "bucket": bucket, "request": request}, Command)
    return command


def an_ingest(
    buckets: int = 4,
    segments: tuple[str, ...] = ("surface", "context.country"),
    publish_events: bool = True,
    **more: Any,
) -> Ingest:
    """The ingest rule with the key ring of the tests; the key of a bucket is 100 + its number."""
    keys = [100 + bucket for bucket in range(buckets)]
    return Ingest(TOPICS, json_codec(), PSEUDONYMISER, keys, segments, publish_events, **more)


def value_of(change: ConsentRecord) -> bytes:
    """The value in Redis while `change` is in force."""
    return decision_of(change).value()
