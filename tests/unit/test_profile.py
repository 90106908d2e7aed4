"""The profile rules: order, bounds, duplicates, sessions, weights."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import EVENT_TYPES
from tests.support.vocabulary import BEGINNING, DAY, HOUR, MINUTE, SECOND, a_user, an_event_id, an_interaction
from udfs.elements import EventRecord
from udfs.profile import (
    RECENT_ITEMS_MAX,
    Outcome,
    ProfileBounds,
    take,
)
from udfs.state import Profile, UserState, encode_state

BOUNDS = ProfileBounds()


def after(*events: EventRecord, state: UserState | None = None, bounds: ProfileBounds = BOUNDS) -> Profile:
    state = state or a_user()
    for event in events:
        take(state, event, bounds)
    assert state.profile is not None
    return state.profile


def items_of(profile: Profile) -> list[str]:
    return [item for item, _, _ in profile.recents]


def test_recent_items_are_ordered_by_event_time() -> None:
    first = an_interaction(at=BEGINNING, item="tea", appended=BEGINNING + MINUTE)
    second = an_interaction(at=BEGINNING + SECOND, item="cup", appended=BEGINNING + MINUTE)
    assert items_of(after(first, second)) == items_of(after(second, first)) == ["tea", "cup"]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 40)), unique_by=lambda pair: pair[1]), st.randoms())
def test_the_newest_items_are_kept_in_any_order_of_arrival(met: list[tuple[int, int]], random: object) -> None:
    events = [an_interaction(at=BEGINNING + second * SECOND, item=f"i{item}") for item, second in met]
    newest: dict[str, int] = {}
    for event in sorted(events, key=lambda event: event.ts):
        newest[str(event.item)] = event.ts
    expected = sorted(newest.items(), key=lambda entry: entry[1])[-RECENT_ITEMS_MAX:]
    random.shuffle(events)  # type: ignore[attr-defined]
    profile = after(*events, state=a_user(since=0))
    assert [(item, ts) for item, ts, _ in profile.recents] == expected if events else profile.recents == []


def test_repeated_item_keeps_newest_time_and_weightiest_kind() -> None:
    bought = an_interaction(at=BEGINNING, item="tea", kind="purchase")
    viewed = an_interaction(at=BEGINNING + HOUR, item="tea", kind="view")
    expected = [("tea", BEGINNING + HOUR, EVENT_TYPES.index("purchase"))]
    assert after(bought, viewed).recents == after(viewed, bought, state=a_user(since=0)).recents == expected


@pytest.mark.parametrize("kind", EVENT_TYPES)
def test_only_weighted_kinds_change_recent_items_and_list(kind: str) -> None:
    state = a_user()
    outcome = take(state, an_interaction(kind=kind), BOUNDS)
    weighs = kind in {"view", "click", "dwell", "rating", "add_to_cart", "purchase"}
    assert outcome == (Outcome.MOVED if weighs else Outcome.ACCEPTED)
    assert state.profile is not None
    assert bool(state.profile.recents) == weighs
    assert state.version == 2, "every accepted event counts"


def test_recent_items_are_bounded() -> None:
    events = [an_interaction(at=BEGINNING + n * SECOND, item=f"i{n}") for n in range(RECENT_ITEMS_MAX + 5)]
    assert items_of(after(*events)) == [f"i{n}" for n in range(5, RECENT_ITEMS_MAX + 5)]


def test_bought_items_are_bounded_and_the_last_ones_stay() -> None:
    bounds = ProfileBounds(bought_items_max=3)
    bought = ["a", "b", "c", "a", "d"]
    events = [an_interaction(at=BEGINNING + n, item=item, kind="purchase") for n, item in enumerate(bought)]
    assert after(*events, bounds=bounds).bought == ["c", "a", "d"]


def test_event_ids_are_bounded_and_the_last_ones_are_known() -> None:
    bounds, state = ProfileBounds(event_ids_max=4), a_user()
    events = [an_interaction(at=BEGINNING + n, id=f"e{n}") for n in range(6)]
    profile = after(*events, state=state, bounds=bounds)
    assert profile.event_ids == b"".join(an_event_id(f"e{n}") for n in range(2, 6))
    assert [take(state, event, bounds) for event in events[2:]] == [Outcome.DUPLICATE] * 4


def test_event_older_than_the_dedupe_horizon_is_too_late() -> None:
    bounds, state = ProfileBounds(dedupe_horizon_ms=DAY), a_user(since=0)
    take(state, an_interaction(at=BEGINNING), bounds)
    before = encode_state(state)
    assert take(state, an_interaction(at=BEGINNING - DAY - 1, item="old"), bounds) == Outcome.TOO_LATE
    assert encode_state(state) == before
    assert take(state, an_interaction(at=BEGINNING - DAY, item="old"), bounds) == Outcome.MOVED


@given(st.lists(st.integers(0, 12), max_size=60))
def test_duplicates_change_nothing(numbers: list[int]) -> None:
    events = [an_interaction(at=BEGINNING + n * HOUR, id=f"e{n}", item=f"i{n % 5}") for n in numbers]
    once = list(dict.fromkeys(events))
    state, unique = a_user(since=0), a_user(since=0)
    outcomes = [take(state, event, BOUNDS) for event in events]
    for event in once:
        take(unique, event, BOUNDS)
    assert encode_state(state) == encode_state(unique)
    assert outcomes.count(Outcome.DUPLICATE) == len(events) - len(once)
    assert state.version == 1 + len(once)


@given(
    st.lists(st.tuples(st.sampled_from(EVENT_TYPES), st.integers(0, 7 * DAY)), min_size=1, max_size=30),
    st.integers(MINUTE, 30 * DAY),
)
def test_decayed_counts_equal_the_direct_formula(noted: list[tuple[str, int]], half_life_ms: int) -> None:
    bounds = ProfileBounds(counts_half_life_ms=half_life_ms, dedupe_horizon_ms=30 * DAY)
    events = [an_interaction(kind=kind, at=BEGINNING + ts, id=f"{n}") for n, (kind, ts) in enumerate(noted)]
    newest = max(ts for _, ts in noted)
    direct = [sum(2 ** ((ts - newest) / half_life_ms) for kind, ts in noted if kind == name) for name in EVENT_TYPES]
    assert after(*events, state=a_user(since=0), bounds=bounds).counts == pytest.approx(direct, rel=1e-9, abs=1e-12)


# sessions


def test_gap_or_new_id_ends_a_session() -> None:
    gap = BOUNDS.session_gap_ms
    one = an_interaction(at=BEGINNING, session="s1")
    near = an_interaction(at=BEGINNING + gap, session="s1")
    far = an_interaction(at=BEGINNING + gap + 1, session="s1", item="far")
    other = an_interaction(at=BEGINNING + 1, session="s2", item="other")
    assert [after(one, event).session.events for event in (near, far, other)] == [2, 1, 1]  # type: ignore[union-attr]


def test_late_event_belongs_to_its_session() -> None:
    times = [0, 20 * MINUTE, 40 * MINUTE, 5 * MINUTE]
    events = [an_interaction(at=BEGINNING + ts, session="s", item=f"i{ts}") for ts in times]
    state = a_user("session")
    assert [take(state, event, BOUNDS) for event in events] == [Outcome.MOVED] * 4
    assert state.profile is not None and state.profile.session is not None
    assert state.profile.session.events == 4


def test_session_level_data_ends_with_the_session() -> None:
    old = an_interaction(at=BEGINNING, session="s1", item="tea", kind="purchase")
    new = an_interaction(at=BEGINNING + MINUTE, session="s2", item="cup")
    profile = after(old, new, state=a_user("session"))
    assert (items_of(profile), profile.bought, sum(profile.counts)) == (["cup"], [], 1.0)
    assert profile.event_ids == new.event
    both = after(old, new)
    assert items_of(both) == ["tea", "cup"], "a full consent keeps both"


def test_new_session_updates_the_list() -> None:
    state = a_user("session")
    take(state, an_interaction(session="s1"), BOUNDS)
    glance = an_interaction(at=BEGINNING + MINUTE, session="s2", kind="impression")
    assert take(state, glance, BOUNDS) == Outcome.MOVED


def test_event_of_an_ended_session_is_denied() -> None:
    state = a_user("session")
    take(state, an_interaction(at=BEGINNING + HOUR, session="s2"), BOUNDS)
    before = encode_state(state)
    assert take(state, an_interaction(at=BEGINNING, session="s1"), BOUNDS) == Outcome.DENIED
    assert encode_state(state) == before
