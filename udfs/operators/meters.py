"""The metrics of an operator in Flink: counters, and the gauges and histograms that are made of counters.

Counters are all that PyFlink exports correctly in both execution modes: in thread mode a Java thread would read a
Python gauge, and in process mode a distribution exports 0. A histogram is one counter for each cumulative bucket, as
Prometheus wants it. Calls into Flink cost more than sums in Python, so histograms hand on theirs once a second.
"""

from bisect import bisect_left
from typing import Any, Final

from schemas.metrics import GROUP, Metric

FLUSH_EVERY_MS: Final = 1_000
OTHER: Final = "other"


class Meters:
    """Makes the metrics of one operator from Flink's `context`; :meth:`flush` hands on what histograms have seen."""

    def __init__(self, context: Any) -> None:
        self._root = context.get_metrics_group()
        self._histograms: list[HistogramMeter] = []
        self._flushed_ms = 0
        self._new: list[Any] = []

    def counter(self, metric: Metric, *values: str) -> Any:
        """The counter of `metric` whose labels have `values`; it has the method `inc`."""
        assert len(values) == len(metric.labels), metric.name
        return self._counter(metric.name, dict(zip(metric.labels, values, strict=True)))

    def counters(self, metric: Metric) -> dict[str, Any]:
        """A counter for each value of the label of `metric`."""
        return {value: self.counter(metric, value) for value in metric.values}

    def gauge(self, metric: Metric, *values: str) -> "GaugeMeter":
        """The gauge `metric`."""
        return GaugeMeter(self.counter(metric, *values))

    def histogram(self, metric: Metric) -> "HistogramMeter":
        """The histogram `metric`."""
        bounds = [*map(bound_text, metric.buckets), "+Inf"]
        buckets = [self._counter(f"{metric.name}_bucket", {"le": bound}) for bound in bounds]
        counts = self._counter(f"{metric.name}_sum", {}), self._counter(f"{metric.name}_count", {})
        made = HistogramMeter(metric.buckets, buckets, *counts)
        self._histograms.append(made)
        return made

    def flush(self, now_ms: int) -> None:
        """Hand on what histograms have seen, at most once a second. Call it for each element or timer.

        In process mode, a counter exists for Flink once it was touched while an element or a timer is processed.
        """
        for counter in self._new:
            counter.inc(0)
        self._new = []
        if now_ms - self._flushed_ms >= FLUSH_EVERY_MS or now_ms < self._flushed_ms:
            self._flushed_ms = now_ms
            for histogram in self._histograms:
                histogram.flush()

    def _counter(self, name: str, labels: dict[str, str]) -> Any:
        group = self._root
        for label, value in labels.items():
            group = group.add_group(label, value)
        self._new.append(counter := group.add_group(GROUP).counter(name))
        return counter


class GaugeMeter:
    """A gauge of integers."""

    def __init__(self, counter: Any) -> None:
        self._counter, self._value = counter, 0

    def set(self, value: int) -> None:
        """Show `value`."""
        if value != self._value:
            self._counter.inc(value - self._value)
            self._value = value

    def add(self, difference: int) -> None:
        """Show `difference` more than before."""
        self.set(self._value + difference)


class HistogramMeter:
    """A histogram. Its sum grows by whole units, because Flink's counters are integers; the rest is kept for later."""

    def __init__(self, bounds: tuple[float, ...], buckets: list[Any], total: Any, count: Any) -> None:
        self._bounds, self._buckets, self._total, self._count = bounds, buckets, total, count
        self._seen = [0] * len(buckets)
        self._sum = 0.0
        self._is_flushed = True

    def observe(self, value: float) -> None:
        """Count `value`, in the unit of the metric."""
        self._seen[bisect_left(self._bounds, value)] += 1
        self._sum += value
        self._is_flushed = False

    def flush(self) -> None:
        """Hand on to Flink what was observed since the last call."""
        if self._is_flushed:
            return
        so_far = 0
        for number, counter in zip(self._seen, self._buckets, strict=True):
            so_far += number
            if so_far:
                counter.inc(so_far)
        self._count.inc(so_far)
        whole = int(self._sum)
        if whole:
            self._total.inc(whole)
        self._seen = [0] * len(self._buckets)
        self._sum -= whole
        self._is_flushed = True


class ModelLevels:
    """How many buckets each model serves: a gauge for each model, of a bounded number of models."""

    MODELS_MAX: Final = 16

    def __init__(self, meters: Meters, metric: Metric) -> None:
        self._meters, self._metric = meters, metric
        self._levels: dict[str, GaugeMeter] = {}
        self._serving: dict[Any, GaugeMeter] = {}

    def serve(self, bucket: Any, model: str) -> None:
        """Bucket `bucket` is served by `model` from now on."""
        if model not in self._levels and len(self._levels) >= self.MODELS_MAX:
            model = OTHER
        level = self._levels.get(model)
        if level is None:
            level = self._levels[model] = self._meters.gauge(self._metric, model)
        before = self._serving.get(bucket)
        if before is not level:
            if before is not None:
                before.add(-1)
            level.add(1)
            self._serving[bucket] = level


def bound_text(bound: float) -> str:
    """A bound as Prometheus writes it in the label `le`.

    >>> bound_text(0.005), bound_text(1.0), bound_text(604_800.0)
    ('0.005', '1.0', '604800.0')
    """
    return str(bound)
