"""The rule of the journey's middle: what one element does to a bucket's users. Pure: state comes in, writes go out.

Within an element consents are applied first (the two raw topics have no mutual order), then interactions as read.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from schemas.consents import PURPOSES, Level
from schemas.rejects import Origin, Reject, RejectReason
from udfs.account import Account
from udfs.consent import apply_consent
from udfs.elements import ConsentRecord, Element, EventRecord
from udfs.profile import Outcome, ProfileBounds, take
from udfs.state import UserState, decode_state, encode_state


class Users:
    """The users that an element touches: each decoded once, each written back once.

    `load` gives the stored bytes of a pseudonym, or None.
    """

    def __init__(self, load: Callable[[str], bytes | None]) -> None:
        self._load = load
        self._known: dict[str, UserState | None] = {}
        self._changed: set[str] = set()

    def get(self, pseudonym: str) -> UserState | None:
        """The user's state, or None where nothing is on record."""
        if pseudonym in self._known:
            return self._known[pseudonym]
        raw = self._load(pseudonym)
        state = self._known[pseudonym] = None if raw is None else decode_state(raw)
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

    def changed(self) -> dict[str, UserState]:
        """The states that changed."""
        return {pseudonym: state for pseudonym in self._changed if (state := self._known[pseudonym]) is not None}

    def writes(self) -> list[tuple[str, bytes]]:
        """What to store: (pseudonym, bytes) of the users that changed."""
        return [(pseudonym, encode_state(state)) for pseudonym, state in self.changed().items()]


class Changes(NamedTuple):
    """What an element caused, for the shells to carry out.

    `consents` are those that came into force, `moved` the users whose list depends on what changed with the newest
    append time that moved each, `accepted` the interactions that were taken.
    """

    consents: list[ConsentRecord]
    moved: dict[str, int]
    accepted: list[EventRecord]
    rejects: list[Reject]


def apply(element: Element, users: Users, account: Account, bounds: ProfileBounds, interactions: str) -> Changes:
    """Apply `element` to `users` and `account`. `interactions` is the topic that its events came from."""
    changes = Changes(_apply_consents(element, users, account), {}, [], element.rejects)
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
        outcome = take(users.get(event.pseudonym), event, bounds)
        account.note(outcome)
        if outcome <= Outcome.MOVED:
            users.mark(event.pseudonym)
            changes.accepted.append(event)
            if outcome == Outcome.MOVED:
                changes.moved[event.pseudonym] = max(event.append_ts, changes.moved.get(event.pseudonym, 0))
        elif outcome == Outcome.TOO_LATE:
            origin = Origin(interactions, event.partition, event.offset, event.append_ts)
            changes.rejects.append(Reject(RejectReason.TOO_LATE, origin, event.schema_v))
    return changes


def _has_a_taste(state: UserState | None) -> bool:
    """A consent that changed took the old list away: a user who still has a profile gets a new one."""
    return state is not None and state.profile is not None and bool(state.profile.recents)


def _apply_consents(element: Element, users: Users, account: Account) -> list[ConsentRecord]:
    in_force = []
    for change in element.consents:
        if apply_consent(users.get_or_new(change.pseudonym), change):
            users.mark(change.pseudonym)
            account.consents_applied += 1
            in_force.append(change)
        else:
            account.consents_replayed += 1
    return in_force


_PURPOSES_JSON: Final = tuple(
    b"[" + b",".join(b'"%b"' % name.encode() for place, name in enumerate(PURPOSES) if bits >> place & 1) + b"]"
    for bits in range(1 << len(PURPOSES))
)
_KEPT_FOR: Final = ~(1 << PURPOSES.index("personalise"))


def clean_event(event: EventRecord, state: UserState) -> bytes | None:
    """The JSON of `event` for the `events` topic with the purposes it may be used for; None where there are none.

    What a session-level user does is kept nowhere past the session, so it does not go there either.
    """
    if not event.clean or state.level != Level.FULL or not state.purposes & _KEPT_FOR:
        return None
    return b'{"purposes":%b,%b' % (_PURPOSES_JSON[state.purposes], event.clean[1:])
