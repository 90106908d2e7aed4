"""What the gateway counts, for Prometheus. No label holds a user, a subject or a path."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

NOBODY: Final = "none"
"""The role of who is not known."""
BUCKETS_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Meter:
    """The metrics of one worker, in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "freshet_gateway_request_seconds",
            "From the request's first look to the last byte handed over.",
            ("route", "reason", "role"),
            registry=registry,
            buckets=BUCKETS_S,
        )
        self._answers = Counter("freshet_gateway_answers", "Answers by status.", ("route", "status"), registry=registry)
        self._reads: dict[tuple[str, str], Histogram] = {}
        self._statuses: dict[int, Counter] = {}

    def read(self, role: str, reason: str, status: int, seconds: float) -> None:
        """Note an answer of the hot route."""
        known = self._reads.get((role, reason))
        if known is None:
            known = self._reads[role, reason] = self._seconds.labels("recommendations", reason, role)
        known.observe(seconds)
        answers = self._statuses.get(status)
        if answers is None:
            answers = self._statuses[status] = self._answers.labels("recommendations", str(status))
        answers.inc()

    def answered(self, route: str, role: str, status: int, seconds: float) -> None:
        """Note an answer of any other route."""
        self._seconds.labels(route, "", role).observe(seconds)
        self._answers.labels(route, str(status)).inc()
