"""Metrics of the gateway for Prometheus. No label holds a user, a subject or a path."""

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

NO_ROLE: Final = "none"
"""The role of an unauthenticated request."""
BUCKETS_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Meter:
    """The metrics of one worker, in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "freshet_gateway_request_seconds",
            "Time from receiving a request to handing over the last byte of its response.",
            ("route", "reason", "role"),
            registry=registry,
            buckets=BUCKETS_S,
        )
        self._answers = Counter(
            "freshet_gateway_answers", "Responses by route and status.", ("route", "status"), registry=registry
        )
        self._redis = Gauge(
            "freshet_gateway_redis",
            "State of a tenant's Redis: 1 for the current one of up, closed (popular lists only) and away. "
            "The state `complaints` counts problems of its configuration.",
            ("tenant", "state"),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._catalogue = Gauge(
            "freshet_gateway_catalogue_unread",
            "Records of a tenant's catalogue that could not be used since the start; their items are withdrawn.",
            ("tenant",),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._ignored = Counter(
            "freshet_gateway_ignored_parameters",
            "Unknown query parameters of read routes, which were ignored.",
            ("route",),
            registry=registry,
        )
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

    def refused(self, status: int) -> None:
        """Count an answer to input that was no valid request; it has no duration."""
        self._answers.labels("unknown", str(status)).inc()

    def answered(self, route: str, role: str, status: int, seconds: float) -> None:
        """Count an answer of any other route."""
        self._seconds.labels(route, "", role).observe(seconds)
        self._answers.labels(route, str(status)).inc()
