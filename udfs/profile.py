"""The profile rules: how one interaction changes what is kept of a user. Time comes from the event, not a clock."""

from enum import IntEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from schemas.consents import Level
from schemas.events import EVENT_TYPES, KIND_OF, KIND_WEIGHTS
from schemas.topics import DAY_MS, HOUR_MS, MINUTE_MS
from udfs.consent import allows
from udfs.elements import EventRecord
from udfs.had_items import with_item
from udfs.known_events import seen_before, with_event
from udfs.state import Profile, Recent, Session, UserState

PURCHASE: Final = KIND_OF["purchase"]

RECENT_ITEMS_MAX: Final = 20
"""The width of the model's `items` input, so a constant and not a setting."""

WEIGHT_OF_KIND: Final[tuple[float, ...]] = tuple(KIND_WEIGHTS.get(name, 0.0) for name in EVENT_TYPES)


AtLeastOne = Annotated[int, Meta(ge=1)]


class ProfileBounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much is kept of a user, and for how long."""

    bought_items_max: AtLeastOne = 64
    """Bought items remembered."""
    had_items_max: AtLeastOne = 512
    """Items remembered as met, so that lists may leave them out: 6 bytes each."""
    event_ids_max: AtLeastOne = 512
    """Hashes of events remembered for deduplication, at most: 8 bytes each."""
    dedupe_horizon_ms: AtLeastOne = 7 * DAY_MS
    """An event older than the user's newest one by more than this is rejected (`too_late`), and its hash need not be
    remembered."""
    session_gap_ms: AtLeastOne = 30 * MINUTE_MS
    """A session ends after this time without an event."""
    counts_half_life_ms: AtLeastOne = 7 * DAY_MS
    """The half-life of the counts of a user's events."""
    recents_half_life_ms: AtLeastOne = 6 * HOUR_MS
    """The half-life of a recent item's weight in the model's input."""
    idle_profile_ttl_ms: AtLeastOne = 395 * DAY_MS
    """A profile is deleted this long after the user's last event, or when consent ends, if that is earlier: who comes
    back after a year finds a list of their own."""


class Outcome(IntEnum):
    """The outcome of an interaction. Together with rejects at ingest, these sum to what was sent."""

    ACCEPTED = 0
    MOVED = 1
    """Accepted, and the list must be recomputed."""
    DUPLICATE = 2
    DENIED = 3
    TOO_LATE = 4


def take(state: UserState | None, event: EventRecord, bounds: ProfileBounds) -> Outcome:
    """Apply `event` to `state` if consent and the dedupe window allow it; returns the outcome.

    If only the session may be used, any event of a new session makes a new list, because the old list reflects the old
    session.
    """
    if state is None or not allows(state, event):
        return Outcome.DENIED
    profile = state.profile or Profile()
    if seen_before(profile.event_ids, event.event):
        return Outcome.DUPLICATE
    if event.ts < profile.newest_ts - bounds.dedupe_horizon_ms:
        return Outcome.TOO_LATE
    began = state.level == Level.SESSION and _in_another_session(profile, event, bounds.session_gap_ms)
    if began:
        if event.ts < profile.newest_ts:
            return Outcome.DENIED
        profile = Profile()
    state.profile = profile
    state.version += 1
    if state.kept_for:
        _remember(profile, event, bounds)
        return Outcome.ACCEPTED
    moved = _note(profile, event, bounds)
    return Outcome.MOVED if moved or began else Outcome.ACCEPTED


def _note(profile: Profile, event: EventRecord, bounds: ProfileBounds) -> bool:
    """Apply an accepted event to the profile; True if the list must be recomputed."""
    _count(profile, event.kind, event.ts, bounds.counts_half_life_ms)
    _join_session(profile, event, bounds.session_gap_ms)
    _remember(profile, event, bounds)
    if event.item is None or WEIGHT_OF_KIND[event.kind] == 0.0:
        return False
    insert_recent(profile.recents, (event.item, event.ts, event.kind))
    profile.had = with_item(profile.had, event.item, bounds.had_items_max)
    if event.kind == PURCHASE:
        _remember_bought(profile.bought, event.item, bounds.bought_items_max)
    return True


def _remember(profile: Profile, event: EventRecord, bounds: ProfileBounds) -> None:
    """Keep what is needed to recognise duplicates of this event, and events too old to check."""
    newest = profile.newest_ts, max(profile.newest_ts, event.ts)
    profile.event_ids, profile.event_days = with_event(
        profile.event_ids, profile.event_days, event.event, newest, bounds.dedupe_horizon_ms, bounds.event_ids_max
    )
    profile.newest_ts = newest[1]
    profile.active_at = max(profile.active_at, event.append_ts)


def insert_recent(recents: list[Recent], recent: Recent) -> None:
    """Insert `recent` by its time, newest last; one entry per item, at most RECENT_ITEMS_MAX.

    A repeated item keeps its newest time and the heaviest of its kinds.
    """
    item, ts, kind = recent
    for place, (known, known_ts, known_kind) in enumerate(recents):
        if known == item:
            ts = max(ts, known_ts)
            kind = max(kind, known_kind, key=lambda k: (WEIGHT_OF_KIND[k], k))
            del recents[place]
            break
    place = len(recents)
    while place and recents[place - 1][1] > ts:
        place -= 1
    recents.insert(place, (item, ts, kind))
    if len(recents) > RECENT_ITEMS_MAX:
        del recents[0]


def _remember_bought(bought: list[str], item: str, bought_max: int) -> None:
    if item in bought:
        bought.remove(item)
    bought.append(item)
    if len(bought) > bought_max:
        del bought[0]


def _count(profile: Profile, kind: int, ts: int, half_life_ms: int) -> None:
    """Exponentially decayed counts as of the newest event time (Cormode et al. 2009, backward form)."""
    age = profile.newest_ts - ts
    if age >= 0:
        profile.counts[kind] += 0.5 ** (age / half_life_ms)
        return
    fading = 0.5 ** (-age / half_life_ms)
    profile.counts = [count * fading for count in profile.counts]
    profile.counts[kind] += 1.0


def _in_another_session(profile: Profile, event: EventRecord, gap_ms: int) -> bool:
    session = profile.session
    if session is None:
        return False
    is_near = session.started - gap_ms <= event.ts <= session.last + gap_ms
    return not is_near or (event.session or b"") != session.id


def _join_session(profile: Profile, event: EventRecord, gap_ms: int) -> None:
    session = profile.session
    if session is None or _in_another_session(profile, event, gap_ms):
        if session is None or event.ts >= session.last:
            profile.session = Session(event.session or b"", event.ts, event.ts, 1)
        return
    session.started, session.last = min(session.started, event.ts), max(session.last, event.ts)
    session.events += 1
