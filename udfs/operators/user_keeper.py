"""The users of a bucket: their state, due times, counts per key id, and who must be rewritten to Redis."""

import functools
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

TOMBSTONES_CHECKED_MAX: Final = 500_000
"""For how many users a worker remembers that it has already checked their tombstones."""


class UserParts(NamedTuple):
    """Bounds of a profile, when users come due, and how many users of a bucket may come due per second."""

    bounds: ProfileBounds
    refresh: RefreshSettings
    due_users_per_second: int


class UserWrites(NamedTuple):
    """Pending changes to the state of users.

    `writes` are the bytes to store. `entered` are stored for the first time; of these, `renamed` had another name
    before.
    """

    writes: list[tuple[str, bytes]]
    entered: list[str]
    renamed: list[str]
    erased: list[str]
    due: DueChanges


class UserKeeper:
    """Keeps the users of the bucket being processed."""

    def __init__(
        self, context: RuntimeContext, parts: UserParts, generation: GenerationParts, store: StoreKeeper, relinked: Any
    ) -> None:
        names = Types.STRING(), Types.PICKLED_BYTE_ARRAY()
        self._state = context.get_map_state(MapStateDescriptor("users-v1", *names))
        self._parts, self._store, self._relinked = parts, store, relinked
        self._due = DueKeeper(context, parts.due_users_per_second)
        self.kids = KidsKeeper(context, self._state)
        self.generation = GenerationKeeper(context, generation, store.generation)
        self._tombstones_checked: set[str] = set()

    def stored(self, pseudonym: str) -> bytes | None:
        """A user's bytes in state."""
        try:
            raw: bytes | None = self._state.get(pseudonym)
        except Exception as error:  # any error of Flink's state: no record is at fault
            raise StateUnavailable(f"state of a user could not be read: {type(error).__name__}") from error
        return raw

    def take_marks(self, marks: Sequence[BucketMark], ctx: KeyedProcessFunction.Context) -> bool:
        """Process marks; returns True if they complete a generation, and schedules all users to be rewritten."""
        return self.generation.take(marks, self._state.keys, self.kids.kids, ctx)

    def has_users(self) -> bool:
        """Whether the bucket has users."""
        return not self._state.is_empty()

    def recall(self, element: Element, users: Users) -> dict[str, str]:
        """Before an element is applied: rename users to their current pseudonyms, and drop those who have left.

        Returns the renamed users as current → previous pseudonym. Their keys in Redis are moved as well, also for users
        without state whose consent changes: the change may be their erasure.
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
        """At the first use of a user's state, check their tombstone: a snapshot may have restored a user who has left.

        Users without state cannot come from a snapshot, so a job that starts empty never asks.
        """
        touched -= self._tombstones_checked
        if len(self._tombstones_checked) + len(touched) > TOMBSTONES_CHECKED_MAX:
            self._tombstones_checked.clear()
        self._tombstones_checked |= touched
        names = {p: p for p in touched if users.get(p) is not None}
        names |= {links[p]: p for p in names if p in links}
        if names:
            found = self._store.tombstones(list(names))
            forget(users, [(names[known_as], tombstone) for known_as, tombstone in found.items()])

    def recheck_tombstones(self) -> None:
        """Check tombstones again: a failed attempt has lost their effect."""
        self._tombstones_checked.clear()

    def defer_if_late(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> bool:
        """At a timer: defer it if it is late and its turn has not come; True if there is nothing to do now."""
        if not self._due.defer_if_late(timestamp, ctx):
            return False
        self.generation.register_timers(ctx)
        return True

    def due(
        self, timestamp: int, users: Users, ctx: KeyedProcessFunction.OnTimerContext
    ) -> Iterator[tuple[str, UserState]]:
        """At a timer: remove the users that are due from the index, and yield them."""
        return self._due.take(timestamp, users, ctx)

    def writes(self, users: Users, now_ms: int, relinked: Collection[str] = ()) -> UserWrites:
        """Pending writes of the changed users; also moves them to their new slots in the due index."""
        due_of = functools.partial(next_due_ms, now_ms=now_ms, bounds=self._parts.bounds, refresh=self._parts.refresh)
        due = self._due.changes(users, due_of)
        entered = users.entered()
        renamed = [pseudonym for pseudonym in entered if pseudonym in relinked]
        return UserWrites(users.writes(), entered, renamed, users.erased(), due)

    def put(self, users: UserWrites, ctx: KeyedProcessFunction.Context) -> None:
        """Store the changes."""
        self.kids.note(users.entered, users.erased)
        for pseudonym, raw in users.writes:
            self._state.put(pseudonym, raw)
        for pseudonym in users.erased:
            self._state.remove(pseudonym)
        self._due.put(users.due, users.erased, ctx)
        self.generation.forget(users.erased)
        self.generation.add(users.renamed)
