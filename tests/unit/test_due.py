"""What becomes due without an event, and the index that brings it at a bounded rate."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.consents import Level
from tests.support.fakes import DictState
from tests.support.vocabulary import BEGINNING, DAY, HOUR, MINUTE, SECOND, a_user
from udfs.due import REFRESH_AT, SLOT_MS, Due, DueIndex, RefreshSettings, next_due_ms, when_due
from udfs.profile import ProfileBounds
from udfs.state import Profile, UserState

pytestmark = pytest.mark.privacy

BOUNDS, REFRESH = ProfileBounds(), RefreshSettings()
NOW = BEGINNING + 100 * DAY
FORGETS = (Due.FORGET, Due.EXPIRED)


def someone(level: str = "full", idle_ms: int = 0, **fields: int) -> UserState:
    """A user who was last active `idle_ms` before NOW."""
    return a_user(level, profile=Profile(active_at=NOW - idle_ms), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state", "due_in_ms"),
    [
        (someone("session", idle_ms=MINUTE), BOUNDS.session_gap_ms - MINUTE),
        (someone("full", idle_ms=HOUR), int(REFRESH_AT * REFRESH.list_ttl_ms)),
        (someone("full", idle_ms=REFRESH.active_within_ms + 1), None),
        (someone("full", expires_at=NOW + MINUTE), MINUTE),
        (someone("session", expires_at=NOW + DAY), BOUNDS.session_gap_ms),
    ],
    ids=["session ends", "list ages", "profile idles", "consent expires", "session ends before consent"],
)
def test_when_a_user_is_looked_at_next(state: UserState, due_in_ms: int | None) -> None:
    expected = BOUNDS.idle_profile_ttl_ms - REFRESH.active_within_ms - 1 if due_in_ms is None else due_in_ms
    assert next_due_ms(state, NOW, BOUNDS, REFRESH) == NOW + expected


def test_who_has_no_profile_is_never_due() -> None:
    assert next_due_ms(a_user("none"), NOW, BOUNDS, REFRESH) is None
    assert when_due(a_user("none"), NOW, BOUNDS, REFRESH) == Due.NOTHING


@pytest.mark.parametrize(
    ("state", "due"),
    [
        (someone("session", idle_ms=BOUNDS.session_gap_ms), Due.FORGET),
        (someone("session", idle_ms=BOUNDS.session_gap_ms - 1), Due.NOTHING),
        (someone("full", idle_ms=REFRESH.active_within_ms), Due.REFRESH),
        (someone("full", idle_ms=REFRESH.active_within_ms + 1), Due.NOTHING),
        (someone("full", idle_ms=BOUNDS.idle_profile_ttl_ms), Due.FORGET),
        (someone("full", expires_at=NOW), Due.EXPIRED),
        (someone("full", expires_at=NOW + 1), Due.REFRESH),
    ],
)
def test_what_is_done_when_it_is_due(state: UserState, due: Due) -> None:
    version = state.version
    assert when_due(state, NOW, BOUNDS, REFRESH) == due
    assert (state.profile is None) == (due in FORGETS)
    assert state.version == version + (due in FORGETS)


def test_an_expired_consent_is_withdrawn_but_an_ended_session_leaves_the_consent() -> None:
    expired, ended = someone("full", expires_at=NOW), someone("session", idle_ms=HOUR)
    for state in (expired, ended):
        when_due(state, NOW, BOUNDS, REFRESH)
    assert (expired.level, expired.purposes, ended.level) == (Level.NONE, 0, Level.SESSION)


@given(st.sampled_from(["session", "full"]), st.integers(0, 100 * DAY), st.integers(0, 2 * DAY) | st.none())
def test_the_next_look_always_lies_ahead_unless_something_is_due_already(
    level: str, idle_ms: int, expires_in_ms: int | None
) -> None:
    state = someone(level, idle_ms, expires_at=0 if expires_in_ms is None else NOW + 1 + expires_in_ms)
    if when_due(state, NOW, BOUNDS, REFRESH) not in FORGETS:
        due = next_due_ms(state, NOW, BOUNDS, REFRESH)
        assert due is not None and due > NOW, "or the same slot would be entered again and again"


class Slots:
    """A due index with its timers: `advance` takes the slots in the order of time."""

    def __init__(self, slot_users_max: int) -> None:
        self.pages = DictState[str, bytes]()
        self.index = DueIndex(self.pages, slot_users_max)
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
        self.timers |= self.index.add(entering, lambda state: due_at[by_state[id(state)]])

    def advance(self) -> None:
        while self.timers:
            slot = min(self.timers)
            self.timers.remove(slot)
            came = self.index.take(slot)
            self.largest = max(self.largest, len(came))
            for name in came:
                if self.users[name].due_slot == slot:
                    assert name not in self.taken, "a user stands in one slot"
                    self.taken[name] = slot


dues = st.dictionaries(
    st.integers(0, 60).map("u{}".format), st.integers(0, 5 * 60).map(lambda n: BEGINNING + n * SECOND), max_size=40
)


@settings(max_examples=60, deadline=None)
@given(st.lists(dues, max_size=4), st.integers(1, 3))
def test_every_user_comes_once_not_before_due_and_soon_after(batches: list[dict[str, int]], size: int) -> None:
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


def test_a_user_who_becomes_due_later_stays_where_they_stand() -> None:
    slots = Slots(1)
    slots.enter(ada=BEGINNING)
    slots.enter(ada=BEGINNING + HOUR)
    assert slots.users["ada"].due_slot == BEGINNING
    slots.advance()
    assert dict(slots.pages) == {}


def test_a_user_who_becomes_due_earlier_is_moved() -> None:
    slots = Slots(1)
    slots.enter(ada=BEGINNING + HOUR)
    slots.enter(ada=BEGINNING + MINUTE)
    slots.advance()
    assert slots.taken == {"ada": BEGINNING + MINUTE}
    assert dict(slots.pages) == {}


@settings(max_examples=40, deadline=None)
@given(dues, dues, st.sets(st.integers(0, 60).map("u{}".format)))
def test_purged_users_stand_nowhere_and_the_others_come_as_before(
    first: dict[str, int], second: dict[str, int], purged: set[str]
) -> None:
    slots = Slots(2)
    slots.enter(**first)
    slots.enter(**second)
    slots.index.purge(purged)
    assert not purged & {name for page in slots.pages.values() for name in page.decode().split("\n")}
    entered = slots.due.keys()
    slots.advance()
    assert slots.taken.keys() == entered - purged
    assert dict(slots.pages) == {}


def test_a_minute_that_is_full_passes_on_to_the_next_and_no_slot_gets_more_than_its_share() -> None:
    slots = Slots(2)
    slots.enter(**{f"a{n}": BEGINNING for n in range(250)})
    slots.enter(**{f"b{n}": BEGINNING + MINUTE for n in range(50)})
    slots.advance()
    assert slots.largest == 2
    assert max(slots.taken.values()) < BEGINNING + 3 * MINUTE
    assert len(slots.taken) == 300
    assert dict(slots.pages) == {}


def test_who_waits_in_an_overfull_minute_is_not_entered_again_with_every_event() -> None:
    slots = Slots(1)
    slots.enter(**{f"a{n}": BEGINNING for n in range(150)})
    known = dict(slots.pages)
    slots.enter(**{f"a{n}": BEGINNING for n in range(150)})
    assert dict(slots.pages) == known
