"""Event-to-list latency under open-loop load, compared with a plain consumer's latency for the same probe events.

After the consents of all users, the job is warmed up (JIT compilation takes minutes). Then each rate is held, and its
first seconds are not counted. Load, plain consumer and probes are three processes; all use the same clock.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from bench.clients import producer, send_all
from bench.cpu import CpuMeter
from bench.figures import percentiles
from bench.probes import WARM_UP, Probes, probe_users
from bench.progress import Progress
from bench.testbed import BenchTenant, Testbed, python
from bench.workload import USERS, consent_records, user_id

RATES: Final = (500, 2_000)
WARM_UP_RATE: Final = 2_500
SETTLE_S: Final = 5


class LatencyPlan(NamedTuple):
    """Seconds of warm-up, and of measurement at each rate."""

    warm_up_s: int
    measure_s: int


class Latency(NamedTuple):
    """Results for one rate: milliseconds of each probe, in the job and the plain consumer; the load's maximum delay.

    `cores` are CPU seconds per second, by process. Kafka's serve the load, the plain consumer and the probes, too.
    """

    rate: int
    job_ms: list[float]
    plain_ms: list[float]
    load_late_s: float
    cores: dict[str, float]


def measure(testbed: Testbed, plan: LatencyPlan) -> list[Latency]:
    """Measure all rates, in one run."""
    tenant = testbed.tenant("latency")
    testbed.empty_redis()
    kafka = tenant.settings.kafka
    job, progress = testbed.submit(tenant), Progress(tenant)
    sending = producer(kafka.bootstrap_servers)
    ids = [*(user_id(user) for user in range(USERS)), *probe_users()]
    testbed.say(f"producing {len(ids):,} consents")
    send_all(sending, tenant.settings.topic_names().consents, consent_records(ids, time.time_ns() // 1_000_000))
    sending.close()
    progress.wait(consents=len(ids))
    progress.close()
    probes = Probes(tenant)
    with _listener(tenant) as listener:
        testbed.say(f"warming up for {plan.warm_up_s} s at {WARM_UP_RATE:,} events/s")
        meter = _meter(testbed)
        _hold(tenant, probes, WARM_UP_RATE, 0, plan.warm_up_s, 1, meter)
        held = {}
        for rate in RATES:
            testbed.say(f"{rate:,} events/s: {SETTLE_S} s to settle, {plan.measure_s} s measured")
            held[rate] = _hold(tenant, probes, rate, plan.measure_s, SETTLE_S, rate, meter)
        plain = json.loads(_ended(listener))
    probes.close()
    testbed.stack.rest.cancel(job)
    return [Latency(rate, probes.found[str(rate)], plain[str(rate)], *held[rate]) for rate in RATES]


def _meter(testbed: Testbed) -> Callable[[], CpuMeter]:
    pids = testbed.pids("taskmanager", "kafka", "redis")
    return lambda: CpuMeter(pids)


def _hold(
    tenant: BenchTenant,
    probes: Probes,
    rate: int,
    seconds: int,
    settle_s: int,
    seed: int,
    meter: Callable[[], CpuMeter],
) -> tuple[float, dict[str, float]]:
    """Hold a rate while probes run; returns the maximum delay of the load, and the cores used by each process."""
    with loaded(tenant, rate, settle_s + seconds, seed) as late_s:
        probes.run(WARM_UP, settle_s)
        begin_s, used = time.monotonic(), meter()
        probes.run(str(rate), seconds)
        elapsed_s = time.monotonic() - begin_s
        cores = {name: spent / elapsed_s for name, spent in used.since_begin().items()} if seconds else {}
        probes.finish()
    return late_s(), cores


@contextlib.contextmanager
def loaded(tenant: BenchTenant, rate: int, seconds: int, seed: int) -> Iterator[Callable[[], float]]:
    """Send `rate` events per second while the block runs, until all are sent; then report the maximum delay."""
    numbers = {"--rate": rate, "--seconds": seconds, "--seed": seed}
    words = [word for option, number in numbers.items() for word in (option, str(number))]
    late_s: list[float] = []
    with python("-m", "bench.load", "--settings", str(tenant.path), *words) as load:
        _expect_ready(load)
        load.stdin.write("go\n")  # type: ignore[union-attr]
        load.stdin.flush()  # type: ignore[union-attr]
        yield lambda: late_s[0]
        late_s.append(float(load.stdout.readline()))  # type: ignore[union-attr]


@contextlib.contextmanager
def _listener(tenant: BenchTenant) -> Iterator[Any]:
    with python("-m", "bench.listener", "--settings", str(tenant.path)) as process:
        _expect_ready(process)
        yield process


def _expect_ready(process: Any) -> None:
    if process.stdout.readline() != "ready\n":
        raise RuntimeError(f"{' '.join(process.args[1:3])} ended early")


def _ended(process: Any) -> str:
    process.stdin.close()
    return str(process.stdout.readline())


def figures(measured: list[Latency]) -> dict[str, Any]:
    """The entries of bench.json."""
    return {
        "latency_ms": {str(latency.rate): percentiles(latency.job_ms) for latency in measured},
        "plain_latency_ms": {str(latency.rate): percentiles(latency.plain_ms) for latency in measured},
        "cores": {str(latency.rate): round(sum(latency.cores.values()), 2) for latency in measured},
    }
