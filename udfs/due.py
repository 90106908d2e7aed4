"""What becomes due for a user without events: session end, consent expiry, profile deletion, list refresh.

Each bucket keeps a due index (:mod:`udfs.due_index`): slots of one second, each with a processing-time timer and a
limited number of users, so that work is done at a bounded rate. A user is in one slot and is only checked when it is
due, so events cost nothing here.
"""

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from schemas.consents import Level
from schemas.store import ListWrite
from schemas.topics import DAY_MS
from udfs.consent import has_expired, withdraw
from udfs.profile import AtLeastOne, ProfileBounds
from udfs.state import UserState

REFRESH_AT: Final = 0.8
"""A list is rewritten when this share of its life has passed."""
SHOWN_KEPT_MS: Final = DAY_MS
"""Lists seen longer ago are forgotten at the next check: no event can join them any more."""


class RefreshSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How lists of idle users are kept fresh, and how fast lists are rebuilt."""

    list_ttl_ms: AtLeastOne = DAY_MS
    """How long a list stays in Redis, at least."""
    active_within_ms: AtLeastOne = 395 * DAY_MS
    """Refresh lists of users whose last event is not older than this; others get popular ones. 1 KB of Redis each."""
    idle_share: Annotated[float, Meta(ge=0, le=1)] = 0.1
    """A list of an idle user stays in Redis for this share of the time since their last event, if that is longer than
    `list_ttl_ms`: the longer users are away, the less often their lists are refreshed."""
    users_per_second: AtLeastOne = 200
    """How many idle users the job refreshes per second, at most."""
    rebuilt_per_second: AtLeastOne = 4_000
    """How many consents and lists are rewritten per second after Redis has lost data, at most."""


class Due(IntEnum):
    """What to do for a user whose slot is due.

    FORGET: nothing is kept any more; delete the list. EXPIRED: the same, because the consent has expired.
    """

    NOTHING = 0
    REFRESH = 1
    FORGET = 2
    EXPIRED = 3


def list_life_ms(state: UserState, now_ms: int, refresh: RefreshSettings) -> int:
    """How long a list that is made now stays in Redis."""
    active_at = now_ms if state.profile is None else state.profile.active_at or now_ms
    return max(refresh.list_ttl_ms, int(refresh.idle_share * (now_ms - active_at)))


def kept_longer(
    lists: Sequence[ListWrite], users: Mapping[str, UserState], now_ms: int, refresh: RefreshSettings
) -> list[ListWrite]:
    """`lists` of idle `users`, with the life that is due to them."""
    return [
        write._replace(ttl_ms=max(write.ttl_ms, list_life_ms(users[write.pseudonym], now_ms, refresh)))
        if users[write.pseudonym].level == Level.FULL
        else write
        for write in lists
    ]


def next_due_ms(state: UserState, now_ms: int, bounds: ProfileBounds, refresh: RefreshSettings) -> int | None:
    """When to check the user next, in ms; None if nothing is kept that could become due."""
    profile = state.profile
    if profile is None:
        return state.expires_at or None if state.level != Level.NONE or state.kept_for else None
    active_at = profile.active_at or now_ms
    if state.kept_for:
        due = active_at + bounds.dedupe_horizon_ms
    elif state.level == Level.SESSION:
        due = active_at + bounds.session_gap_ms
    elif now_ms - active_at <= refresh.active_within_ms:
        due = now_ms + int(REFRESH_AT * list_life_ms(state, now_ms, refresh))
        if now_ms < active_at + bounds.idle_profile_ttl_ms:
            due = min(due, active_at + bounds.idle_profile_ttl_ms)
    else:
        due = active_at + bounds.idle_profile_ttl_ms
    return min(due, state.expires_at) if state.expires_at else due


def when_due(state: UserState, now_ms: int, bounds: ProfileBounds, refresh: RefreshSettings) -> Due:
    """Decide what is due, and change `state` accordingly; the caller writes, deletes and indexes."""
    if has_expired(state, now_ms):
        withdraw(state)
        return Due.EXPIRED
    profile = state.profile
    if profile is None:
        return Due.NOTHING
    profile.shown = [each for each in profile.shown if each.seen_ts > now_ms - SHOWN_KEPT_MS]
    profile.explored = [each for each in profile.explored if each.at > now_ms - SHOWN_KEPT_MS]
    idle_ms = now_ms - profile.active_at
    limit_ms = _kept_ms(state, bounds)
    if idle_ms >= limit_ms:
        state.profile = None
        state.version += 1
        return Due.FORGET
    if state.level == Level.FULL and idle_ms <= refresh.active_within_ms:
        return Due.REFRESH
    return Due.NOTHING


def _kept_ms(state: UserState, bounds: ProfileBounds) -> int:
    """How long an idle user's profile is kept. Without personalisation it only serves to find duplicates."""
    if state.kept_for:
        return bounds.dedupe_horizon_ms
    return bounds.session_gap_ms if state.level == Level.SESSION else bounds.idle_profile_ttl_ms
