"""Drift of rates and of inputs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import SchemaError
from schemas.events import EVENT_TYPES
from tests.support.vocabulary import BEGINNING, HOUR, MINUTE
from udfs.drift import DriftSettings, PageHinkley, psi
from udfs.drift_watch import WATCHED_MAX, DriftWatch, decode_watch, encode_watch
from udfs.feedback import Counts, Series

SETTINGS = DriftSettings()
DAY_MINUTES = 24 * 60


def minutes_until_alarm(rates: list[float], impressions: int, seed: int) -> int | None:
    """After how many minutes, of these click-through rates, an alarm came."""
    random, test = np.random.default_rng(seed), PageHinkley()
    for minute, rate in enumerate(rates):
        if test.add(int(random.binomial(impressions, rate)), impressions, SETTINGS):
            return minute
    return None


@pytest.mark.parametrize("impressions", [20, 1_000])
def test_a_steady_rate_raises_no_alarm_in_a_week(impressions: int) -> None:
    alarms = [minutes_until_alarm([0.05] * 7 * DAY_MINUTES, impressions, seed) for seed in range(20)]
    assert alarms == [None] * 20


def test_a_fall_by_a_fifth_is_found_within_the_hour() -> None:
    before = [0.05] * DAY_MINUTES
    for seed in range(20):
        found = minutes_until_alarm([*before, *[0.04] * 60], 1_000, seed)
        assert found is not None
        assert DAY_MINUTES <= found < DAY_MINUTES + 60


def test_a_rise_is_no_alarm() -> None:
    assert minutes_until_alarm([*[0.05] * DAY_MINUTES, *[0.08] * 600], 1_000, 1) is None


def test_quiet_minutes_count_less_than_busy_ones() -> None:
    fallen = [*[0.05] * DAY_MINUTES, *[0.04] * 60]
    assert minutes_until_alarm(fallen, 5, 1) is None


def test_after_an_alarm_the_new_rate_is_the_normal_one() -> None:
    random, test = np.random.default_rng(1), PageHinkley()
    rates = [*[0.05] * DAY_MINUTES, *[0.03] * 2 * DAY_MINUTES]
    assert sum(test.add(int(random.binomial(1_000, rate)), 1_000, SETTINGS) for rate in rates) == 1


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), max_size=200))
def test_no_counts_break_it(minutes: list[tuple[int, int]]) -> None:
    test = PageHinkley()
    for successes, more in minutes:
        test.add(successes, successes + more, SETTINGS)


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=12))
def test_psi_of_the_same_shares_is_nothing(counts: list[int]) -> None:
    assert psi(counts, [7 * count for count in counts]) == pytest.approx(0.0, abs=1e-9)


def test_psi_rises_with_the_difference() -> None:
    before = [700, 200, 100]
    slight, much = psi(before, [680, 210, 110]), psi(before, [300, 300, 400])
    assert 0 < slight < 0.1 < 0.25 < much
    assert psi(before, [1_000, 0, 0]) < 10, "an empty class is no infinity"


def shares(*counts: int) -> list[int]:
    return [*counts, *[0] * (len(EVENT_TYPES) - len(counts))]


def test_a_fallen_rate_is_reported_once_by_model_and_arm() -> None:
    watch, told = DriftWatch(), []
    for minute in range(600):
        clicks = 50 if minute < 300 else 30
        now = BEGINNING + minute * MINUTE
        told += watch.alarms(now, SETTINGS)
        counted = {
            Series("mine", "b", surface): Counts(impressions=500, clicks=clicks // 2) for surface in ("home", "item")
        }
        watch.add(counted | {Series("online", "", "home"): Counts(impressions=1_000, clicks=50)}, shares(), now)
        watch = decode_watch(encode_watch(watch))
    [alarm] = told
    assert (alarm.what, alarm.model, alarm.arm) == ("ctr", "mine", "b")
    assert alarm.before == pytest.approx(0.05, abs=0.002)
    assert alarm.now == pytest.approx(0.03)
    assert BEGINNING + 300 * MINUTE < alarm.at < BEGINNING + 330 * MINUTE


def test_other_kinds_of_events_are_reported_once_until_they_return() -> None:
    watch, told = DriftWatch(), []
    for hour in range(60):
        kinds = shares(10, 60, 30) if hour < 20 or hour > 30 else shares(60, 20, 20)
        now = BEGINNING + hour * HOUR
        told += watch.alarms(now, SETTINGS)
        watch.add({}, [100 * count for count in kinds], now)
    assert [alarm.what for alarm in told] == ["kinds"]
    assert told[0].now > SETTINGS.psi
    assert len(watch.kinds) <= 26, "bounded"


def test_few_events_are_no_drift() -> None:
    watch, told = DriftWatch(), []
    for hour in range(40):
        told += watch.alarms(BEGINNING + hour * HOUR, SETTINGS)
        watch.add({}, shares(10, 0) if hour < 20 else shares(0, 10), BEGINNING + hour * HOUR)
    assert told == []


def test_models_without_end_are_not_kept() -> None:
    watch = DriftWatch()
    for number in range(4 * WATCHED_MAX):
        now = BEGINNING + number * MINUTE
        watch.alarms(now, SETTINGS)
        watch.add({Series(f"m{number}", "", ""): Counts(impressions=10, clicks=1)}, shares(), now)
    assert len(watch.tests) <= WATCHED_MAX


def test_bytes_of_another_release_are_refused() -> None:
    with pytest.raises(SchemaError):
        decode_watch(encode_watch(DriftWatch(version=2)))
