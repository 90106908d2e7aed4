"""Histograms and gauges of Flink's counters, and the list of all metrics."""

import re

import pytest

from schemas.metrics import FEEDBACK_LABELS, GATEWAY, JOB, MODEL_BUCKETS, Metric
from tests.support.fakes import Keyed
from udfs.operators.meters import Meters, ModelLevels

WAITS = Metric("wait_seconds", "histogram", "tests", "Waits.", "seconds", buckets=(0.1, 1.0))


def test_histogram_is_cumulative_and_its_sum_loses_nothing() -> None:
    keyed = Keyed()
    meters = Meters(keyed)
    waits = meters.histogram(WAITS)
    for value in (0.1, 0.4, 0.4, 30.4):
        waits.observe(value)
    meters.flush(1_000)
    assert keyed.counts == {
        'wait_seconds_bucket{le="0.1"}': 1,
        'wait_seconds_bucket{le="1.0"}': 3,
        'wait_seconds_bucket{le="+Inf"}': 4,
        "wait_seconds_sum": 31,
        "wait_seconds_count": 4,
    }
    waits.observe(0.75)
    meters.flush(2_000)
    assert (keyed.counts["wait_seconds_sum"], keyed.counts["wait_seconds_count"]) == (32, 5)


def test_histograms_are_handed_on_once_a_second_even_if_the_clock_steps_back() -> None:
    keyed = Keyed()
    meters = Meters(keyed)
    waits = meters.histogram(WAITS)
    for now_ms, told in ((10_000, 1), (10_900, 1), (11_000, 3), (5_000, 4)):
        waits.observe(0.1)
        meters.flush(now_ms)
        assert keyed.counts["wait_seconds_count"] == told


def test_each_counter_is_touched_once_so_that_process_mode_exports_it() -> None:
    touched: list[int] = []

    class Touched:
        def inc(self, value: int = 1) -> None:
            touched.append(value)

    class Group:
        def get_metrics_group(self) -> "Group":
            return self

        def add_group(self, *names: str) -> "Group":
            return self

        def counter(self, name: str) -> Touched:
            return Touched()

    meters = Meters(Group())
    meters.counter(Metric("a_total", "counter", "tests", "A."))
    meters.flush(0)
    meters.flush(5_000)
    assert touched == [0]


def test_buckets_move_between_models_of_a_bounded_number() -> None:
    keyed = Keyed()
    serving = ModelLevels(Meters(keyed), MODEL_BUCKETS)
    serving.serve("bucket 1", "a")
    serving.serve("bucket 2", "a")
    serving.serve("bucket 1", "b")
    serving.serve("bucket 1", "b")
    assert keyed.counts == {'model_buckets{model="a"}': 1, 'model_buckets{model="b"}': 1}
    for number in range(100):
        serving.serve("bucket 3", f"model-{number}")
    assert len(keyed.counts) == ModelLevels.MODELS_MAX + 1
    assert keyed.counts['model_buckets{model="other"}'] == 1
    assert sum(keyed.counts.values()) == 3


@pytest.mark.parametrize("metric", [*JOB, *GATEWAY], ids=lambda metric: metric.name)
def test_names_follow_prometheus(metric: Metric) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert not re.search(r"_(ms|milliseconds|minutes|bytes_total_total)(_|$)", metric.name)
    assert (metric.unit == "seconds") == ("seconds" in metric.name)
    assert metric.buckets == tuple(sorted(metric.buckets)) and bool(metric.buckets) == (metric.kind == "histogram")
    assert metric.meaning.endswith((".", "for what."))


def test_no_label_names_a_user_or_an_item() -> None:
    labels = {label for metric in (*JOB, *GATEWAY) for label in metric.labels}
    of_gateway = {"route", "reason", "role", "status", "tenant", "state"}
    assert labels == {"outcome", "reason", "model", *FEEDBACK_LABELS, *of_gateway}
