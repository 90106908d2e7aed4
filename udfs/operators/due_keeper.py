"""The shell part of :mod:`udfs.due_index`: a bucket's due index in keyed state, its timers and what a timer brings."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from pyflink.common import Types
from pyflink.datastream import RuntimeContext
from pyflink.datastream.state import MapStateDescriptor

from udfs.due_index import DueIndex, Entered
from udfs.personalise import Users
from udfs.state import UserState


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

    def take(self, timestamp: int, users: Users) -> Iterator[tuple[str, UserState]]:
        """At a timer: the users whose time has come; they stand nowhere from now on."""
        if not self._older.is_empty():
            self._index.move_older(lambda pseudonym: _slot_of(users.get(pseudonym)))
        for pseudonym in self._index.take(timestamp):
            state = users.get(pseudonym)
            if state is not None and state.due_slot == timestamp:
                state.due_slot = 0
                users.mark(pseudonym)
                yield pseudonym, state

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
