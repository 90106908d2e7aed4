"""The index of due users returns them at a bounded rate, and removes outdated entries."""

from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.fakes import DictState
from tests.support.vocabulary import BEGINNING, HOUR, MINUTE, SECOND, a_user
from udfs.due_index import SLOT_MS, DueIndex
from udfs.state import UserState

pytestmark = pytest.mark.privacy


class Slots:
    """A due index with its timers: `advance` processes the slots in the order of time."""

    def __init__(self, slot_users_max: int) -> None:
        self.pages, self.older = DictState[str, bytes](), DictState[str, bytes]()
        self.index = DueIndex(self.pages, slot_users_max, self.older)
        self.timers: set[int] = set()
        self.users: dict[str, UserState] = {}
        self.due: dict[str, int] = {}
        self.taken: dict[str, int] = {}
        self.largest = 0

    def enter(self, **due_at: int) -> None:
        for name in due_at:
            self.users.setdefault(name, a_user())
        self.due |= due_at
        entering = {name: self.users[name] for name in due_at}
        by_state = {id(state): name for name, state in entering.items()}
        stood = {name: state.due_slot for name, state in entering.items()}
        before = {**self.pages.data}
        entered = self.index.add(entering, lambda state: due_at[by_state[id(state)]])
        assert self.pages.data == before, "an element that fails leaves nothing behind"
        self.index.put(entered)
        self.timers |= entered.slots
        for name, slot in stood.items():
            if slot not in (0, entering[name].due_slot):
                self.index.leave({slot: {name}})

    def purge(self, names: set[str]) -> None:
        """Delete users as an erasure does: from their page, and from all older pages."""
        for name in names & self.users.keys():
            self.index.leave({self.users[name].due_slot: {name}})
        self.index.purge_older(names)

    def as_before(self) -> None:
        """State of a release with pages in `due-v1`: names also where their users had been before."""
        for key, page in self.pages.items():
            self.older.put(key, page)
        self.pages.clear()
        for name, state in self.users.items():
            for slot in {int(key) for key in self.older if not key.startswith("m")} - {state.due_slot}:
                if crc32(f"{name} {slot}".encode()) % 3 == 0:
                    self.older.put(str(slot), self.older[str(slot)] + b"\n" + name.encode())

    def names(self) -> dict[str, list[int]]:
        """The pages that contain the name of each user."""
        found: dict[str, list[int]] = {}
        for pages in (self.pages, self.older):
            for key, page in pages.items():
                for name in [] if key.startswith("m") else page.decode().split("\n"):
                    found.setdefault(name, []).append(int(key))
        return found

    def advance(self) -> None:
        while self.timers:
            slot = min(self.timers)
            self.timers.remove(slot)
            came = self.index.take(slot)
            self.largest = max(self.largest, len(came))
            for name in came:
                if self.users[name].due_slot == slot:
                    assert name not in self.taken, "a user is in one slot"
                    self.taken[name] = slot


dues = st.dictionaries(
    st.integers(0, 60).map("u{}".format), st.integers(0, 5 * 60).map(lambda n: BEGINNING + n * SECOND), max_size=40
)


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(dues, max_size=4), st.integers(1, 3))
def test_users_come_due_once_and_on_time(batches: list[dict[str, int]], size: int) -> None:
    slots = Slots(size)
    for batch in batches:
        later_is_ignored = {name: due for name, due in batch.items() if due < slots.due.get(name, 2**53)}
        slots.enter(**later_is_ignored)
    entered = sum(len(batch) for batch in batches)
    slots.advance()
    assert slots.taken.keys() == slots.due.keys()
    for name, slot in slots.taken.items():
        assert slot % SLOT_MS == 0
        assert slot - slots.due[name] < 2 * MINUTE + (entered // size + 1) * SLOT_MS
    assert slots.largest <= size
    assert dict(slots.pages) == {}


def test_a_single_user_waits_for_the_end_of_the_minute() -> None:
    slots = Slots(1)
    slots.enter(ada=BEGINNING + SECOND, bob=BEGINNING)
    slots.advance()
    assert slots.taken == {"ada": BEGINNING + MINUTE, "bob": BEGINNING}


def test_user_due_later_keeps_their_slot() -> None:
    slots = Slots(1)
    slots.enter(ada=BEGINNING)
    slots.enter(ada=BEGINNING + HOUR)
    assert slots.users["ada"].due_slot == BEGINNING
    slots.advance()
    assert dict(slots.pages) == {}


def test_user_due_earlier_is_moved() -> None:
    slots = Slots(1)
    slots.enter(ada=BEGINNING + HOUR)
    slots.enter(ada=BEGINNING + MINUTE)
    slots.advance()
    assert slots.taken == {"ada": BEGINNING + MINUTE}
    assert dict(slots.pages) == {}


@settings(max_examples=examples(40), deadline=None)
@given(dues, dues, st.sets(st.integers(0, 60).map("u{}".format)))
def test_user_is_in_the_page_of_their_slot_only(
    first: dict[str, int], second: dict[str, int], purged: set[str]
) -> None:
    slots = Slots(2)
    slots.enter(**first)
    slots.enter(**second)
    assert slots.names() == {name: [state.due_slot] for name, state in slots.users.items()}
    slots.purge(purged)
    assert not purged & slots.names().keys()
    entered = slots.due.keys()
    slots.advance()
    assert slots.taken.keys() == entered - purged
    assert dict(slots.pages) == {}


@settings(max_examples=examples(60), deadline=None)
@given(dues, dues, st.sets(st.integers(0, 60).map("u{}".format)), st.integers(0, 3))
def test_older_pages_drop_erased_users_and_yield_others_once(
    first: dict[str, int], second: dict[str, int], purged: set[str], moved_over: int
) -> None:
    slots = Slots(2)
    slots.enter(**first)
    slots.as_before()
    slots.enter(**second)
    for _ in range(moved_over):
        slots.index.move_older(lambda name: slots.users[name].due_slot)
    slots.purge(purged)
    assert not purged & slots.names().keys()
    slots.advance()
    assert slots.taken.keys() == slots.due.keys() - purged
    assert (dict(slots.pages), dict(slots.older)) == ({}, {})


@settings(max_examples=examples(40), deadline=None)
@given(dues)
def test_migrated_pages_hold_users_once_and_stay_full(users: dict[str, int]) -> None:
    slots = Slots(1)
    slots.enter(**users)
    full = dict(slots.pages)
    slots.as_before()
    while slots.older:
        slots.index.move_older(lambda name: slots.users[name].due_slot)
    assert dict(slots.pages) == full


def test_full_minute_overflows_to_the_next() -> None:
    slots = Slots(2)
    slots.enter(**{f"a{n}": BEGINNING for n in range(250)})
    slots.enter(**{f"b{n}": BEGINNING + MINUTE for n in range(50)})
    slots.advance()
    assert slots.largest == 2
    assert max(slots.taken.values()) < BEGINNING + 3 * MINUTE
    assert len(slots.taken) == 300
    assert dict(slots.pages) == {}


def test_user_in_overfull_minute_is_not_entered_twice() -> None:
    slots = Slots(1)
    slots.enter(**{f"a{n}": BEGINNING for n in range(150)})
    known = dict(slots.pages)
    slots.enter(**{f"a{n}": BEGINNING for n in range(150)})
    assert dict(slots.pages) == known


def test_entering_after_full_minutes_costs_constant_reads() -> None:
    slots, reads = Slots(1), []
    for number in range(60 * 50):
        before = slots.pages.reads
        slots.enter(**{f"a{number}": BEGINNING})
        reads.append(slots.pages.reads - before)
    assert max(reads) <= 6
    slots.advance()
    assert max(slots.taken.values()) == BEGINNING + (60 * 50 - 1) * SLOT_MS, "and no slot is left free"


def test_pages_match_golden_bytes() -> None:
    slots = Slots(1)
    slots.enter(ada=BEGINNING, bob=BEGINNING)
    assert dict(slots.pages) == {
        f"m{BEGINNING}": b"2 %d" % (BEGINNING + MINUTE),
        str(BEGINNING): b"ada",
        str(BEGINNING + SLOT_MS): b"bob",
    }


@given(st.lists(st.one_of(st.integers(1, 400).map(lambda n: [n]), st.integers(0, 60)), max_size=12))
def test_postponed_slots_return_once_in_order(steps: list[list[int] | int]) -> None:
    slots, defer, came = Slots(1), list[int](), list[int]()
    for step in steps:
        if isinstance(step, int):
            came += slots.index.take_deferred(step)
        else:
            for _ in range(step[0]):
                defer.append(BEGINNING + len(defer) * SLOT_MS)
                slots.index.defer(defer[-1])
        assert slots.index.has_deferred() == (len(came) < len(defer))
        assert max(map(len, slots.pages.data.values()), default=0) < 2_000, "a long queue is not written anew for each"
    while slots.index.has_deferred():
        came += slots.index.take_deferred(7)
    assert came == defer
    assert dict(slots.pages) == {}
