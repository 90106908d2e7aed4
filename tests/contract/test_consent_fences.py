"""The fences in Redis that take effect before the job has read the record, on a real Redis."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.redis.scripts import READ_LIST, WITHDRAW, WRITE_CONSENT
from schemas.consents import Level
from schemas.store import (
    ConsentWrite,
    all_user_keys,
    consent_value,
    hold_arguments,
    proof_of,
    proven,
    withdrawn_at,
)
from schemas.topics import DAY_MS, MINUTE_MS
from tests.support.examples import examples
from tests.support.fakes import TOKEN
from tests.support.redis_server import RealRedis, running_redis

pytestmark = pytest.mark.privacy

KEYS = all_user_keys("", "p1.ada")
LIST, CONSENT, GONE, _ = KEYS
LIFE = 10 * MINUTE_MS
IN_FORCE, STALE, REFUSED = 1, 0, -1


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRedis]:
    with running_redis(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def redis(server: RealRedis) -> Iterator[Any]:
    server.client.flushall()
    yield server.client
    server.client.config_set("maxmemory", 0)


def grant(redis: Any, offset: int, said_at: int = 50, token: str = TOKEN, level: Level = Level.FULL) -> int:
    """What the job writes for a grant, with a list made under it."""
    decision = ConsentWrite(level, 0, 100 + offset, 0, offset, said_at, False, token)
    outcome = int(redis.eval(WRITE_CONSENT.text, 4, *KEYS, *decision.arguments(LIFE)))
    if redis.get(CONSENT) == decision.value():
        redis.set(LIST, b'{"v":1}')
    return outcome


def hold(redis: Any, offset: int, said_at: int = 50) -> int:
    return int(redis.eval(WRITE_CONSENT.text, 4, *KEYS, *hold_arguments(100 + offset, 0, offset, said_at, LIFE)))


def end(redis: Any, offset: int, said_at: int = 50, erase: bool = False) -> int:
    decision = ConsentWrite(Level.NONE, 0, 100 + offset, 0, offset, said_at, erase)
    return int(redis.eval(WRITE_CONSENT.text, 4, *KEYS, *decision.arguments(LIFE)))


def withdraw(redis: Any, said_at: int, wants: str = "none") -> int:
    return int(redis.eval(WITHDRAW.text, 4, *KEYS, said_at, wants, LIFE))


def readable(redis: Any, token: str = TOKEN) -> bool:
    return redis.eval(READ_LIST.text, 3, *KEYS[:3], proof_of(token)) is not None


@pytest.mark.promise("acknowledged-withdrawal")
def test_hold_ends_only_with_the_record_at_its_offset(redis: Any) -> None:
    grant(redis, 1)
    assert readable(redis)
    assert hold(redis, 5) == IN_FORCE
    assert not readable(redis)
    assert grant(redis, 3) == STALE
    assert not readable(redis), "a record from before the hold"
    assert grant(redis, 5) == IN_FORCE
    assert readable(redis)


def test_hold_arriving_after_the_job_changes_nothing(redis: Any) -> None:
    grant(redis, 5)
    assert hold(redis, 5) == IN_FORCE
    assert readable(redis)
    assert hold(redis, 4) == STALE
    assert readable(redis)


def test_hold_for_change_before_withdrawal_is_refused(redis: Any) -> None:
    now = time.time_ns() // 1_000_000
    withdraw(redis, now)
    assert hold(redis, 5, said_at=now) == REFUSED
    assert end(redis, 6, said_at=now) == IN_FORCE
    assert hold(redis, 7, said_at=now) == REFUSED
    assert hold(redis, 7, said_at=now + 1) == IN_FORCE
    assert not readable(redis)
    assert grant(redis, 7, said_at=now + 1) == IN_FORCE
    assert readable(redis)


def test_grant_requires_the_token_of_its_generation(redis: Any) -> None:
    grant(redis, 1, token="")
    assert not readable(redis)
    grant(redis, 1, token="1" * 12)
    assert not readable(redis)
    grant(redis, 1)
    assert readable(redis)
    grant(redis, 1, token="")
    assert readable(redis), "a bucket that has not caught up takes nothing away that is proven"
    grant(redis, 1, token="1" * 12)
    assert not readable(redis)


@pytest.mark.parametrize("unreadable", [b"", b"{}", b"nonsense", b'{"level":"full"}', b'{"level":"none","at":1}'])
def test_unreadable_consent_counts_as_none_and_is_overwritten(redis: Any, unreadable: bytes) -> None:
    redis.set(LIST, b'{"v":1}')
    redis.set(CONSENT, unreadable)
    assert not readable(redis)
    assert grant(redis, 1) == IN_FORCE
    redis.set(CONSENT, unreadable)
    assert end(redis, 2) == IN_FORCE
    redis.mset({CONSENT: unreadable, GONE: unreadable})
    assert hold(redis, 3) == IN_FORCE


@pytest.mark.parametrize("wants", ["none", "erase"])
def test_full_redis_accepts_withdrawals_and_holds(redis: Any, wants: str) -> None:
    for offset, act in enumerate(
        (
            lambda offset: withdraw(redis, time.time_ns() // 1_000_000, wants),
            lambda offset: end(redis, offset, erase=wants == "erase"),
            lambda offset: hold(redis, offset),
        ),
        start=2,
    ):
        redis.config_set("maxmemory", 0)
        redis.flushall()
        grant(redis, 1)
        assert readable(redis)
        redis.config_set("maxmemory", 1)
        with pytest.raises(Exception, match="maxmemory"):
            redis.set("more", "of it")
        act(offset)
        assert not redis.exists(LIST), "a withdrawal removes where nothing can be added"
        assert not readable(redis)


@pytest.mark.parametrize("ahead_ms", [20, DAY_MS, 1_000 * DAY_MS])
def test_withdrawal_dated_in_the_future_does_not_block_a_later_grant(redis: Any, ahead_ms: int) -> None:
    now = time.time_ns() // 1_000_000
    counted = withdraw(redis, now + ahead_ms)
    assert now <= counted <= time.time_ns() // 1_000_000
    at = ConsentWrite(Level.NONE, 0, now - 20, 0, 4, counted, False)  # the clock of Redis is ahead of the broker's
    assert redis.eval(WRITE_CONSENT.text, 4, *KEYS, *at.arguments(LIFE)) == IN_FORCE
    later = ConsentWrite(Level.FULL, 0, now + 5, 0, 5, counted + 1, False, TOKEN)
    assert redis.eval(WRITE_CONSENT.text, 4, *KEYS, *later.arguments(LIFE)) == IN_FORCE


@pytest.mark.parametrize("said_at", [0, 946_684_800_000])
def test_withdrawal_dated_in_the_past_still_blocks_older_grants(redis: Any, said_at: int) -> None:
    now = time.time_ns() // 1_000_000
    counted = withdraw(redis, said_at)
    assert counted >= now
    offline = ConsentWrite(Level.FULL, 0, now + 1_000, 0, 5, now - 60_000, False, TOKEN)
    assert redis.eval(WRITE_CONSENT.text, 4, *KEYS, *offline.arguments(LIFE)) == REFUSED


def test_earlier_withdrawal_does_not_replace_a_later_time(redis: Any) -> None:
    end(redis, 1, said_at=90)
    end(redis, 2, said_at=10)
    assert withdrawn_at(redis.get(CONSENT)) == withdrawn_at(redis.get(GONE)) == 90
    assert grant(redis, 3, said_at=80) == REFUSED


records = st.lists(st.sampled_from(["grant", "end"]), min_size=6, max_size=6)
acts = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["frontend", "job", "job behind"])), max_size=12)


@settings(max_examples=examples(200), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records, acts)
@pytest.mark.promise("acknowledged-withdrawal")
def test_list_is_readable_only_after_the_job_applied_the_newest_record(
    redis: Any, records: list[str], acts: list[tuple[int, str]]
) -> None:
    """Six records in any order, repeated, by any writer; a job that is behind proves nothing."""
    redis.flushall()
    newest, proven_by_job = -1, False
    for offset, who in acts:
        said_at = 10 * offset
        if records[offset] == "end":
            end(redis, offset, said_at)
        elif who == "frontend":
            hold(redis, offset, said_at)
        else:
            grant(redis, offset, said_at, TOKEN if who == "job" else "")
        by_job = who == "job" and records[offset] == "grant"
        if offset > newest:
            newest, proven_by_job = offset, by_job
        elif offset == newest:
            proven_by_job |= by_job
        assert readable(redis) == proven_by_job


def test_proof_matches_what_the_scripts_compare() -> None:
    assert proven(consent_value(Level.FULL, 0, 1, 0, 2), TOKEN).endswith(proof_of(TOKEN))
