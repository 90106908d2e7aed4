"""Known events: duplicates within the horizon are recognised, and hashes past it leave."""

from itertools import accumulate

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.pseudonyms import EVENT_HASH_BYTES
from tests.support.vocabulary import BEGINNING, DAY, HOUR, a_user, an_interaction
from udfs.elements import EventRecord
from udfs.known_events import seen_before
from udfs.profile import Outcome, ProfileBounds, take
from udfs.state import UserState, decode_state, encode_state

WEEK = 7 * DAY
BOUNDS = ProfileBounds()


def events_at(*hours: int) -> list[EventRecord]:
    return [an_interaction(at=BEGINNING + hour * HOUR, id=f"e{n}") for n, hour in enumerate(hours)]


def hashes_of(state: UserState) -> int:
    assert state.profile is not None
    return len(state.profile.event_ids) // EVENT_HASH_BYTES


walks = st.lists(st.integers(-2 * 24, 4 * 24), min_size=1, max_size=40).map(lambda steps: list(accumulate(steps)))
"""Hours of events, of which some come late."""


@given(walks)
@example([0, 7 * 24])
def test_no_event_is_accepted_twice(hours: list[int]) -> None:
    """However late it comes again: within the horizon it is a duplicate, and past it, too late."""
    state, accepted = a_user(since=0), []
    for event in events_at(*hours):
        if take(state, event, BOUNDS) == Outcome.MOVED:
            accepted.append(event)
        assert state.profile is not None
        expected = [Outcome.DUPLICATE if state.profile.newest_ts - known.ts <= WEEK else None for known in accepted]
        found = [take(state, known, BOUNDS) for known in accepted]
        assert [outcome for outcome, known in zip(found, expected, strict=True) if known] == list(
            filter(None, expected)
        )
        assert set(found) <= {Outcome.DUPLICATE, Outcome.TOO_LATE}


@given(walks)
@example([0, 7 * 24])
@example([0, 9 * 24])
def test_only_days_within_the_horizon_are_kept(hours: list[int]) -> None:
    """Late events count as ones of the newest event's day."""
    state = a_user(since=0)
    newest, days = 0, []
    for event in events_at(*hours):
        if take(state, event, BOUNDS) == Outcome.MOVED:
            newest = max(newest, event.ts)
            days.append(newest // DAY)
    first = (newest - WEEK) // DAY
    assert hashes_of(state) == sum(day >= first for day in days)
    assert state.profile is not None
    assert len(state.profile.event_days) <= 8 == WEEK // DAY + 1


@given(walks, st.integers(0, 40))
@example([0, 24], 1)
def test_states_without_days_keep_their_hashes_for_a_horizon(hours: list[int], place: int) -> None:
    """What an older release wrote loses no hash that a duplicate could need."""
    state, older = a_user(since=0), a_user(since=0)
    events = events_at(*hours)
    for event in events[:place]:
        take(state, event, BOUNDS)
        take(older, event, BOUNDS)
    older = without_days(older)
    for number, event in enumerate(events[place:], start=place + 1):
        assert take(older, event, BOUNDS) == take(state, event, BOUNDS)
        known = [each for each in events[:number] if take(state, each, BOUNDS) == Outcome.DUPLICATE]
        assert [take(older, each, BOUNDS) for each in known] == [Outcome.DUPLICATE] * len(known)
    take(older, an_interaction(at=BEGINNING + 200 * DAY, id="much later"), BOUNDS)
    assert hashes_of(older) == 1


def without_days(state: UserState) -> UserState:
    if state.profile is not None:
        state.profile.event_days = []
    return decode_state(encode_state(state))


def test_shopper_of_ten_events_a_day_costs_less_than_a_kilobyte() -> None:
    """512 hashes, 4 KB, were kept of everybody who had ever sent as many."""
    state = a_user(since=0)
    for event in events_at(*(24 * (n // 10) + n % 10 for n in range(900))):
        take(state, event, BOUNDS)
    assert state.profile is not None
    assert hashes_of(state) <= 80
    with_hashes = len(encode_state(state))
    state.profile.event_ids, state.profile.event_days = b"", []
    assert with_hashes - len(encode_state(state)) < 700


def test_days_cost_a_few_bytes() -> None:
    assert len(msgspec.msgpack.encode([(20_000 + day, 60) for day in range(8)])) <= 48


an_id = st.binary(min_size=8, max_size=8) | st.text("ab", min_size=8, max_size=8).map(str.encode)


@given(st.lists(an_id, max_size=30), an_id)
def test_seen_before_equals_a_list_of_ids(known: list[bytes], event: bytes) -> None:
    event_ids = b"".join(known)
    assert seen_before(event_ids, event) == (event in known)
    assert all(seen_before(event_ids, one) for one in known)


@given(st.lists(an_id, min_size=2, max_size=6), st.integers(0, 40))
def test_id_hash_windows_do_not_span_two_ids(known: list[bytes], place: int) -> None:
    event_ids = b"".join(known)
    across = event_ids[place : place + 8]
    if len(across) == 8:
        assert seen_before(event_ids, across) == (across in known)
