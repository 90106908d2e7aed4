"""Consent rules: what a consent change does to a user's state, and whether an interaction may be used.

Missing means denied. The last change in topic order wins; a change that is not newer than the current one is a replay,
and does nothing. Topic order is by offset, because a broker's clock may step back; append time only orders the
partitions of a user who moved when partitions were added. A grant given no later than the user's last withdrawal is
refused, however late it is appended: it was delayed on its way. The two raw topics have no mutual order, hence
`not_before`: an interaction appended before the grant is denied even if the grant is read first.
"""

from enum import Enum
from typing import NamedTuple

from schemas.consents import Level
from schemas.store import Placed
from udfs.elements import ConsentRecord, EventRecord
from udfs.state import Profile, UserState


class ConsentVerdict(Enum):
    """The outcome of a consent change."""

    APPLIED = "applied"
    REPLAYED = "replayed"
    REFUSED = "refused"


class ConsentPlace(NamedTuple):
    """A place in `consents`; `append_ts` in ms."""

    append_ts: int
    partition: int
    offset: int


def comes_after(one: Placed, other: Placed) -> bool:
    """Topic order: by offset within a partition, by append time across partitions."""
    if one.partition == other.partition:
        return one.offset > other.offset
    return one.append_ts > other.append_ts


def is_newer(state: UserState, change: Placed) -> bool:
    """Whether `change` comes after the current consent in topic order."""
    return comes_after(change, ConsentPlace(state.consent_at, state.consent_partition, state.consent_offset))


def apply_consent(state: UserState, change: ConsentRecord) -> ConsentVerdict:
    """Apply `change` to `state`, or leave `state` unchanged. Erasure is handled elsewhere: it leaves no state.

    A withdrawal clears the profile at once. So does narrowing from `full` to `session`: nothing older is kept, not even
    interactions appended before it and read after it. A consent that had expired by then counts as withdrawn, whether
    or not its timer has fired. A user who denies only personalisation withdraws that, and grants the other purposes.
    """
    if not is_newer(state, change):
        return ConsentVerdict.REPLAYED
    kept_for = _kept_for(state, change)
    if change.level == Level.NONE:
        state.withdrawn_at = max(state.withdrawn_at, change.said_at)
    elif change.said_at <= state.withdrawn_at:
        return ConsentVerdict.REFUSED
    if has_expired(state, change.append_ts):
        withdraw(state)
    narrows = change.level < state.level
    if narrows or (state.level == Level.NONE and not (state.kept_for and kept_for)):
        state.not_before = change.append_ts
    if change.level == Level.NONE and not kept_for:
        state.profile = None
    elif narrows or state.profile is None:
        state.profile = Profile()
    state.level, state.purposes, state.expires_at = change.level, change.purposes, change.expires_at
    if change.level == Level.NONE:
        state.purposes, state.expires_at = kept_for, change.expires_at if kept_for else 0
    state.kept_for = kept_for
    state.consent_at, state.consent_partition, state.consent_offset = change.append_ts, change.partition, change.offset
    state.version += 1
    return ConsentVerdict.APPLIED


def _kept_for(state: UserState, change: ConsentRecord) -> int:
    """The purposes that `change` grants without personalisation; 0 if the user later refused everything."""
    if change.level != Level.NONE or change.erase or change.absent:
        return 0
    is_later = change.said_at >= state.withdrawn_at if state.kept_for else change.said_at > state.withdrawn_at
    return change.purposes if is_later else 0


def has_expired(state: UserState, now_ms: int) -> bool:
    """Whether the current consent, for any purposes, has expired."""
    return (state.level != Level.NONE or state.kept_for != 0) and 0 < state.expires_at <= now_ms


def allows(state: UserState | None, event: EventRecord) -> bool:
    """Whether the consent at its append time allows `event` to be used for some purpose."""
    return (
        state is not None
        and (state.level != Level.NONE or (state.kept_for != 0 and event.clean != b""))
        and event.append_ts >= state.not_before
        and not (0 < state.expires_at <= event.append_ts)
    )


def withdraw(state: UserState) -> None:
    """Withdraw the consent without a new record, as when it has expired."""
    state.level, state.purposes, state.kept_for, state.profile = Level.NONE, 0, 0, None
    state.version += 1
