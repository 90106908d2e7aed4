"""The users of a bucket: their state, when they come due, how many have which key, and who is to be written again."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final, NamedTuple

from pyflink.common import Types
from pyflink.datastream import RuntimeContext
from pyflink.datastream.functions import KeyedProcessFunction
from pyflink.datastream.state import MapStateDescriptor

from schemas.errors import StateUnavailable
from udfs.due import RefreshSettings, next_due_ms
from udfs.elements import BucketMark, Element
from udfs.operators.due_keeper import DueChanges, DueKeeper
from udfs.operators.generation_keeper import GenerationKeeper, GenerationParts
from udfs.operators.kids_keeper import KidsKeeper
from udfs.operators.store_keeper import StoreKeeper
from udfs.personalise import Users, forget, relink
from udfs.profile import ProfileBounds
from udfs.state import UserState

ASKED_FOR_MAX: Final = 500_000
"""Of how many users a bucket's worker remembers that it has asked for their tombstone since it was started."""


class UserParts(NamedTuple):
    """What is kept of a user, when they come due, and how many of a bucket do within a second."""

    bounds: ProfileBounds
    refresh: RefreshSettings
    due_users_per_second: int


class UserWrites(NamedTuple):
    """What is to be done to the state of users: bytes to store, who is new among them, who goes, who comes due when.

    Of those who are new, the `renamed` were known before.
    """

    writes: list[tuple[str, bytes]]
    entered: list[str]
    renamed: list[str]
    erased: list[str]
    due: DueChanges


class UserKeeper:
    """Keeps the users of whichever bucket is being processed."""

    def __init__(
        self, context: RuntimeContext, parts: UserParts, generation: GenerationParts, store: StoreKeeper, relinked: Any
    ) -> None:
        names = Types.STRING(), Types.PICKLED_BYTE_ARRAY()
        self._state = context.get_map_state(MapStateDescriptor("users-v1", *names))
        self._parts, self._store, self._relinked = parts, store, relinked
        self._due = DueKeeper(context, parts.due_users_per_second)
        self.kids = KidsKeeper(context, self._state)
        self.generation = GenerationKeeper(context, generation, store.generation)
        self._asked_for: set[str] = set()

    def stored(self, pseudonym: str) -> bytes | None:
        """The bytes in state."""
        try:
            raw: bytes | None = self._state.get(pseudonym)
        except Exception as error:  # whatever Flink raises where state cannot be read: that is no record's fault
            raise StateUnavailable(f"state of a user could not be read: {type(error).__name__}") from error
        return raw

    def take_marks(self, marks: Sequence[BucketMark], ctx: KeyedProcessFunction.Context) -> bool:
        """Take marks in; where a generation's are complete, all users are to be written again, and it says so."""
        return self.generation.take(marks, self._state.keys, self.kids.kids, ctx)

    def are_any(self) -> bool:
        """Whether there is a user at all."""
        return not self._state.is_empty()

    def recall(self, element: Element, users: Users) -> dict[str, str]:
        """Before an element is applied: users are who they are now, and who has left is forgotten.

        Gives those who were moved, as current → previous pseudonym. What is in Redis moves along, also that of
        users without state whose consent changes: they may be erased.
        """
        links = element.links
        moved = relink(users, links)
        touched = {event.pseudonym for event in element.events} | {change.pseudonym for change in element.consents}
        self._forget(touched | links.keys(), links, users)
        strangers = {change.pseudonym for change in element.consents if users.get(change.pseudonym) is None}
        moved |= {pseudonym: links[pseudonym] for pseudonym in strangers & links.keys()}
        if moved:
            self._store.relink(moved)
            self._relinked.inc(len(moved))
        return moved

    def _forget(self, touched: set[str], links: dict[str, str], users: Users) -> None:
        """Before state that a snapshot may have brought back is used the first time, ask whether its user has left.

        Who has no state here yet cannot have come back with a snapshot, so a job that starts empty never asks.
        """
        touched -= self._asked_for
        if len(self._asked_for) + len(touched) > ASKED_FOR_MAX:
            self._asked_for.clear()
        self._asked_for |= touched
        names = {p: p for p in touched if users.get(p) is not None}
        names |= {links[p]: p for p in names if p in links}
        if names:
            found = self._store.tombstones(list(names))
            forget(users, [(names[known_as], tombstone) for known_as, tombstone in found.items()])

    def ask_again(self) -> None:
        """What tombstones had said went with an attempt that failed."""
        self._asked_for.clear()

    def is_put_off(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> bool:
        """At a timer: whether it comes so late that many others come with it, and waits for its turn."""
        if not self._due.is_put_off(timestamp, ctx):
            return False
        self.generation.come_back(ctx)
        return True

    def due(
        self, timestamp: int, users: Users, ctx: KeyedProcessFunction.OnTimerContext
    ) -> Iterator[tuple[str, UserState]]:
        """At a timer: the users whose time has come; they stand nowhere from now on."""
        return self._due.take(timestamp, users, ctx)

    def writes(self, users: Users, now_ms: int, relinked: Collection[str] = ()) -> UserWrites:
        """What to store of users who changed: the slot of the due index in which they stand is part of it."""
        bounds, refresh = self._parts.bounds, self._parts.refresh
        due = self._due.changes(users, lambda state: next_due_ms(state, now_ms, bounds, refresh))
        entered = users.entered()
        renamed = [pseudonym for pseudonym in entered if pseudonym in relinked]
        return UserWrites(users.writes(), entered, renamed, users.erased(), due)

    def put(self, users: UserWrites, ctx: KeyedProcessFunction.Context) -> None:
        """Store them."""
        self.kids.note(users.entered, users.erased)
        for pseudonym, raw in users.writes:
            self._state.put(pseudonym, raw)
        for pseudonym in users.erased:
            self._state.remove(pseudonym)
        self._due.put(users.due, users.erased, ctx)
        self.generation.forget(users.erased)
        self.generation.add(users.renamed)
