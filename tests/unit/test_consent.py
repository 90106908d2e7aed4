"""Consent: topic order, replays, withdrawals, narrowing, expiry; anything missing means no."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.consents import Level
from tests.support.vocabulary import BEGINNING, HOUR, MINUTE, SECOND, a_consent, an_interaction
from udfs.consent import ConsentVerdict, allows, apply_consent, withdraw
from udfs.elements import ConsentRecord
from udfs.profile import Outcome, ProfileBounds, take
from udfs.state import UserState, encode_state

pytestmark = pytest.mark.privacy

BOUNDS = ProfileBounds()


def after(*changes: ConsentRecord, state: UserState | None = None) -> UserState:
    state = state or UserState()
    for change in changes:
        apply_consent(state, change)
    return state


def a_shopper(level: str = "full") -> UserState:
    """A user with a consent of BEGINNING and one recent item."""
    state = after(a_consent(level=level, at=BEGINNING))  # type: ignore[arg-type]
    assert take(state, an_interaction(at=BEGINNING + SECOND), BOUNDS) == Outcome.MOVED
    return state


def test_nothing_is_allowed_without_consent() -> None:
    assert not allows(None, an_interaction())
    assert not allows(UserState(), an_interaction())
    assert take(None, an_interaction(), BOUNDS) == Outcome.DENIED


def test_last_change_in_offset_order_wins_despite_clock_steps() -> None:
    state = after(a_consent(at=BEGINNING, offset=1), a_consent(level="none", at=BEGINNING - MINUTE, offset=2))
    assert state.level == Level.NONE


def test_across_partitions_append_time_orders() -> None:
    moved = a_consent(level="none", at=BEGINNING + 1, partition=1, offset=0)
    assert after(a_consent(at=BEGINNING, offset=9), moved).level == Level.NONE
    earlier = msgspec.structs.replace(moved, append_ts=BEGINNING)
    assert after(a_consent(at=BEGINNING, offset=9), earlier).level == Level.FULL


changes = st.lists(
    st.builds(
        a_consent,
        level=st.sampled_from(["none", "session", "full"]),
        at=st.integers(0, 50).map(lambda n: BEGINNING + n * SECOND),
        expires_at=st.integers(0, 60).map(lambda n: BEGINNING + n * SECOND if n > 9 else 0),
    ),
    max_size=12,
)


@given(changes, st.integers(0, 12))
def test_replay_is_idempotent(some: list[ConsentRecord], again_from: int) -> None:
    in_order = sorted(some, key=lambda change: change.offset)
    once = after(*in_order)
    replayed = after(*in_order, *in_order[again_from:], state=None)
    assert encode_state(once) == encode_state(replayed)


@given(changes)
def test_last_in_topic_order_wins_in_any_arrival_order(some: list[ConsentRecord]) -> None:
    last = max(some, key=lambda change: change.offset, default=None)
    state = after(*some)
    if last is not None:
        newest = next(change for change in some if change.offset == last.offset)
        assert (state.level, state.consent_offset) == (newest.level, newest.offset)


@given(changes)
def test_grant_given_before_earlier_withdrawal_never_takes_effect(some: list[ConsentRecord]) -> None:
    state, said_no_at = UserState(), 0
    for n, change in enumerate(some):
        said = msgspec.structs.replace(change, offset=n, append_ts=BEGINNING + HOUR)
        verdict = apply_consent(state, said)
        if change.level == Level.NONE:
            said_no_at = max(said_no_at, change.said_at)
        elif change.said_at <= said_no_at:
            assert verdict == ConsentVerdict.REFUSED
        else:
            assert verdict == ConsentVerdict.APPLIED


def test_a_refused_grant_changes_nothing() -> None:
    state = after(a_consent(at=BEGINNING), a_consent(level="none", at=BEGINNING + HOUR))
    before = encode_state(state)
    waited = a_consent(at=BEGINNING + 2 * HOUR, said_at=BEGINNING + HOUR)
    assert apply_consent(state, waited) == ConsentVerdict.REFUSED
    assert encode_state(state) == before


def test_interaction_from_before_the_grant_is_denied() -> None:
    state = after(a_consent(at=BEGINNING))
    assert not allows(state, an_interaction(at=BEGINNING - 1))
    assert allows(state, an_interaction(at=BEGINNING))
    late = an_interaction(at=BEGINNING - HOUR, appended=BEGINNING + 1)
    assert allows(state, late), "append time counts, not event time"


def test_interaction_from_denied_period_stays_denied() -> None:
    state = after(
        a_consent(at=BEGINNING),
        a_consent(level="none", at=BEGINNING + HOUR),
        a_consent(at=BEGINNING + 2 * HOUR),
    )
    assert not allows(state, an_interaction(at=BEGINNING + MINUTE))
    assert not allows(state, an_interaction(at=BEGINNING + HOUR + MINUTE))
    assert allows(state, an_interaction(at=BEGINNING + 2 * HOUR))


def test_renewing_a_consent_keeps_the_profile_and_what_was_allowed() -> None:
    state = a_shopper()
    apply_consent(state, a_consent(at=BEGINNING + HOUR))
    assert state.profile is not None and state.profile.recents
    assert allows(state, an_interaction(at=BEGINNING + MINUTE)), "no denied period lay between"


def test_withdrawal_clears_the_profile_and_keeps_the_version() -> None:
    state = a_shopper()
    version = state.version
    apply_consent(state, a_consent(level="none", at=BEGINNING + HOUR))
    assert (state.profile, state.purposes, state.version) == (None, 0, version + 1)
    apply_consent(state, a_consent(at=BEGINNING + 2 * HOUR))
    assert state.version == version + 2


def test_narrowing_deletes_the_profile() -> None:
    state = a_shopper()
    apply_consent(state, a_consent(level="session", at=BEGINNING + HOUR))
    assert state.profile is not None and state.profile.recents == []
    assert not allows(state, an_interaction(at=BEGINNING + MINUTE)), "nor what is read late"
    assert allows(state, an_interaction(at=BEGINNING + HOUR))


def test_widening_keeps_the_session() -> None:
    state = a_shopper("session")
    apply_consent(state, a_consent(level="full", at=BEGINNING + MINUTE))
    assert state.profile is not None and state.profile.recents


def test_expired_consent_allows_nothing_before_its_timer() -> None:
    state = after(a_consent(at=BEGINNING, expires_at=BEGINNING + HOUR))
    assert allows(state, an_interaction(at=BEGINNING + HOUR - 1))
    assert not allows(state, an_interaction(at=BEGINNING + HOUR))


def test_grant_after_expiry_starts_afresh() -> None:
    expiring = a_consent(at=BEGINNING, expires_at=BEGINNING + HOUR)
    again = a_consent(at=BEGINNING + HOUR + MINUTE)
    unnoticed, noticed = after(expiring), after(expiring)
    for state in (unnoticed, noticed):
        take(state, an_interaction(at=BEGINNING + SECOND), BOUNDS)
    withdraw(noticed)
    for state in (unnoticed, noticed):
        apply_consent(state, again)
    assert encode_state(unnoticed) == encode_state(noticed)
    assert unnoticed.profile is not None and unnoticed.profile.recents == []
    assert not allows(unnoticed, an_interaction(at=BEGINNING + HOUR + SECOND)), "between expiry and grant"
