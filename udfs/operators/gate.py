"""What operators ask before they write: whether it is the turn of their job (:mod:`udfs.handover`).

The job passes in :mod:`jobs.handover_gate`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from schemas.errors import Superseded
from schemas.store import (
    ConsentOutcome,
    ListWrite,
    PublishedUpdate,
    PublishOutcome,
    SimilarList,
    Tombstone,
    WriteOutcome,
    Written,
)
from udfs.audit_chain import ChainHead
from udfs.elements import ConsentRecord, Element
from udfs.handover import ALWAYS, Term, split
from udfs.operators.list_store import ListStore


class WriteGate(Protocol):
    """The turn of the job of this worker; it changes at any moment."""

    @property
    def turn(self) -> Term:
        """The turn as far as it is known."""
        ...

    def start(self) -> None:
        """Called when an operator opens: returns once the turn is known."""
        ...

    def stop(self) -> None:
        """Called when it closes."""
        ...

    def join(self, subtask: int, newest_ms: Callable[[], int]) -> None:
        """Let `subtask` take part in agreements; `newest_ms` is the append time of its newest record."""
        ...

    def settled(self) -> Term:
        """The turn, once it is decided. Waits."""
        ...

    def parents(self) -> Mapping[int, ChainHead] | None:
        """The last audit records of the job that was followed, by bucket; None while they are not known."""
        ...


class OpenGate:
    """The gate of a job that nobody follows and that follows nobody."""

    turn: Final = ALWAYS

    def start(self) -> None:
        """Nothing to wait for."""

    def stop(self) -> None:
        """Nothing to end."""

    def join(self, subtask: int, newest_ms: Callable[[], int]) -> None:
        """Nobody asks."""

    def settled(self) -> Term:
        """See :class:`WriteGate`."""
        return ALWAYS

    def parents(self) -> Mapping[int, ChainHead]:
        """Nobody was followed."""
        return {}


OPEN: Final = OpenGate()


def open_always() -> WriteGate:
    """A gate that is always open."""
    return OPEN


def subtask_of(context: Any) -> int:
    """The number of the subtask with this runtime context."""
    in_thread_mode = getattr(context, "_runtime_context", None)
    if in_thread_mode is None:
        return int(context.get_index_of_this_subtask())
    return int(in_thread_mode.getTaskInfo().getIndexOfThisSubtask())  # PyFlink 2.2 asks where Flink 2 does not answer


def expect_turn(turn: Term) -> None:
    """Raise :class:`Superseded` if the job has been followed by another, and must end."""
    if turn.is_over:
        raise Superseded(
            "another job has taken over from this one (`freshet take-over`): nothing that this one does counts any "
            "more, and it ends; cancel it if Flink starts it again"
        )


Elements = Mapping[int, Element]
"""Elements by bucket key."""


def in_turns(elements: Elements, gate: WriteGate, newest_ms: int) -> Sequence[tuple[Elements, bool]]:
    """`elements`, or their two parts, each with whether the job writes what follows from it.

    `newest_ms` is the append time of their newest record.
    """
    turn = gate.turn
    if turn is ALWAYS:
        return ((elements, True),)
    expect_turn(turn)
    if turn.undecided and newest_ms >= turn.cut_ms:
        turn = gate.settled()
    before: dict[int, Element] = {}
    after: dict[int, Element] = {}
    for key, element in elements.items():
        earlier, later = split(element, turn.cut_ms)
        before |= {} if earlier is None else {key: earlier}
        after |= {} if later is None else {key: later}
    parts = (before, turn.writes(turn.cut_ms - 1)), (after, turn.writes(turn.cut_ms))
    return [(part, writes) for part, writes in parts if part]


def if_its_turn(gate: WriteGate, now_ms: int, outputs: Iterable[Any]) -> Iterator[Any]:
    """`outputs` of a timer, which has to run in either case; nothing, if another job has this turn."""
    for output in outputs:
        if gate.turn.writes_now(now_ms):
            yield output


class SilentStore:
    """A :class:`ListStore` that only reads `store`: what is written to it counts as written.

    It shows no tombstones: the job whose turn it is may have written them for records that this one has not read yet,
    and then its state would not become that of the other. Before it writes, it checks them all.
    """

    def __init__(self, store: ListStore) -> None:
        self._store = store
        self.outage_max_ms = store.outage_max_ms

    def current_generation(self) -> str:
        """The generation, which only a job in its turn may renew: "" stands for one that nobody has proven."""
        return ""

    def write(
        self, consents: Sequence[ConsentRecord], lists: Sequence[ListWrite], want_popular: bool, token: str
    ) -> Written:
        """See :class:`ListStore`."""
        popular = self._store.write([], [], True, token).popular if want_popular else None
        return Written([ConsentOutcome.IN_FORCE] * len(consents), [WriteOutcome.WRITTEN] * len(lists), popular)

    def forget(self, pseudonyms: Sequence[str]) -> None:
        """See :class:`ListStore`."""

    def tombstones(self, pseudonyms: Sequence[str]) -> dict[str, Tombstone]:
        """See :class:`ListStore`."""
        return {}

    def relink(self, links: Mapping[str, str]) -> None:
        """See :class:`ListStore`."""

    def write_popular(self, segment: str, epoch: int, version: int, ttl_ms: int, payload: bytes) -> WriteOutcome:
        """See :class:`ListStore`."""
        return WriteOutcome.WRITTEN

    def write_similar(self, lists: Sequence[SimilarList], ttl_ms: int) -> list[WriteOutcome]:
        """See :class:`ListStore`."""
        return [WriteOutcome.WRITTEN] * len(lists)

    def publish_update(self, sequence: int, after: int, update: bytes) -> PublishOutcome:
        """See :class:`ListStore`."""
        return PublishOutcome.PUBLISHED

    def publish_whole(self, sequence: int, whole: bytes) -> PublishOutcome:
        """See :class:`ListStore`."""
        return PublishOutcome.PUBLISHED

    def update_after(self, sequence: int) -> PublishedUpdate:
        """See :class:`ListStore`."""
        return self._store.update_after(sequence)

    def whole_model(self) -> bytes | None:
        """See :class:`ListStore`."""
        return self._store.whole_model()

    def relearned(self, request: str, part: str) -> bytes | None:
        """See :class:`ListStore`."""
        return self._store.relearned(request, part)

    def confirm_relearned(self, request: str) -> None:
        """See :class:`ListStore`."""


class ClockedStore:
    """A :class:`ListStore` that writes to `store` while the clock says that it is the turn of the job."""

    def __init__(self, store: ListStore, gate: WriteGate, clock_ms: Callable[[], int]) -> None:
        self._store, self._silent, self._gate, self._clock_ms = store, SilentStore(store), gate, clock_ms
        self.outage_max_ms = store.outage_max_ms

    def __getattr__(self, name: str) -> Any:
        turn = self._gate.turn
        return getattr(self._store if turn is ALWAYS or turn.writes_now(self._clock_ms()) else self._silent, name)
