"""Keeps a bucket's due index (:mod:`udfs.due_index`) in Flink's keyed state, and handles its timers."""

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
"""Slots no later than this are processed at once: the task is busy, or has just restarted."""
CATCH_UP_EVERY_MS: Final = 100
CATCH_UP_SLOTS: Final = 2
"""How many late slots of a bucket are processed per :data:`CATCH_UP_EVERY_MS`. A slot of 50 users takes about 4 ms."""


class DueChanges(NamedTuple):
    """Users entering the due index, and users leaving their slots: `left` is by slot."""

    entered: Entered
    left: dict[int, set[str]]


class DueKeeper:
    """The due index of the bucket being processed. At most `slot_users_max` users come due per second."""

    def __init__(self, context: RuntimeContext, slot_users_max: int) -> None:
        names = Types.STRING(), Types.PICKLED_BYTE_ARRAY()
        pages = context.get_map_state(MapStateDescriptor("due-v2", *names))
        self._older = context.get_map_state(MapStateDescriptor("due-v1", *names))
        self._index = DueIndex(pages, slot_users_max, self._older)
        self._spent: dict[Any, tuple[int, int]] = {}
        """By bucket key: the last tick in which late slots were processed, and how many."""

    def defer_if_late(self, timestamp: int, ctx: Any) -> bool:
        """At a timer: defer its slot if it is late and the budget is spent; True if nothing is left to do now."""
        now_ms = ctx.timer_service().current_processing_time()
        if timestamp >= now_ms - LATE_MS:
            return False
        if self._index.is_free(timestamp):
            self._index.take(timestamp)
        elif self._budget_left(now_ms, ctx):
            self._spend(1, now_ms, ctx)
            return False
        else:
            self._index.defer(timestamp)
        self._schedule_catch_up(ctx)
        return True

    def take(self, timestamp: int, users: Users, ctx: Any) -> Iterator[tuple[str, UserState]]:
        """At a timer: remove the users that are due from the index, and yield them."""
        if not self._older.is_empty():
            self._index.move_older(lambda pseudonym: _slot_of(users.get(pseudonym)))
        for slot in [timestamp, *self._take_deferred(ctx)]:
            for pseudonym in self._index.take(slot):
                state = users.get(pseudonym)
                if state is not None and state.due_slot == slot:
                    state.due_slot = 0
                    users.mark(pseudonym)
                    yield pseudonym, state

    def _take_deferred(self, ctx: Any) -> list[int]:
        """Remove the deferred slots that may be processed now."""
        now_ms = ctx.timer_service().current_processing_time()
        slots = self._index.take_deferred(self._budget_left(now_ms, ctx))
        self._spend(len(slots), now_ms, ctx)
        self._schedule_catch_up(ctx)
        return slots

    def _schedule_catch_up(self, ctx: Any) -> None:
        if self._index.has_deferred():
            register_end_of(CATCH_UP_EVERY_MS, ctx)

    def _budget_left(self, now_ms: int, ctx: Any) -> int:
        tick, spent = self._spent.get(ctx.get_current_key(), (0, 0))
        return CATCH_UP_SLOTS - spent if tick == now_ms // CATCH_UP_EVERY_MS else CATCH_UP_SLOTS

    def _spend(self, slots: int, now_ms: int, ctx: Any) -> None:
        spent = CATCH_UP_SLOTS - self._budget_left(now_ms, ctx) + slots
        self._spent[ctx.get_current_key()] = now_ms // CATCH_UP_EVERY_MS, spent

    def changes(self, users: Users, due_of: Callable[[UserState], int | None]) -> DueChanges:
        """Find new slots for changed users, and the slots that users leave. Only reads state."""
        return DueChanges(self._index.add(users.changed(), due_of), users.left())

    def put(self, changes: DueChanges, erased: Sequence[str], ctx: Any) -> None:
        """Write `changes` to state, and remove every trace of `erased` users from the index."""
        self._index.put(changes.entered)
        for slot in changes.entered.slots:
            ctx.timer_service().register_processing_time_timer(slot)
        self._index.leave(changes.left)
        if erased:
            self._index.purge_older(set(erased))


def _slot_of(state: UserState | None) -> int:
    return 0 if state is None else state.due_slot
