"""Purposes are independent: a user who denies personalisation may still grant measurement."""

import json

import pytest

from tests.support.bucket import BOUNDS, Bucket
from tests.support.vocabulary import BEGINNING, DAY, HOUR, MINUTE, SECOND, a_consent, an_interaction
from udfs.elements import EventRecord
from udfs.operators.outputs import CLEAN_EVENTS
from udfs.state import Profile

pytestmark = pytest.mark.privacy

MEASURE, MEASURE_AND_TRAIN = 0b010, 0b110


def click(n: int = 0) -> EventRecord:
    at = BEGINNING + HOUR + n * SECOND
    return an_interaction(at=at, appended=at, item="tea", id=f"click-{n}")


def measured(bucket: Bucket, *events: EventRecord) -> list[list[str]]:
    lines = [out[1] for out in bucket.take(*events) if isinstance(out, tuple) and out[0] is CLEAN_EVENTS]
    return [json.loads(line)["purposes"] for joined in lines for line in joined.splitlines()]


@pytest.mark.promise("separate-purposes")
def test_events_without_personalise_are_published_for_granted_purposes(bucket: Bucket) -> None:
    bucket.take(a_consent(level="none", purposes=MEASURE_AND_TRAIN))
    assert measured(bucket, click(0), click(1)) == [["measure", "train"]] * 2
    bucket.take(a_consent(level="none", purposes=MEASURE, at=BEGINNING + 2 * HOUR))
    assert measured(bucket, click(7200)) == [["measure"]]
    assert (bucket.account.accepted, bucket.account.denied) == (3, 0)


@pytest.mark.promise("separate-purposes")
def test_without_personalise_only_dedupe_state_is_kept(bucket: Bucket) -> None:
    bucket.take(a_consent(level="none", purposes=MEASURE))
    assert measured(bucket, click(0), click(0), click(1)) == [["measure"]] * 2
    user = bucket.user()
    assert user is not None and user.profile is not None
    assert user.profile == Profile(
        event_ids=user.profile.event_ids,
        event_days=user.profile.event_days,
        newest_ts=click(1).ts,
        active_at=click(1).append_ts,
    )
    assert bucket.account.duplicates == 1
    assert bucket.list() is None and bucket.model.batches == []
    assert not bucket.keyed.states["weighing-v1"].get(), "no popular list heeds them"
    bucket.pass_time(BOUNDS.dedupe_horizon_ms + DAY)
    user = bucket.user()
    assert user is not None and user.profile is None


def test_denying_personalise_deletes_the_taste(bucket: Bucket) -> None:
    bucket.take(a_consent(), click(0))
    assert bucket.list() is not None
    bucket.take(a_consent(level="none", purposes=MEASURE, at=BEGINNING + 2 * HOUR))
    assert bucket.list() is None
    user = bucket.user()
    assert user is not None and user.profile == Profile()


def test_withdrawal_ends_separately_granted_purposes(bucket: Bucket) -> None:
    bucket.take(a_consent(level="none", purposes=MEASURE))
    bucket.take(a_consent(level="none", at=BEGINNING + MINUTE))
    assert measured(bucket, click()) == []
    user = bucket.user()
    assert user is not None and (user.kept_for, user.purposes, user.profile) == (0, 0, None)


def test_purpose_granted_before_withdrawal_is_refused_afterwards(bucket: Bucket) -> None:
    bucket.take(a_consent(level="none", said_at=BEGINNING + MINUTE))
    bucket.take(a_consent(level="none", purposes=MEASURE, at=BEGINNING + 2 * MINUTE, said_at=BEGINNING))
    assert measured(bucket, click()) == []
    late = BEGINNING + 3 * MINUTE
    bucket.take(a_consent(level="none", purposes=MEASURE, at=late))
    bucket.take(a_consent(level="none", purposes=MEASURE, at=late + SECOND, said_at=late))
    assert measured(bucket, click()) == [["measure"]], "sending it twice is as good as once"


def test_separately_granted_purposes_expire(bucket: Bucket) -> None:
    bucket.take(a_consent(level="none", purposes=MEASURE, expires_at=BEGINNING + HOUR))
    assert measured(bucket, click(1)) == []
    bucket.pass_time(2 * HOUR)
    user = bucket.user()
    assert user is not None and user.kept_for == 0


def test_older_grant_does_not_restore_personalisation(bucket: Bucket) -> None:
    said = BEGINNING + MINUTE
    bucket.take(a_consent(level="none", purposes=MEASURE, said_at=said))
    bucket.take(a_consent(at=BEGINNING + 2 * MINUTE, said_at=BEGINNING))
    assert measured(bucket, click()) == [["measure"]]
    assert bucket.list() is None


@pytest.mark.parametrize("erase", [False, True])
@pytest.mark.parametrize("read_before", [False, True])
def test_redis_only_withdrawal_ends_separately_granted_purposes(erase: bool, read_before: bool) -> None:
    """The withdrawal was acknowledged but not read; the grant is read after a crash, perhaps twice."""
    bucket = Bucket()
    granted = a_consent(level="none", purposes=MEASURE)
    snapshot = bucket.keyed.snapshot()
    if read_before:
        bucket.take(granted)
        assert measured(bucket, click(0)) == [["measure"]]
    bucket.keyed.now_ms = BEGINNING + 2 * HOUR
    bucket.store.withdraw("ada", BEGINNING + 2 * HOUR, erase=erase)
    bucket.restart(snapshot)
    assert measured(bucket, click(1)) == []
    bucket.take(granted, click(2))
    assert measured(bucket, click(3)) == []
    user = bucket.user()
    assert user is None or (user.kept_for, user.profile) == (0, None)


def test_purpose_granted_before_redis_only_withdrawal_is_refused(bucket: Bucket) -> None:
    bucket.keyed.now_ms = BEGINNING + 2 * HOUR
    bucket.store.withdraw("ada", BEGINNING + 2 * HOUR)
    late = BEGINNING + 3 * HOUR
    bucket.take(a_consent(level="none", purposes=MEASURE, at=late, said_at=BEGINNING + HOUR))
    assert measured(bucket, click(3 * 3600)) == []
    bucket.take(a_consent(level="none", purposes=MEASURE, at=late + SECOND))
    assert measured(bucket, click(3 * 3600)) == [["measure"]]
