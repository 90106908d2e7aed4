"""The shell part of :mod:`udfs.due_index`: a bucket's due index in keyed state, its timers and what a timer brings."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from pyflink.common import Types
from pyflink.datastream import RuntimeContext
from pyflink.datastream.state import MapStateDescriptor

from schemas.topics import MINUTE_MS
from udfs.due_index import DueIndex, Entered
from udfs.operators.timers import register_end_of
from udfs.personalise import Users
from udfs.state import UserState

LATE_MS: Final = MINUTE_MS
"""What is up to so late is worked off at once: a task that is busy, or was restarted."""
CATCH_UP_EVERY_MS: Final = 100
CATCH_UP_SLOTS: Final = 2
"""How many late slots of a bucket are worked off within that time. One of 50 users takes some 4 ms."""


class DueChanges(NamedTuple):
    """Who enters the due index, and who leaves their slots: `left` has them by slot."""

    entered: Entered
    left: dict[int, set[str]]


class DueKeeper:
    """Keeps the due index of whichever bucket is being processed. `slot_users_max` users come due in a second."""

    def __init__(self, context: RuntimeContext, slot_users_max: int) -> None:
        names = Types.STRING(), Types.PICKLED_BYTE_ARRAY()
        pages = context.get_map_state(MapStateDescriptor("due-v2", *names))
        self._older = context.get_map_state(MapStateDescriptor("due-v1", *names))
        self._index = DueIndex(pages, slot_users_max, self._older)
        self._spent: dict[Any, tuple[int, int]] = {}
        """By bucket key: the last tick in which late slots were worked off, and how many."""

    def is_put_off(self, timestamp: int, ctx: Any) -> bool:
        """At a timer: whether it comes so late that many others come with it, and what it brings waits for its turn."""
        now_ms = ctx.timer_service().current_processing_time()
        if timestamp >= now_ms - LATE_MS:
            return False
        if self._index.is_free(timestamp):
            self._index.take(timestamp)
        elif self._room(now_ms, ctx):
            self._spend(1, now_ms, ctx)
            return False
        else:
            self._index.put_off(timestamp)
        self._come_back(ctx)
        return True

    def take(self, timestamp: int, users: Users, ctx: Any) -> Iterator[tuple[str, UserState]]:
        """At a timer: the users whose time has come; they stand nowhere from now on."""
        if not self._older.is_empty():
            self._index.move_older(lambda pseudonym: _slot_of(users.get(pseudonym)))
        for slot in [timestamp, *self._waited(ctx)]:
            for pseudonym in self._index.take(slot):
                state = users.get(pseudonym)
                if state is not None and state.due_slot == slot:
                    state.due_slot = 0
                    users.mark(pseudonym)
                    yield pseudonym, state

    def _waited(self, ctx: Any) -> list[int]:
        """Slots that were put off and whose turn it is."""
        now_ms = ctx.timer_service().current_processing_time()
        slots = self._index.next_waiting(self._room(now_ms, ctx))
        self._spend(len(slots), now_ms, ctx)
        self._come_back(ctx)
        return slots

    def _come_back(self, ctx: Any) -> None:
        if self._index.is_behind():
            register_end_of(CATCH_UP_EVERY_MS, ctx)

    def _room(self, now_ms: int, ctx: Any) -> int:
        tick, spent = self._spent.get(ctx.get_current_key(), (0, 0))
        return CATCH_UP_SLOTS - spent if tick == now_ms // CATCH_UP_EVERY_MS else CATCH_UP_SLOTS

    def _spend(self, slots: int, now_ms: int, ctx: Any) -> None:
        spent = CATCH_UP_SLOTS - self._room(now_ms, ctx) + slots
        self._spent[ctx.get_current_key()] = now_ms // CATCH_UP_EVERY_MS, spent

    def changes(self, users: Users, due_of: Callable[[UserState], int | None]) -> DueChanges:
        """Where changed users come to stand, and who stands no more where they stood. Only reads state."""
        return DueChanges(self._index.add(users.changed(), due_of), users.left())

    def put(self, changes: DueChanges, erased: Sequence[str], ctx: Any) -> None:
        """Carry `changes` out; the `erased` are named nowhere any more."""
        self._index.put(changes.entered)
        for slot in changes.entered.slots:
            ctx.timer_service().register_processing_time_timer(slot)
        self._index.leave(changes.left)
        if erased:
            self._index.purge_older(set(erased))


def _slot_of(state: UserState | None) -> int:
    return 0 if state is None else state.due_slot
