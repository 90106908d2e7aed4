"""What records of `consents` and `events` do to the rows of users in Feast's online store. Pure.

The job's rules decide, so a row exists only while consent allows one: it is deleted by the record that ends the consent
or narrows it to a session, ends with a consent that expires, and never contains what was appended before the consent in
force. Whatever cannot be read counts as no consent.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from schemas.consents import Level
from schemas.errors import SchemaError
from schemas.stored_features import PROFILE_FIELD, RowWrite, Seen
from schemas.topics import HOUR_MS
from schemas.wire.feast_layout import field_of, time_field, timestamp, value
from udfs.account import Account
from udfs.elements import ConsentRecord, Element, EventRecord
from udfs.features import FEATURES, VIEW, accept, ends_at, has_features, values_of
from udfs.personalise import Users, apply
from udfs.profile import Outcome, ProfileBounds
from udfs.state import Profile, UserState, decode_state, encode_state

CATCH_UP_MS: Final = HOUR_MS
"""A row that is written while old events are read stays at least this long: a later event may continue it."""
_FIELDS: Final = tuple(field_of(VIEW, feature.name) for feature in FEATURES)
_KINDS: Final = tuple(feature.kind for feature in FEATURES)
_TIME: Final = time_field(VIEW)


class FeatureRules(NamedTuple):
    """The settings that rows depend on; times in ms."""

    bounds: ProfileBounds
    ttl_ms: int
    tombstone_ms: int


def row_writes(
    consents: Sequence[ConsentRecord],
    events: Sequence[EventRecord],
    seen: Mapping[str, Seen],
    rules: FeatureRules,
    now_ms: int,
    counts: Counter[str],
) -> list[RowWrite]:
    """Apply `consents`, then `events`, to the users in `seen`; returns what to write, and counts what was done.

    All consents recorded before an event was published must have been applied, or be among `consents`.
    """
    unreadable: set[str] = set()
    users = Users(lambda user: _joined(user, seen[user], unreadable))
    apply(Element(0, consents=list(consents)), users, Account(), rules.bounds, "")
    for event in events:
        outcome = accept(users.get(event.pseudonym), event, rules.bounds, rules.ttl_ms)
        counts[outcome.name.lower()] += 1
        if outcome <= Outcome.MOVED:
            users.mark(event.pseudonym)
    changed = users.changed()
    gone = {change.pseudonym for change in consents if change.erase or change.absent} | unreadable
    writes = [_write_of(user, seen[user], state, rules, now_ms) for user, state in changed.items()]
    writes += [RowWrite(user, seen[user]) for user in sorted(gone - changed.keys()) if users.get(user) is None]
    counts["rows"] += sum(bool(one.fields) for one in writes)
    counts["deleted"] += sum(bool(one.seen.profile) and not one.fields for one in writes)
    counts["unreadable"] += len(unreadable)
    return writes


def _joined(user: str, seen: Seen, unreadable: set[str]) -> bytes | None:
    """The state as the job has it, from its two parts; None, and the user in `unreadable`, for damaged bytes."""
    if not seen.state:
        return None
    try:
        state = decode_state(seen.state)
        state.profile = decode_state(seen.profile).profile if seen.profile else None
    except (msgspec.MsgspecError, SchemaError, ValueError):
        unreadable.add(user)
        return None
    if state.profile is None and (state.level != Level.NONE or state.kept_for):
        state.profile = Profile()
    return encode_state(state)


def _write_of(user: str, seen: Seen, state: UserState, rules: FeatureRules, now_ms: int) -> RowWrite:
    profile, state.profile = state.profile, None
    granted = state.level != Level.NONE or bool(state.kept_for)
    state_ends_at = now_ms + rules.tombstone_ms
    if granted:
        state_ends_at = state.expires_at + rules.tombstone_ms if state.expires_at else 0
    consent = encode_state(state)
    state.profile = profile
    row_ends_at = _row_ends_at(state, rules.ttl_ms, now_ms)
    if profile is None or row_ends_at <= now_ms:
        return RowWrite(user, seen, consent, state_ends_at)
    fields = [_TIME, timestamp(profile.active_at), PROFILE_FIELD, encode_state(UserState(profile=profile))]
    for field, kind, of in zip(_FIELDS, _KINDS, values_of(profile, rules.bounds), strict=True):
        fields += [field, value(kind, of)]
    return RowWrite(user, seen, consent, state_ends_at, row_ends_at, fields)


def _row_ends_at(state: UserState, ttl_ms: int, now_ms: int) -> int:
    """When the row of a user ends; 0 if there is none."""
    if state.profile is None or not has_features(state):
        return 0
    idle_at = max(ends_at(state.profile, ttl_ms), now_ms + CATCH_UP_MS)
    return min(idle_at, state.expires_at) if state.expires_at else idle_at
