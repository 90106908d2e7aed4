"""Metrics of the gateway for Prometheus. No label holds a user, a subject or a path."""

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from schemas import metrics

NO_ROLE: Final = "none"
"""The role of an unauthenticated request."""
AGE_EVERY: Final = 16
"""Of how many reads the age of one list is measured: observing costs a tenth of a read."""


class Meter:
    """The metrics of one worker, in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = _histogram(metrics.REQUEST_SECONDS, registry)
        self._answers = _counter(metrics.ANSWERS, registry)
        self._shed = _counter(metrics.SHED, registry)
        self._ages = _histogram(metrics.LIST_AGE, registry)
        self._redis = _gauge(metrics.GATEWAY_REDIS, registry)
        self._catalogue = _gauge(metrics.GATEWAY_CATALOGUE, registry)
        self._ignored = _counter(metrics.IGNORED, registry)
        self._own_reads = 0
        self._spans_dropped = _counter(metrics.GATEWAY_SPANS_DROPPED, registry)
        self._of_reads: dict[tuple[str, str, int], tuple[Callable[[float], None], Callable[[], None]]] = {}

    def read(self, role: str, reason: str, status: int, seconds: float) -> None:
        """Count an answer of the hot route."""
        of = role, reason, status
        known = self._of_reads.get(of)
        if known is None:
            route = "recommendations"
            known = self._of_reads[of] = (
                self._seconds.labels(route, reason, role).observe,
                self._answers.labels(route, str(status)).inc,
            )
        observe, count = known
        observe(seconds)
        count()

    def own_list(self, at_ms: int, now_ms: int) -> None:
        """Note the age of a user's own list, of every 16th that is read."""
        if self._own_reads % AGE_EVERY == 0:
            self._ages.observe(max(0, now_ms - at_ms) / 1000)
        self._own_reads += 1

    def shed(self) -> None:
        """Count a read that was shed."""
        self._shed.inc()

    def redis(self, tenant: str, state: str, complaints: int) -> None:
        """Set the state of a tenant's Redis. With several workers, a state is 1 if any of them sees it."""
        for name in ("up", "closed", "away"):
            self._redis.labels(tenant, name).set(name == state)
        self._redis.labels(tenant, "complaints").set(complaints)

    def catalogue(self, tenant: str, unread: int) -> None:
        """Set how many records of a tenant's catalogue could not be used."""
        self._catalogue.labels(tenant).set(unread)

    def ignored(self, route: str, count: int) -> None:
        """Count ignored parameters of a read route."""
        self._ignored.labels(route).inc(count)

    def spans_dropped(self, count: int) -> None:
        """Count spans of traces that were dropped."""
        self._spans_dropped.inc(count)

    def refused(self, status: int) -> None:
        """Count an answer to input that was no valid request; it has no duration."""
        self._answers.labels("unknown", str(status)).inc()

    def answered(self, route: str, role: str, status: int, seconds: float) -> None:
        """Count an answer of any other route."""
        self._seconds.labels(route, "", role).observe(seconds)
        self._answers.labels(route, str(status)).inc()


def _counter(metric: metrics.Metric, registry: CollectorRegistry) -> Counter:
    return Counter(metric.full_name.removesuffix("_total"), metric.meaning, metric.labels, registry=registry)


def _gauge(metric: metrics.Metric, registry: CollectorRegistry) -> Gauge:
    """Of several workers, the highest value counts."""
    return Gauge(metric.full_name, metric.meaning, metric.labels, registry=registry, multiprocess_mode="livemax")


def _histogram(metric: metrics.Metric, registry: CollectorRegistry) -> Histogram:
    return Histogram(metric.full_name, metric.meaning, metric.labels, registry=registry, buckets=metric.buckets)
