"""Measures what it costs that Prometheus reads the job's metrics.

Flink's reporter works only when it is asked, in threads of its own: their CPU time in the TaskManager is the figure.
"""

import time
from typing import Any, Final, NamedTuple

from adapters.http_client import HttpClient
from bench.cpu import thread_seconds
from bench.rebuild_time import lists_for
from bench.testbed import Testbed
from bench.throughput import TASK_MANAGER
from deploy.local.flink_reporter import SWITCHED_ON

REPORTER: Final = "prometheus-http"
"""The beginning of the names of the reporter's threads: Linux keeps 15 characters."""
SHIPPED_EVERY_S: Final = 15.0
"""As in `deploy/prometheus/prometheus.yml`."""
WARM_UP_READS: Final = 50
USERS: Final = 100
FLINK: Final = SWITCHED_ON
"""The settings of the stack."""


class MetricReads(NamedTuple):
    """Reads of the TaskManager's metrics: how many, the bytes and series of one, and CPU seconds of all of them."""

    reads: int
    bytes: int
    series: int
    cpu_s: float

    @property
    def core_share(self) -> float:
        """The share of a core that reading as often as shipped takes."""
        return self.cpu_s / self.reads / SHIPPED_EVERY_S


def measure(testbed: Testbed, reads: int) -> MetricReads:
    """Read so many times, from a job with a few lists."""
    tenant = testbed.tenant("metrics")
    testbed.empty_redis()
    job = testbed.submit(tenant)
    lists_for(testbed, tenant, USERS)
    time.sleep(2)  # operators hand on their metrics each second
    client = HttpClient(testbed.stack.flink.metrics()[f"metrics-{TASK_MANAGER}"], 60)
    pid = testbed.pids(TASK_MANAGER)[TASK_MANAGER]
    testbed.say(f"reading {WARM_UP_READS} times as a warm-up, and {reads} times")
    for _ in range(WARM_UP_READS):
        client.get()
    before = thread_seconds(pid)[REPORTER]
    bodies = [client.get().body for _ in range(reads)]
    cpu_s = thread_seconds(pid)[REPORTER] - before
    testbed.stack.rest.cancel(job)
    last = bodies[-1]
    series = sum(1 for line in last.splitlines() if line and not line.startswith(b"#"))
    return MetricReads(reads, len(last), series, cpu_s)


def figures(found: MetricReads) -> dict[str, Any]:
    """The entries of bench.json."""
    return {"metrics_core_share": round(found.core_share, 5)}


def body(found: MetricReads) -> str:
    """The section of RESULTS.md."""
    return (
        f"Reading the metrics of the TaskManager ({found.series:,} series, {found.bytes / 1e3:,.0f} KB) takes "
        f"{1000 * found.cpu_s / found.reads:.0f} ms of its CPU (mean of {found.reads}): {found.core_share:.2%} of a "
        f"core at every {SHIPPED_EVERY_S:g} s, as shipped."
    )
