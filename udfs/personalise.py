"""The main rule: what one element does to a bucket's users. Pure: state comes in, writes go out.

Within an element consents are applied first (the two raw topics have no mutual order), then interactions as read.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple, Protocol

import msgspec

from schemas.consents import PURPOSES, Level, purposes_of
from schemas.rejects import Origin, Reject, RejectReason
from schemas.store import Placed
from udfs.account import Account
from udfs.consent import ConsentVerdict, apply_consent, comes_after, is_newer, withdraw
from udfs.elements import ConsentRecord, Element, EventRecord
from udfs.profile import Outcome, ProfileBounds, take
from udfs.state import Profile, UserState, decode_state, encode_state


class Users:
    """The users that an element touches: each decoded once, each written back once.

    `load` gives the stored bytes of a pseudonym, or None.
    """

    def __init__(self, load: Callable[[str], bytes | None]) -> None:
        self._load = load
        self._known: dict[str, UserState | None] = {}
        self._stored: dict[str, int] = {}
        """In which slot of the due index each stored user stood when they were loaded, 0 for none."""
        self._changed: set[str] = set()

    def get(self, pseudonym: str) -> UserState | None:
        """The user's state, or None where nothing is on record."""
        if pseudonym in self._known:
            return self._known[pseudonym]
        raw = self._load(pseudonym)
        state = self._known[pseudonym] = None if raw is None else decode_state(raw)
        if state is not None:
            self._stored[pseudonym] = state.due_slot
        return state

    def get_or_new(self, pseudonym: str) -> UserState:
        """The user's state; an empty one is put on record where there is none."""
        state = self.get(pseudonym)
        if state is None:
            state = self._known[pseudonym] = UserState()
        return state

    def mark(self, pseudonym: str) -> None:
        """Say that the user's state has changed."""
        self._changed.add(pseudonym)

    def rename(self, previous: str, current: str) -> None:
        """Keep under `current` what is kept under `previous`, unless something is kept there already."""
        state = self.get(previous)
        if state is not None and self.get(current) is None:
            # In the due index it stands under the name that it had.
            state.due_slot = 0
            self._known[current] = state
            self._changed.add(current)
        self.erase(previous)

    def erase(self, pseudonym: str) -> None:
        """Keep nothing of the user."""
        self.get(pseudonym)
        self._known[pseudonym] = None
        self._changed.add(pseudonym)

    def changed(self) -> dict[str, UserState]:
        """The states that changed."""
        return {pseudonym: state for pseudonym in self._changed if (state := self._known[pseudonym]) is not None}

    def writes(self) -> list[tuple[str, bytes]]:
        """What to store: (pseudonym, bytes) of the users that changed."""
        return [(pseudonym, encode_state(state)) for pseudonym, state in self.changed().items()]

    def erased(self) -> list[str]:
        """Whose stored bytes are to be removed."""
        return [pseudonym for pseudonym in self._changed & self._stored.keys() if self._known[pseudonym] is None]

    def entered(self) -> list[str]:
        """Who is to be stored for the first time."""
        return [pseudonym for pseudonym in self.changed() if pseudonym not in self._stored]

    def left(self) -> dict[int, set[str]]:
        """Who stands no more where they stood in the due index, by slot."""
        left: dict[int, set[str]] = {}
        for pseudonym in self._changed & self._stored.keys():
            slot, state = self._stored[pseudonym], self._known[pseudonym]
            if slot and (state is None or state.due_slot != slot):
                left.setdefault(slot, set()).add(pseudonym)
        return left


class Changes(NamedTuple):
    """What an element caused, for the shells to carry out.

    `consents` are those that came into force, `refused` those that never will. `moved` are the users whose list depends
    on what changed with the newest append time that moved each, `accepted` the interactions that were taken, `kept`
    those of users who deny to personalise: they are published, and no list heeds them. `denied` counts those that were
    not taken by user, and by "" those of all users of whom no consent is on record.
    """

    consents: list[ConsentRecord]
    refused: list[ConsentRecord]
    moved: dict[str, int]
    accepted: list[EventRecord]
    rejects: list[Reject]
    denied: dict[str, int]
    kept: list[EventRecord]


def apply(element: Element, users: Users, account: Account, bounds: ProfileBounds, interactions: str) -> Changes:
    """Apply `element` to `users` and `account`. `interactions` is the topic that its events came from."""
    changes = Changes([], [], {}, [], list(element.rejects), {}, [])
    _apply_consents(element, users, account, changes)
    for change in changes.consents:
        if _has_a_taste(users.get(change.pseudonym)):
            changes.moved[change.pseudonym] = change.append_ts
    for reject in element.rejects:
        if reject.origin.topic == interactions:
            account.reject(reject.reason)
        else:
            account.others_rejected += 1
    account.unknown_fields += element.unknown_fields
    for event in element.events:
        state = users.get(event.pseudonym)
        outcome = take(state, event, bounds)
        account.note(outcome)
        if outcome <= Outcome.MOVED:
            users.mark(event.pseudonym)
            (changes.kept if state is not None and state.kept_for else changes.accepted).append(event)
            if outcome == Outcome.MOVED:
                changes.moved[event.pseudonym] = max(event.append_ts, changes.moved.get(event.pseudonym, 0))
        elif outcome == Outcome.DENIED:
            name = "" if state is None else event.pseudonym
            changes.denied[name] = changes.denied.get(name, 0) + 1
        elif outcome == Outcome.TOO_LATE:
            origin = Origin(interactions, event.partition, event.offset, event.append_ts)
            changes.rejects.append(Reject(RejectReason.TOO_LATE, origin, event.schema_v))
    return changes


def _has_a_taste(state: UserState | None) -> bool:
    """A consent that changed took the old list away: a user who still has a profile gets a new one."""
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
    """Erasure leaves no state, and neither does a consent that is on record no more."""
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


class Gone(Placed, Protocol):
    """A withdrawal, or an erasure, as a tombstone tells of it."""

    @property
    def erased(self) -> bool: ...  # noqa: D102
    @property
    def said_at(self) -> int: ...  # noqa: D102


def forget(users: Users, tombstones: Iterable[tuple[str, Gone]]) -> None:
    """Drop what a restored snapshot still holds of users who have withdrawn, or were erased, after it was taken.

    The record that did it is read again, and then counts as it did the first time; until then nothing is used.
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


def is_fenced(change: ConsentRecord, tombstone: Gone) -> bool:
    """Whether the user has said no to everything later than they granted what `change` does."""
    return tombstone.said_at > change.said_at or comes_after(tombstone, change)


def withdraw_again(users: Users, refused: Iterable[ConsentRecord], account: Account, changes: Changes) -> set[str]:
    """Undo grants that Redis refused, because it knows of a withdrawal; returns of whom.

    Who has consented again behind such a grant, in the same element, keeps that consent and nothing from before. What
    was accepted in the element was denied.
    """
    undone = set()
    for change in refused:
        state = users.get(change.pseudonym)
        if state is None or state.profile is None:
            continue
        if (state.consent_partition, state.consent_offset) == (change.partition, change.offset):
            withdraw(state)
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


_PURPOSES_JSON: Final = tuple(msgspec.json.encode(purposes_of(bits)) for bits in range(1 << len(PURPOSES)))
_KEPT_FOR: Final = ~(1 << PURPOSES.index("personalise"))


def clean_event(event: EventRecord, state: UserState) -> bytes | None:
    """The JSON of `event` for the `events` topic with the purposes it may be used for; None where there are none.

    What a session-level user does is kept nowhere past the session, so it does not go there either.
    """
    purposes = state.purposes if state.level == Level.FULL else state.kept_for
    if not event.clean or not purposes & _KEPT_FOR:
        return None
    return b'{"purposes":%b,%b' % (_PURPOSES_JSON[purposes], event.clean[1:])
