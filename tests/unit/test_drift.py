"""Drift of rates and of inputs."""

from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import SchemaError
from schemas.events import EVENT_TYPES
from schemas.receipts import DriftReceipt
from tests.support.vocabulary import BEGINNING, HOUR, MINUTE
from udfs.drift import DriftSettings, PageHinkley, psi
from udfs.drift_watch import RATES, WATCHED_MAX, DriftWatch, decode_watch, encode_watch
from udfs.feedback import CountedInput, Counts, FeedbackSums, Series

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


@pytest.mark.parametrize(("rate", "trials"), [(0.99, 1), (0.99, 10), (0.999, 20), (0.7, 3), (0.02, 5)])
def test_rate_of_few_trials_raises_no_alarm_in_a_week(rate: float, trials: int) -> None:
    """Of ten hits, one is rarely beyond the first positions: then the recall of the minute is far below its mean."""
    alarms = [minutes_until_alarm([rate] * 7 * DAY_MINUTES, trials, seed) for seed in range(10)]
    assert alarms == [None] * 10


def shares(*counts: int) -> list[int]:
    return [*counts, *[0] * (len(EVENT_TYPES) - len(counts))]


def sums(kinds: list[int], **inputs: list[int]) -> FeedbackSums:
    """What is counted beside series; the `inputs` of a model are named `unknown_<model>`."""
    found = {what.partition("_"): classes for what, classes in inputs.items()}
    return FeedbackSums({}, kinds, {CountedInput(what, model): classes for (what, _, model), classes in found.items()})


def lists_seen(random: np.random.Generator, first: float, others: float) -> Counts:
    """A minute in which 100 lists of ten were seen: the chance of a hit, at each of the first five and the others."""
    hits = random.binomial(500, first), random.binomial(500, others)
    counts = [int(sum(hits[:places])) for places in (1, 2)]
    return Counts(100, 1_000, counts[1], 0, counts[1], [500, 1_000], counts)


def watched(minutes: int, after: tuple[float, float], seed: int) -> list[DriftReceipt]:
    """The alarms of a day of steady lists, and of the `minutes` after it."""
    random, watch, told = np.random.default_rng(seed), DriftWatch(), []
    for minute in range(DAY_MINUTES + minutes):
        now = BEGINNING + minute * MINUTE
        told += watch.alarms(now, SETTINGS)
        counts = lists_seen(random, *((0.08, 0.02) if minute < DAY_MINUTES else after))
        watch.add({Series("mine", "b", "home"): counts}, sums(shares()), now)
    return told


def test_steady_week_of_lists_raises_no_alarm() -> None:
    assert [alarm for seed in range(5) for alarm in watched(6 * DAY_MINUTES, (0.08, 0.02), seed)] == []


def test_hits_that_move_down_the_list_are_found_though_as_many_are_clicked() -> None:
    for seed in range(5):
        [alarm] = watched(120, (0.05, 0.05), seed)
        assert (alarm.model, alarm.arm) == ("mine", "b")
        assert alarm.what in ("recall_at_5", "precision_at_5")
        assert alarm.now < alarm.before


def test_fall_of_everything_is_one_alarm() -> None:
    for seed in range(5):
        assert len(watched(600, (0.04, 0.01), seed)) == 1


def test_each_rate_of_a_record_is_watched() -> None:
    assert RATES == ("ctr", "precision_at_5", "recall_at_5", "precision_at_10", "recall_at_10")


def hourly(hours: int, inputs: Callable[[int], dict[str, list[int]]]) -> list[DriftReceipt]:
    watch, told = DriftWatch(), []
    for hour in range(hours):
        now = BEGINNING + hour * HOUR
        told += watch.alarms(now, SETTINGS)
        watch.add({}, sums(shares(), **inputs(hour)), now)
        watch = decode_watch(encode_watch(watch))
    assert all(len(of_hours) <= 26 for of_hours in watch.shares.values()), "bounded"
    return told


def test_shorter_histories_are_reported_and_a_daily_rhythm_is_not() -> None:
    def rhythm(hour: int) -> list[int]:
        return [0, 1_000 + 100 * (hour % 3), 1_500, 2_000, 1_500, 1_000]

    assert hourly(7 * 24, lambda hour: {"history": rhythm(hour)}) == []
    new_users = [0, 4_000, 2_000, 500, 300, 200]
    [alarm] = hourly(60, lambda hour: {"history": rhythm(hour) if hour < 40 else new_users})
    assert (alarm.what, alarm.model) == ("history", "")


def test_items_that_the_model_does_not_know_are_reported_by_model() -> None:
    known, unknown = [9_800, 200], [7_500, 2_500]
    [alarm] = hourly(60, lambda hour: {"unknown_mine": known if hour < 40 else unknown, "unknown_other": known})
    assert (alarm.what, alarm.model) == ("unknown", "mine")
    assert hourly(60, lambda hour: {"unknown_mine": unknown if hour < 40 else known}) == [], "it has learned"
    models = {"unknown_mine": known}, {"unknown_other": unknown}
    assert hourly(60, lambda hour: models[hour >= 40]) == [], "another model is not compared with the one before"


def test_state_with_only_click_through_rates_and_kinds_is_continued() -> None:
    test, hour = [50_000, 1_000_000, 3.0, -1.0], BEGINNING // HOUR * HOUR
    stored = [1, BEGINNING, {"mine\nb": [1, 20]}, {"mine\nb": test}, {hour: shares(900, 100)}, True]
    watch = decode_watch(msgspec.msgpack.encode(stored))
    assert watch.minute_at == BEGINNING
    assert watch.tests == {"mine\nb": [PageHinkley(50_000, 1_000_000, 3.0, -1.0), *[PageHinkley()] * 4]}
    assert watch.shares == {"kinds\n": {hour: shares(900, 100)}}
    assert watch.shifted == ["kinds\n"]
    assert decode_watch(encode_watch(watch)) == watch


def test_a_fallen_rate_is_reported_once_by_model_and_arm() -> None:
    watch, told = DriftWatch(), []
    for minute in range(600):
        clicks = 50 if minute < 300 else 30
        now = BEGINNING + minute * MINUTE
        told += watch.alarms(now, SETTINGS)
        counted = {
            Series("mine", "b", surface): Counts(impressions=500, clicks=clicks // 2) for surface in ("home", "item")
        }
        watch.add(counted | {Series("online", "", "home"): Counts(impressions=1_000, clicks=50)}, sums(shares()), now)
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
        watch.add({}, sums([100 * count for count in kinds]), now)
    assert [alarm.what for alarm in told] == ["kinds"]
    assert told[0].now > SETTINGS.psi
    assert len(watch.shares["kinds\n"]) <= 26, "bounded"


def test_few_events_are_no_drift() -> None:
    watch, told = DriftWatch(), []
    for hour in range(40):
        told += watch.alarms(BEGINNING + hour * HOUR, SETTINGS)
        watch.add({}, sums(shares(10, 0) if hour < 20 else shares(0, 10)), BEGINNING + hour * HOUR)
    assert told == []


def test_models_without_end_are_not_kept() -> None:
    watch = DriftWatch()
    for number in range(4 * WATCHED_MAX):
        now = BEGINNING + number * MINUTE
        watch.alarms(now, SETTINGS)
        watch.add({Series(f"m{number}", "", ""): Counts(impressions=10, clicks=1)}, sums(shares()), now)
    assert len(watch.tests) <= WATCHED_MAX


def test_bytes_of_another_release_are_refused() -> None:
    with pytest.raises(SchemaError):
        decode_watch(encode_watch(DriftWatch(version=3)))
