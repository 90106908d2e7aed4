"""The rules of request priority."""

import asyncio
import doctest
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.gateway import admission, caching, gate, listing, questions, roles
from serving.gateway.admission import Admission, AdmissionSettings, Limits, class_of, urgency_of
from serving.gateway.problems import Problem
from serving.gateway.roles import ROLES, URGENCY_BEST, opened_by
from serving.gateway.security import Principal


def somebody(role: str = "frontend", best: int = 0) -> Principal:
    return Principal("s", role, "default", opened_by([role]), best, 0.0)


@given(st.binary(max_size=12))
def test_any_priority_header_is_an_urgency(header: bytes) -> None:
    assert 0 <= urgency_of(header) <= 7


@pytest.mark.parametrize("role", ROLES)
def test_urgency_is_capped_by_role(role: roles.Role) -> None:
    best = URGENCY_BEST[role]
    asked = [class_of(somebody(role, best), urgency) for urgency in range(8)]
    own = ["high" if u <= 2 else "normal" if u <= 4 else "low" for u in (max(best, asked_u) for asked_u in range(8))]
    assert asked == own


def test_low_priority_is_shed_first() -> None:
    settings = AdmissionSettings(low_max=1, normal_max=2, high_max=3)
    taken = []
    for in_progress in range(4):
        found = Admission(settings)
        found.in_progress = in_progress
        taken.append([found.admits(of) for of in ("low", "normal", "high")])
    assert taken == [[True, True, True], [False, True, True], [False, False, True], [False, False, False]]


@given(st.lists(st.floats(0, 3), max_size=60), st.integers(1, 5), st.integers(1, 8))
def test_rate_limit_holds_over_every_time_span(pauses: list[float], rate: int, burst: int) -> None:
    limits = Limits(AdmissionSettings(per_key_rate=rate, per_key_burst=burst))
    now, granted = 100.0, []
    for pause in pauses:
        now += pause
        left = limits.take("s", now)
        if left >= 0:
            granted.append(now)
            assert left <= burst - 1
        else:
            assert limits.retry_after_s("s", now) >= 1
    for begin, first in enumerate(granted):
        for count, last in enumerate(granted[begin:], start=1):
            assert count <= burst + (last - first) * rate + 1e-6


def test_rate_limits_are_per_key_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "KEYS_TRACKED_MAX", 3)
    limits = Limits(AdmissionSettings(per_key_rate=1, per_key_burst=1))
    assert [limits.take(f"s{number}", 1.0) for number in range(10)] == [0] * 10
    assert len(limits._left) == 3 and limits.take("s9", 1.0) == -1


def test_cancelled_request_holds_capacity_until_its_thread_ends() -> None:
    async def story() -> list[int]:
        admitting, ending = Admission(AdmissionSettings(writes_max=1)), threading.Event()
        with ThreadPoolExecutor(1) as threads:
            with admitting.reserve("write"):
                work = threads.submit(ending.wait, 30)
                admitting.reserve_until_done("write", work)
            in_progress = [admitting.writes_in_progress["write"]]
            with pytest.raises(Problem), admitting.reserve("write"):
                pass
            ending.set()
            await asyncio.wrap_future(work)
            async with asyncio.timeout(30):
                while admitting.writes_in_progress["write"]:
                    await asyncio.sleep(0.001)
            with admitting.reserve("write"):
                in_progress.append(admitting.writes_in_progress["write"])
        return in_progress

    assert asyncio.run(story()) == [1, 1]


def test_shed_requests_are_delayed_and_keep_low_priority_shed() -> None:
    settings = AdmissionSettings(shed_wait_ms=40, shed_waiting_max=3)

    async def story() -> list[bool]:
        admitting, loop = Admission(settings), asyncio.get_running_loop()
        assert admitting.admits("low")
        waits = [asyncio.create_task(admitting.pause()) for _ in range(3)]
        await asyncio.sleep(0)
        seen = [admitting.admits("low"), admitting.admits("normal"), admitting.admits("high")]
        begun = loop.time()
        await admitting.pause()
        beyond = loop.time() - begun
        waits[0].cancel()  # whose caller went away
        await asyncio.gather(*waits, return_exceptions=True)
        assert beyond < loop.time() - begun, "beyond the bound nobody waits"
        return [*seen, admitting.admits("low")]

    assert asyncio.run(story()) == [False, True, True, True]


@pytest.mark.parametrize("module", [admission, caching, gate, listing, questions, roles])
def test_examples_hold(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]
