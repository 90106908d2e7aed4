"""What becomes due without an event, and when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.consents import Level
from schemas.store import ListWrite
from tests.support.vocabulary import BEGINNING, DAY, HOUR, MINUTE, a_user
from udfs.due import REFRESH_AT, Due, RefreshSettings, kept_longer, list_life_ms, next_due_ms, when_due
from udfs.profile import ProfileBounds
from udfs.state import Profile, UserState

pytestmark = pytest.mark.privacy

BOUNDS, REFRESH = ProfileBounds(), RefreshSettings(active_within_ms=7 * DAY)
NOW = BEGINNING + 100 * DAY
FORGETS = (Due.FORGET, Due.EXPIRED)


def someone(level: str = "full", idle_ms: int = 0, **fields: int) -> UserState:
    """A user whose last activity was `idle_ms` before NOW."""
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
def test_next_due_time(state: UserState, due_in_ms: int | None) -> None:
    expected = BOUNDS.idle_profile_ttl_ms - REFRESH.active_within_ms - 1 if due_in_ms is None else due_in_ms
    assert next_due_ms(state, NOW, BOUNDS, REFRESH) == NOW + expected


def test_user_without_profile_is_never_due() -> None:
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
def test_actions_when_due(state: UserState, due: Due) -> None:
    version = state.version
    assert when_due(state, NOW, BOUNDS, REFRESH) == due
    assert (state.profile is None) == (due in FORGETS)
    assert state.version == version + (due in FORGETS)


def test_expired_consent_is_withdrawn_and_ended_session_keeps_consent() -> None:
    expired, ended = someone("full", expires_at=NOW), someone("session", idle_ms=HOUR)
    for state in (expired, ended):
        when_due(state, NOW, BOUNDS, REFRESH)
    assert (expired.level, expired.purposes, ended.level) == (Level.NONE, 0, Level.SESSION)


@given(st.sampled_from(["session", "full"]), st.integers(0, 100 * DAY), st.integers(0, 2 * DAY) | st.none())
def test_next_due_time_is_in_the_future_unless_overdue(level: str, idle_ms: int, expires_in_ms: int | None) -> None:
    state = someone(level, idle_ms, expires_at=0 if expires_in_ms is None else NOW + 1 + expires_in_ms)
    if when_due(state, NOW, BOUNDS, REFRESH) not in FORGETS:
        due = next_due_ms(state, NOW, BOUNDS, REFRESH)
        assert due is not None and due > NOW, "or the same slot would be entered again and again"


@pytest.mark.parametrize(("idle_days", "life_days"), [(0, 1), (9, 1), (20, 2), (80, 8)])
def test_lists_of_idle_users_live_longer_and_are_refreshed_before_they_end(idle_days: int, life_days: int) -> None:
    state, refresh = someone(idle_ms=idle_days * DAY), RefreshSettings()
    assert list_life_ms(state, NOW, refresh) == life_days * DAY
    assert next_due_ms(state, NOW, BOUNDS, refresh) == NOW + int(REFRESH_AT * life_days * DAY)
    assert when_due(state, NOW, BOUNDS, refresh) == Due.REFRESH
    [kept] = kept_longer([ListWrite("ada", 1, b"", "personalised", DAY, b"", "m")], {"ada": state}, NOW, refresh)
    assert kept.ttl_ms == life_days * DAY


def test_lists_of_a_session_end_with_it_however_long_it_is_idle() -> None:
    state = someone("session", idle_ms=80 * DAY)
    write = ListWrite("ada", 1, b"", "session", BOUNDS.session_gap_ms, b"", "m")
    assert kept_longer([write], {"ada": state}, NOW, RefreshSettings()) == [write]


def test_profile_that_is_refreshed_is_due_when_it_must_be_deleted() -> None:
    state = someone(idle_ms=BOUNDS.idle_profile_ttl_ms - DAY)
    assert next_due_ms(state, NOW, BOUNDS, RefreshSettings()) == NOW + DAY
