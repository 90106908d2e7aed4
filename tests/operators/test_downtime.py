"""A day of overdue timers after downtime: elements do not wait for them, and nothing is lost."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.bucket import Bucket, side
from tests.support.vocabulary import BEGINNING, DAY, HOUR, MINUTE, SECOND, a_consent, an_erasure, an_interaction
from udfs.elements import BucketMark
from udfs.operators.audit_keeper import AUDIT_HEADS
from udfs.operators.due_keeper import CATCH_UP_EVERY_MS, CATCH_UP_SLOTS, LATE_MS

USERS = [f"p1.user-{number}" for number in range(900)]
SLOT_USERS = 5
SLOTS = len(USERS) // SLOT_USERS


def a_bucket() -> Bucket:
    bucket = Bucket()
    for user in USERS:
        bucket.take(a_consent(user, "session"), an_interaction(user, session="s"))
    return bucket


def downtime(bucket: Bucket, ms: int = DAY) -> list[Any]:
    """The job was stopped with a savepoint; when it is back, all overdue timers fire first."""
    snapshot = bucket.keyed.snapshot()
    bucket.keyed.now_ms += ms
    bucket.restart(snapshot)
    return bucket.pass_time(0)


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    yield a_bucket()


def worked_off(bucket: Bucket) -> int:
    """The number of users of ended sessions that were deleted."""
    return bucket.keyed.counts["profiles_forgotten_total"]


@pytest.mark.promise("bounded-users")
def test_elements_wait_for_few_overdue_slots_only(bucket: Bucket) -> None:
    downtime(bucket)
    assert SLOTS > 10 * CATCH_UP_SLOTS
    assert worked_off(bucket) == CATCH_UP_SLOTS * SLOT_USERS
    bucket.take(an_interaction(USERS[-1], BEGINNING + DAY, "oil", session="t"))
    assert bucket.list(USERS[-1]) is not None
    for ticks in range(2, 12):
        bucket.pass_time(CATCH_UP_EVERY_MS)
        assert worked_off(bucket) == ticks * CATCH_UP_SLOTS * SLOT_USERS, "so many within a tick"


def test_postponed_timer_costs_few_reads_and_no_redis_call(bucket: Bucket) -> None:
    calls, write = [], bucket.store.write
    bucket.store.write = lambda *asked: calls.append(asked) or write(*asked)
    reads = bucket.reads
    downtime(bucket)
    assert len(calls) == CATCH_UP_SLOTS
    assert bucket.reads - reads <= 8 * SLOTS + 20 * CATCH_UP_SLOTS * SLOT_USERS


def test_users_due_during_downtime_are_processed_once(bucket: Bucket) -> None:
    downtime(bucket)
    bucket.pass_time(MINUTE)
    assert worked_off(bucket) == len(USERS)
    assert all(bucket.user(user).profile is None for user in USERS)  # type: ignore[union-attr]
    assert not any(bucket.store.has_list_key(user) for user in USERS)
    assert (bucket.pages, bucket.timers) == ({}, set())


def test_crash_keeps_waiting_slots(bucket: Bucket) -> None:
    downtime(bucket)
    bucket.pass_time(3 * CATCH_UP_EVERY_MS)
    downtime(bucket, HOUR)
    bucket.pass_time(MINUTE)
    assert all(bucket.user(user).profile is None for user in USERS)  # type: ignore[union-attr]
    assert (bucket.pages, bucket.timers) == ({}, set())


def test_user_erased_while_slot_waits_leaves_no_trace(bucket: Bucket) -> None:
    downtime(bucket)
    bucket.take(an_erasure(USERS[500], BEGINNING + DAY))
    names = b"\n".join(bucket.pages.values()).split(b"\n")
    assert USERS[500].encode() not in names and USERS[501].encode() in names


def test_short_stop_postpones_nothing() -> None:
    bucket = Bucket()
    for user in USERS[:20]:
        bucket.take(a_consent(user, expires_at=BEGINNING + 5 * MINUTE), an_interaction(user))
    bucket.keyed.now_ms = BEGINNING + 5 * MINUTE - SECOND
    downtime(bucket, LATE_MS // 2)
    assert all(bucket.user(user).level == 0 for user in USERS[:20])  # type: ignore[union-attr]


def test_lists_aged_in_downtime_are_refreshed_once_with_current_time() -> None:
    bucket = Bucket()
    for user in USERS[:50]:
        bucket.take(a_consent(user), an_interaction(user))
    downtime(bucket, 3 * DAY)
    bucket.pass_time(MINUTE)
    assert all(bucket.list(user) is not None for user in USERS[:50])
    assert bucket.keyed.counts["lists_refreshed_total"] == 50
    assert all(timer > bucket.keyed.now_ms for timer in bucket.timers)


def an_idle_bucket() -> Bucket:
    """No user comes due within hours."""
    bucket = Bucket()
    for user in USERS[:50]:
        bucket.take(a_consent(user), an_interaction(user))
    return bucket


def test_redis_watch_continues_after_downtime() -> None:
    bucket = an_idle_bucket()
    watch = bucket.keyed.timers - bucket.timers
    bucket.keyed.timers -= watch
    downtime(bucket, HOUR)
    assert bucket.keyed.timers >= watch


def test_rebuild_continues_after_downtime() -> None:
    bucket = an_idle_bucket()
    bucket.take(marks=[BucketMark("1" * 12, 0, 1)])
    downtime(bucket, HOUR)
    bucket.pass_time(MINUTE)
    assert bucket.keyed.states["rebuild-v1"].is_empty()


def test_audit_head_is_signed_right_after_downtime() -> None:
    assert side(downtime(an_idle_bucket(), HOUR), AUDIT_HEADS) != []


def test_pending_popularity_is_published_right_after_downtime() -> None:
    assert "all" in [told[0] for told in downtime(an_idle_bucket(), HOUR)]


def test_abandoned_late_slot_leaves_no_state() -> None:
    bucket = an_idle_bucket()
    for user in USERS[:50]:
        bucket.take(an_erasure(user, BEGINNING + SECOND))
    downtime(bucket, 3 * DAY)
    assert bucket.pages == {}
