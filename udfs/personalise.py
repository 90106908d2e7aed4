"""The main rule: what one element does to a bucket's users. Pure: state comes in, writes go out.

Within an element, consents are applied first (the two raw topics have no mutual order), then interactions in the order
in which they were read.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from schemas.consents import PURPOSES, Level, purposes_of
from schemas.rejects import Origin, Reject, RejectReason
from schemas.store import Placed
from udfs.account import Account
from udfs.consent import ConsentVerdict, apply_consent, comes_after, is_newer, withdraw
from udfs.elements import ConsentRecord, Element, EventRecord
from udfs.exploring import with_exploration
from udfs.feedback import Measuring
from udfs.learning import Teaching
from udfs.profile import Outcome, ProfileBounds, take
from udfs.shadow import Shadowing
from udfs.state import Profile, UserState, decode_state, encode_state

_UNREAD: Final[Any] = object()
"""Stands for a user whose bytes were not loaded yet."""


class Users:
    """The users that an element touches: each decoded once and written back once.

    `load` returns the stored bytes of a pseudonym, or None.
    """

    def __init__(self, load: Callable[[str], bytes | None]) -> None:
        self._load = load
        self._known: dict[str, UserState | None] = {}
        self._stored: dict[str, int] = {}
        """The slot of each stored user in the due index when they were loaded, 0 for none."""
        self._changed: set[str] = set()

    def get(self, pseudonym: str) -> UserState | None:
        """The user's state; None if nothing is on record."""
        known: UserState | None = self._known.get(pseudonym, _UNREAD)
        if known is not _UNREAD:
            return known
        raw = self._load(pseudonym)
        state = self._known[pseudonym] = None if raw is None else decode_state(raw)
        if state is not None:
            self._stored[pseudonym] = state.due_slot
        return state

    def get_or_new(self, pseudonym: str) -> UserState:
        """The user's state; creates an empty one if nothing is on record."""
        state = self.get(pseudonym)
        if state is None:
            state = self._known[pseudonym] = UserState()
        return state

    def mark(self, pseudonym: str) -> None:
        """Mark the user's state as changed."""
        self._changed.add(pseudonym)

    def rename(self, previous: str, current: str) -> None:
        """Move state from `previous` to `current`, unless `current` has state already."""
        state = self.get(previous)
        if state is not None and self.get(current) is None:
            # The due index still has it under its former name.
            state.due_slot = 0
            self._known[current] = state
            self._changed.add(current)
        self.erase(previous)

    def erase(self, pseudonym: str) -> None:
        """Delete all state of the user."""
        self.get(pseudonym)
        self._known[pseudonym] = None
        self._changed.add(pseudonym)

    def changed(self) -> dict[str, UserState]:
        """The changed states."""
        return {pseudonym: state for pseudonym in self._changed if (state := self._known[pseudonym]) is not None}

    def writes(self) -> list[tuple[str, bytes]]:
        """What to store: (pseudonym, bytes) of the changed users."""
        known = self._known
        return [
            (pseudonym, encode_state(state)) for pseudonym in self._changed if (state := known[pseudonym]) is not None
        ]

    def erased(self) -> list[str]:
        """Users whose stored bytes must be removed."""
        return [pseudonym for pseudonym in self._changed & self._stored.keys() if self._known[pseudonym] is None]

    def entered(self) -> list[str]:
        """Users to be stored for the first time."""
        known, stored = self._known, self._stored
        return [one for one in self._changed if one not in stored and known[one] is not None]

    def left(self) -> dict[int, set[str]]:
        """Users who have left their slot of the due index, by slot."""
        left: dict[int, set[str]] = {}
        for pseudonym in self._changed & self._stored.keys():
            slot, state = self._stored[pseudonym], self._known[pseudonym]
            if slot and (state is None or state.due_slot != slot):
                left.setdefault(slot, set()).add(pseudonym)
        return left


class Changes(NamedTuple):
    """What an element caused, for the operators to write.

    `consents` are the applied changes, `refused` those that never apply. `moved` are users whose list must be
    recomputed, with the append time of the latest change that caused it. `accepted` are the accepted interactions.
    `kept` are those of users who deny personalisation: they are published, but influence no list. `denied` counts
    denied interactions by user, with "" for all users without a consent on record.
    """

    consents: list[ConsentRecord]
    refused: list[ConsentRecord]
    moved: dict[str, int]
    accepted: list[EventRecord]
    rejects: list[Reject]
    denied: dict[str, int]
    kept: list[EventRecord]


def apply(
    element: Element,
    users: Users,
    account: Account,
    bounds: ProfileBounds,
    interactions: str,
    teaching: Teaching | None = None,
    measuring: Measuring | None = None,
    shadowing: Shadowing | None = None,
) -> Changes:
    """Apply `element` to `users` and `account`. `interactions` is the topic of its events.

    `teaching` collects what accepted events teach the online model; None if there is no such model. `measuring`
    collects what they say about lists, `shadowing` the histories that a trial ranks.
    """
    changes = Changes([], [], {}, [], list(element.rejects), {}, [])
    _apply_consents(element, users, account, changes)
    for change in changes.consents:
        if _has_recents(users.get(change.pseudonym)):
            changes.moved[change.pseudonym] = change.append_ts
    for reject in element.rejects:
        if reject.origin.topic == interactions:
            account.reject(reject.reason)
        else:
            account.others_rejected += 1
    account.unknown_fields += element.unknown_fields
    account.ignored += element.ignored
    account.extra += element.extra
    for event in element.events:
        state = users.get(event.pseudonym)
        before = None if teaching is None else teaching.before(state, event)
        tried = None if shadowing is None else shadowing.before(state, event)
        outcome = _apply_event(event, state, users, account, bounds, interactions, changes)
        if outcome == Outcome.MOVED and before is not None:
            assert teaching is not None
            teaching.accepted(event, before)
        if outcome == Outcome.MOVED and tried is not None:
            assert shadowing is not None
            shadowing.accepted(event, tried)
        if measuring is not None and state is not None and outcome <= Outcome.MOVED:
            measuring.accepted(state, event)
    return changes


def _apply_event(
    event: EventRecord,
    state: UserState | None,
    users: Users,
    account: Account,
    bounds: ProfileBounds,
    interactions: str,
    changes: Changes,
) -> Outcome:
    """Apply one event of the user with `state`."""
    outcome = take(state, event, bounds)
    account.note(outcome)
    if outcome <= Outcome.MOVED:
        users.mark(event.pseudonym)
        kept = state is not None and state.kept_for
        (changes.kept if kept else changes.accepted).append(with_exploration(event, state))
        if outcome == Outcome.MOVED:
            changes.moved[event.pseudonym] = max(event.append_ts, changes.moved.get(event.pseudonym, 0))
    elif outcome == Outcome.DENIED:
        name = "" if state is None else event.pseudonym
        changes.denied[name] = changes.denied.get(name, 0) + 1
    elif outcome == Outcome.TOO_LATE:
        origin = Origin(interactions, event.partition, event.offset, event.append_ts)
        rejected = Reject(RejectReason.TOO_LATE, origin, event.schema_v, event.sent_by, event.list_request())
        changes.rejects.append(rejected)
    return outcome


def _has_recents(state: UserState | None) -> bool:
    """Whether to make a new list after a consent change, which has deleted the old one."""
    return state is not None and state.profile is not None and bool(state.profile.recents)


def _apply_consents(element: Element, users: Users, account: Account, changes: Changes) -> None:
    for change in element.consents:
        verdict = _apply_consent(users, change)
        if verdict == ConsentVerdict.APPLIED:
            account.consents_applied += 1
            changes.consents.append(change)
        elif verdict == ConsentVerdict.REFUSED:
            account.consents_refused += 1
            changes.refused.append(change)
        else:
            account.consents_replayed += 1


def _apply_consent(users: Users, change: ConsentRecord) -> ConsentVerdict:
    """Apply a consent change. An erasure leaves no state, and neither does a removed consent."""
    state = users.get(change.pseudonym)
    if change.erase or change.absent:
        if state is not None and not is_newer(state, change):
            return ConsentVerdict.REPLAYED
        users.erase(change.pseudonym)
        return ConsentVerdict.APPLIED
    verdict = apply_consent(users.get_or_new(change.pseudonym), change)
    if verdict == ConsentVerdict.APPLIED:
        users.mark(change.pseudonym)
    return verdict


def relink(users: Users, links: Mapping[str, str]) -> dict[str, str]:
    """Move users to their current pseudonyms; returns those that moved, current → previous. Idempotent."""
    moved = {current: previous for current, previous in links.items() if users.get(previous) is not None}
    for current, previous in moved.items():
        users.rename(previous, current)
    return moved


class TombstoneLike(Placed, Protocol):
    """A withdrawal or an erasure, as recorded in a tombstone."""

    @property
    def erased(self) -> bool: ...  # noqa: D102
    @property
    def said_at(self) -> int: ...  # noqa: D102


def forget(users: Users, tombstones: Iterable[tuple[str, TombstoneLike]]) -> None:
    """Drop what a restored snapshot still holds of users who withdrew, or were erased, after it was taken.

    The record that did it is read again, and then counts as the first time; until then no data of the user is used.
    """
    for pseudonym, tombstone in tombstones:
        state = users.get(pseudonym)
        if state is None or not is_newer(state, tombstone):
            continue
        if tombstone.erased:
            users.erase(pseudonym)
        elif state.level != Level.NONE or state.kept_for:
            state.level, state.purposes, state.kept_for, state.profile = Level.NONE, 0, 0, None
            users.mark(pseudonym)


def is_granted_alone(change: ConsentRecord) -> bool:
    """Whether `change` grants purposes without personalisation."""
    return change.level == Level.NONE and change.purposes != 0 and not (change.erase or change.absent)


def is_fenced(change: ConsentRecord, tombstone: TombstoneLike) -> bool:
    """Whether the user refused everything later than they granted `change`."""
    return tombstone.said_at > change.said_at or comes_after(tombstone, change)


def undo_refused(users: Users, refused: Iterable[ConsentRecord], account: Account, changes: Changes) -> set[str]:
    """Undo grants that Redis refused because it knows of a later withdrawal; returns their users.

    A user who consented again later in the same element keeps that consent, and no older data. What the element had
    accepted of them is denied.
    """
    undone = set()
    for change in refused:
        state = users.get(change.pseudonym)
        if state is None or state.profile is None:
            continue
        if (state.consent_partition, state.consent_offset) == (change.partition, change.offset):
            withdraw(state)
            # Redis may lose the withdrawal, and is then written from state: the grant must not count when reread.
            state.withdrawn_at = max(state.withdrawn_at, change.said_at)
        else:
            state.profile, state.not_before = Profile(), state.consent_at
        users.mark(change.pseudonym)
        undone.add(change.pseudonym)
    denied = [event for event in changes.accepted if event.pseudonym in undone]
    changes.accepted[:] = [event for event in changes.accepted if event.pseudonym not in undone]
    for event in denied:
        changes.denied[event.pseudonym] = changes.denied.get(event.pseudonym, 0) + 1
    account.accepted -= len(denied)
    account.denied += len(denied)
    return undone


_CLEAN_HEADS: Final = tuple(
    b'{"purposes":%b,' % msgspec.json.encode(purposes_of(bits)) for bits in range(1 << len(PURPOSES))
)
"""How a clean event begins, by the bits of its purposes."""
_KEPT_FOR: Final = ~(1 << PURPOSES.index("personalise"))


def clean_event(event: EventRecord, state: UserState) -> bytes | None:
    """The JSON of `event` for the `events` topic, with its purposes; None if there are none.

    Data of a session-level user is kept nowhere past the session, so it is not published either.
    """
    purposes = state.purposes if state.level == Level.FULL else state.kept_for
    if not event.clean or not purposes & _KEPT_FOR:
        return None
    return _CLEAN_HEADS[purposes] + event.clean[1:]
