"""Erasure and withdrawal in the operator on fakes: nothing stays, and no snapshot brings anything back."""

import msgspec
import pytest

from schemas.consents import Level
from schemas.receipts import ConsentReceipt
from tests.support.bucket import Bucket, receipts, side
from tests.support.vocabulary import BEGINNING, DAY, HOUR, MINUTE, SECOND, a_consent, an_erasure, an_interaction
from udfs.operators.outputs import CLEAN_EVENTS

pytestmark = pytest.mark.privacy


def with_ada(bucket: Bucket) -> None:
    """Ada has consented and clicked; so has Bob, who must not be affected."""
    for user in ("ada", "bob"):
        bucket.take(a_consent(user), an_interaction(user, BEGINNING + SECOND, "tea"))


def everything_kept(bucket: Bucket) -> bytes:
    """All bytes of keyed state."""
    states = bucket.keyed.states.values()
    maps = [b"".join(k.encode() + v for k, v in state.items()) for state in states if hasattr(state, "items")]
    others = [repr(state.held).encode() for state in states if hasattr(state, "held")]
    return b"".join(maps + others)


def test_erasure_clears_state_and_leaves_a_redis_tombstone(bucket: Bucket) -> None:
    with_ada(bucket)
    bucket.take(a_consent("ada", at=BEGINNING + MINUTE, expires_at=BEGINNING + 2 * MINUTE))
    assert b"ada" in everything_kept(bucket), "the search finds what is there"
    emitted = bucket.take(an_erasure("ada", BEGINNING + HOUR))
    assert b"ada" not in everything_kept(bucket)
    assert bucket.list("ada") is None and bucket.store.is_gone("ada")
    [receipt] = receipts(emitted, ConsentReceipt)
    assert (receipt.outcome, receipt.level, receipt.erased) == ("in_force", "none", True)
    assert bucket.user("bob") is not None and bucket.list("bob") is not None
    bucket.run_out_of_timers()


def test_erasure_and_interaction_in_one_element_leave_nothing(bucket: Bucket) -> None:
    with_ada(bucket)
    emitted = bucket.take(an_interaction("ada", BEGINNING + HOUR, "pot"), an_erasure("ada", BEGINNING + HOUR))
    assert b"ada" not in everything_kept(bucket)
    assert side(emitted, CLEAN_EVENTS) == []
    assert bucket.account.denied == 1


def test_erasure_of_unknown_user_is_applied(bucket: Bucket) -> None:
    bucket.take(an_erasure("ada"))
    assert bucket.store.is_gone("ada")
    assert bucket.user("ada") is None


def test_absent_consent_needs_no_state(bucket: Bucket) -> None:
    bucket.take(a_consent("ada", "none", absent=True))
    assert bucket.user("ada") is None
    assert bucket.store.level("ada") == "none"
    with_ada(bucket)
    bucket.take(a_consent("bob", "none", BEGINNING + HOUR, absent=True))
    assert bucket.user("bob") is None and bucket.list("bob") is None
    assert b"bob" not in everything_kept(bucket)
    assert bucket.store.level("bob") == "none", "what holds off the grants before it"


def test_returning_user_starts_empty_after_erasure(bucket: Bucket) -> None:
    with_ada(bucket)
    bucket.take(an_erasure("ada", BEGINNING + HOUR), a_consent("ada", at=BEGINNING + 2 * HOUR))
    bucket.take(an_interaction("ada", BEGINNING + 3 * HOUR, "rye"))
    state = bucket.user("ada")
    assert state is not None and state.profile is not None
    assert [item for item, _, _ in state.profile.recents] == ["rye"]
    assert bucket.list("ada") is not None


@pytest.mark.parametrize("came_back", [False, True])
def test_restore_from_before_an_erasure_restores_nothing(bucket: Bucket, came_back: bool) -> None:
    with_ada(bucket)
    snapshot = bucket.keyed.snapshot()
    bucket.take(an_erasure("ada", BEGINNING + HOUR))
    if came_back:
        bucket.take(a_consent("ada", at=BEGINNING + 2 * HOUR))
    bucket.restart(snapshot)
    replayed = bucket.take(an_interaction("ada", BEGINNING + MINUTE, "pot"), an_interaction("bob", item="pot"))
    assert b"ada" not in everything_kept(bucket)
    assert [clean["pseudonym"] for clean in side(replayed, CLEAN_EVENTS)] == ["bob"]
    assert bucket.list("ada") is None and bucket.list("bob") is not None
    bucket.take(an_erasure("ada", BEGINNING + HOUR))
    bucket.take(an_interaction("ada", BEGINNING + HOUR + SECOND, "jam"))
    assert bucket.list("ada") is None and bucket.user("ada") is None


@pytest.mark.parametrize("came_back", [False, True])
@pytest.mark.parametrize("directly", [False, True])
def test_replayed_event_after_opt_out_writes_nothing(bucket: Bucket, came_back: bool, directly: bool) -> None:
    with_ada(bucket)
    snapshot = bucket.keyed.snapshot()
    no = a_consent("ada", "none", BEGINNING + HOUR)
    if directly:
        bucket.store.withdraw("ada", no.said_at)
    if not directly or came_back:
        bucket.take(no)
    if came_back:
        bucket.take(a_consent("ada", at=BEGINNING + 2 * HOUR))
    bucket.restart(snapshot)
    replayed = bucket.take(an_interaction("ada", BEGINNING + MINUTE, "pot"), an_interaction("bob", item="pot"))
    assert [clean["pseudonym"] for clean in side(replayed, CLEAN_EVENTS)] == ["bob"]
    assert bucket.list("ada") is None and bucket.list("bob") is not None
    state = bucket.user("ada")
    assert state is not None and state.profile is None
    assert len(receipts(bucket.take(no), ConsentReceipt)) == 1, "the record counts as it did the first time"


def test_restore_after_return_of_erased_user_keeps_later_data(bucket: Bucket) -> None:
    with_ada(bucket)
    bucket.take(an_erasure("ada", BEGINNING + HOUR), a_consent("ada", at=BEGINNING + 2 * HOUR))
    bucket.take(an_interaction("ada", BEGINNING + 3 * HOUR, "rye"))
    bucket.restart(bucket.keyed.snapshot())
    bucket.take(an_interaction("ada", BEGINNING + 4 * HOUR, "oil"))
    state = bucket.user("ada")
    assert state is not None and state.profile is not None
    assert [item for item, _, _ in state.profile.recents] == ["rye", "oil"]


def test_due_list_is_not_written_after_restore_from_before_erasure(bucket: Bucket) -> None:
    with_ada(bucket)
    snapshot = bucket.keyed.snapshot()
    bucket.take(an_erasure("ada", BEGINNING + HOUR))
    bucket.restart(snapshot)
    bucket.pass_time(2 * DAY)
    assert bucket.list("ada") is None and not bucket.store.has_list_key("ada")
    assert bucket.list("bob") is not None


def test_job_without_state_looks_up_no_erasures(bucket: Bucket) -> None:
    asked: list[list[str]] = []
    ask = bucket.store.tombstones
    bucket.store.tombstones = lambda names: asked.append(list(names)) or ask(names)  # type: ignore[method-assign,func-returns-value]
    with_ada(bucket)
    bucket.take(an_interaction("ada", BEGINNING + MINUTE, "pot"))
    assert asked == []
    bucket.restart(bucket.keyed.snapshot())
    for n in range(3):
        bucket.take(an_interaction("ada", BEGINNING + HOUR + n * SECOND, "pot"))
    assert asked == [["ada"]], "once"


def test_grant_before_last_withdrawal_is_refused_and_reported(bucket: Bucket) -> None:
    with_ada(bucket)
    bucket.take(a_consent("ada", "none", BEGINNING + HOUR))
    waited = a_consent("ada", at=BEGINNING + 2 * HOUR, said_at=BEGINNING + HOUR)
    emitted = bucket.take(waited, an_interaction("ada", BEGINNING + 3 * HOUR))
    [receipt] = receipts(emitted, ConsentReceipt)
    assert receipt.outcome == "refused"
    assert bucket.account.consents_refused == 1
    assert bucket.list("ada") is None and bucket.account.denied == 1


def test_grant_refused_by_redis_after_direct_withdrawal_is_undone(bucket: Bucket) -> None:
    with_ada(bucket)
    bucket.keyed.now_ms = BEGINNING + HOUR
    bucket.store.withdraw("ada", said_at=BEGINNING + HOUR)
    on_its_way = a_consent("ada", at=BEGINNING + 3 * HOUR, said_at=BEGINNING + HOUR - SECOND)
    emitted = bucket.take(on_its_way, an_interaction("ada", BEGINNING + 3 * HOUR, "pot"))
    state = bucket.user("ada")
    assert state is not None and state.profile is None and state.level == 0
    assert side(emitted, CLEAN_EVENTS) == []
    assert bucket.list("ada") is None
    [receipt] = receipts(emitted, ConsentReceipt)
    assert receipt.outcome == "refused"
    assert (bucket.account.accepted, bucket.account.denied) == (2, 1), "what ada and bob did before, and this"


def test_newer_grant_after_refused_one_holds(bucket: Bucket) -> None:
    with_ada(bucket)
    bucket.keyed.now_ms = BEGINNING + HOUR
    bucket.store.withdraw("ada", said_at=BEGINNING + HOUR)
    on_its_way = a_consent("ada", at=BEGINNING + 3 * HOUR, said_at=BEGINNING + HOUR - SECOND)
    newer = a_consent("ada", at=BEGINNING + 4 * HOUR, said_at=BEGINNING + 2 * HOUR)
    bucket.take(on_its_way, newer, an_interaction("ada", BEGINNING + 5 * HOUR, "pot"))
    assert bucket.list("ada") is None, "nothing from before is shown, and what came in this element was denied"
    bucket.take(an_interaction("ada", BEGINNING + 6 * HOUR, "oil"))
    state = bucket.user("ada")
    assert state is not None and state.level == Level.FULL and state.profile is not None
    assert [item for item, _, _ in state.profile.recents] == ["oil"]
    assert bucket.list("ada") is not None


def test_no_list_is_written_between_direct_withdrawal_and_its_record(bucket: Bucket) -> None:
    with_ada(bucket)
    bucket.store.withdraw("ada", said_at=BEGINNING + MINUTE)
    bucket.take(an_interaction("ada", BEGINNING + HOUR, "pot"))
    assert bucket.list("ada") is None
    bucket.take(a_consent("ada", "none", BEGINNING + HOUR, said_at=BEGINNING + MINUTE))
    state = bucket.user("ada")
    assert state is not None and state.profile is None


def test_erasure_lookup_is_retried_when_store_is_down(bucket: Bucket) -> None:
    with_ada(bucket)
    bucket.restart(bucket.keyed.snapshot())
    bucket.store.fail_next(3)
    bucket.take(an_interaction("ada", BEGINNING + HOUR, "pot"))
    assert bucket.keyed.counts["redis_retries_total"] == 3
    assert msgspec.structs.asdict(bucket.account)["accepted"] == 3
