"""How long an outage of Redis is tolerated, how it is logged, and that a cancelled task stops waiting."""

import itertools
import logging
from collections.abc import Callable
from typing import Any

import pytest

from schemas.errors import Interrupted, StoreMisconfigured, StoreUnavailable
from udfs.operators.patience import NAP_S, PAUSE_FIRST_S, PAUSE_MAX_S, Patience


class Time:
    """A clock that only advances by sleeping."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.naps: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now_s += seconds

    def patience(self, outage_max_ms: int, **options: Any) -> Patience:
        return Patience(outage_max_ms, sleep=self.sleep, clock_s=lambda: self.now_s, **options)


def away_until(time: Time, end_s: float, asked: list[float]) -> Callable[[], str]:
    def call() -> str:
        asked.append(time.now_s)
        if time.now_s < end_s:
            raise StoreUnavailable("Redis did not answer: TimeoutError")
        return "answered"

    return call


def test_pauses_double_up_to_a_limit_and_every_failure_is_counted() -> None:
    time = Time()
    asked: list[float] = []
    failures: list[int] = []
    assert time.patience(60_000)(away_until(time, 20, asked), lambda: failures.append(1)) == "answered"
    pauses = [after - before for before, after in itertools.pairwise(asked)]
    assert pauses[:3] == pytest.approx([PAUSE_FIRST_S, 2 * PAUSE_FIRST_S, 4 * PAUSE_FIRST_S])
    assert max(pauses) == pytest.approx(PAUSE_MAX_S) and pauses[-1] == pytest.approx(PAUSE_MAX_S)
    assert len(failures) == len(asked) - 1


def test_outage_beyond_the_limit_ends_the_task() -> None:
    time = Time()
    assert time.patience(3_600_000)(away_until(time, 3_500, []), lambda: None) == "answered"
    time = Time()
    with pytest.raises(StoreUnavailable):
        time.patience(3_600_000)(away_until(time, 4_000, []), lambda: None)
    assert 3_600 <= time.now_s <= 3_600 + 2 * PAUSE_MAX_S


def test_cancelled_task_stops_waiting_quickly() -> None:
    time = Time()
    asked: list[float] = []
    wait = time.patience(3_600_000, interrupted=lambda: time.now_s >= 100)
    with pytest.raises(Interrupted):
        wait(away_until(time, 4_000, asked), lambda: None)
    assert time.now_s <= 100 + 2 * NAP_S and max(time.naps) <= NAP_S + 1e-9


def test_long_outage_is_logged_at_growing_intervals(caplog: pytest.LogCaptureFixture) -> None:
    time = Time()
    with caplog.at_level(logging.WARNING):
        time.patience(7_200_000)(away_until(time, 7_000, []), lambda: None)
    told = [record.getMessage() for record in caplog.records]
    assert 12 <= len(told) <= 45, "neither silent nor a line for each of 3,500 tries"
    assert "answers again" in told[-1] and "TimeoutError" in told[0]


def test_permanent_errors_are_not_retried() -> None:
    calls: list[int] = []

    def misconfigured() -> None:
        calls.append(1)
        raise StoreMisconfigured("Redis refuses (NOPERM, keys t.*)")

    with pytest.raises(StoreMisconfigured):
        Time().patience(60_000)(misconfigured, lambda: None)
    assert calls == [1]
