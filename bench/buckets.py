"""Measures the cost of the number of buckets: CPU time and latency of the job at two rates and at saturation.

A bucket is the unit in which state is distributed over cores: more buckets let a job scale further, but make each
element smaller. The numbers are measured one after the other in one TaskManager, the first of them twice, because JIT
compilation would count against the first one.
"""

import time
from itertools import islice
from typing import Any, Final, NamedTuple

from bench.clients import hide, producer, send_all
from bench.cpu import CpuMeter
from bench.figures import percentile
from bench.latency import RATES, SETTLE_S, WARM_UP_RATE, loaded
from bench.probes import WARM_UP, Probes, probe_users
from bench.progress import Progress
from bench.results import table
from bench.testbed import BenchTenant, Testbed
from bench.workload import USERS, consent_records, event_records, make_workload, user_id

BUCKETS: Final = (4, 8, 16, 32, 64)
SEED: Final = 64


class BucketCountPlan(NamedTuple):
    """Seconds of warm-up and at each rate, and the number of events at saturation."""

    warm_up_s: int
    measure_s: int
    events: int


class RateCost(NamedTuple):
    """A rate: CPU microseconds of TaskManager and Redis for each event, milliseconds of each probe."""

    cpu_us: float
    ms: list[float]


class BucketCountCost(NamedTuple):
    """The costs of one number of buckets.

    `full_cpu_us` and `full_events` are those at saturation, per event and element.
    """

    buckets: int
    held: dict[int, RateCost]
    full_cpu_us: float
    full_events: float


def measure(testbed: Testbed, plan: BucketCountPlan) -> list[BucketCountCost]:
    """Measure all numbers of buckets; the first one is measured twice, and its first result is discarded."""
    _one(testbed, BUCKETS[0], plan, "buckets-first")
    return [_one(testbed, buckets, plan, f"buckets-{buckets}") for buckets in BUCKETS]


def _one(testbed: Testbed, buckets: int, plan: BucketCountPlan, name: str) -> BucketCountCost:
    testbed.say(f"{buckets} buckets")
    tenant = testbed.tenant(name, f"[job]\nbuckets = {buckets}\n")
    testbed.empty_redis()
    job, progress = testbed.submit(tenant), Progress(tenant)
    ids = [*(user_id(user) for user in range(USERS)), *probe_users()]
    sending = producer(testbed.servers)
    send_all(sending, tenant.settings.topic_names().consents, consent_records(ids, time.time_ns() // 1_000_000))
    sending.close()
    progress.wait(consents=len(ids))
    probes = Probes(tenant)
    _hold(testbed, tenant, probes, WARM_UP_RATE, plan.warm_up_s)
    held = {rate: _hold(testbed, tenant, probes, rate, plan.measure_s) for rate in RATES}
    probes.close()
    full = _saturated(testbed, tenant, progress, plan.events)
    progress.close()
    testbed.stack.rest.cancel(job)
    return BucketCountCost(buckets, held, *full)


def _hold(testbed: Testbed, tenant: BenchTenant, probes: Probes, rate: int, seconds: int) -> RateCost:
    with loaded(tenant, rate, SETTLE_S + seconds, seed=rate):
        probes.run(WARM_UP, SETTLE_S)
        meter = CpuMeter(testbed.pids("taskmanager", "redis"))
        probes.run(str(rate), seconds)
        cpu_s = sum(meter.since_begin().values())
        probes.finish()
    return RateCost(cpu_s / (rate * seconds) * 1e6, probes.found.get(str(rate), []))


def _saturated(testbed: Testbed, tenant: BenchTenant, progress: Progress, events: int) -> tuple[float, float]:
    """Drain as in the throughput part: all events become visible at once."""
    topic = tenant.settings.topic_names().interactions
    begin_ms = time.time_ns() // 1_000_000 - 3_600_000
    records = event_records(make_workload(events, begin_ms, SEED))
    hidden = hide(testbed.servers, topic, islice(records, events))
    sent, elements = _settled(progress), progress.elements
    meter = CpuMeter(testbed.pids("taskmanager", "redis"))
    hidden.commit_transaction()
    progress.wait(sent=sent + events)
    cpu_s = sum(meter.since_begin().values())
    hidden.close()
    return cpu_s / events * 1e6, events / (progress.elements - elements)


def _settled(progress: Progress) -> int:
    """The number of interactions counted once it no longer increases."""
    before, now = -1, progress.wait()["sent"]
    while now != before:
        time.sleep(1)
        before, now = now, progress.wait()["sent"]
    return now


def figures(costs: list[BucketCountCost]) -> dict[str, Any]:
    """The entries of bench.json."""
    return {
        "buckets": {
            str(cost.buckets): {
                **{f"cpu_us_at_{rate}": round(held.cpu_us) for rate, held in cost.held.items()},
                **{f"p99_ms_at_{rate}": round(percentile(held.ms, 99), 1) for rate, held in cost.held.items()},
                "cpu_us_at_saturation": round(cost.full_cpu_us, 1),
                "events_an_element": round(cost.full_events, 1),
            }
            for cost in costs
        }
    }


def body(costs: list[BucketCountCost], plan: BucketCountPlan) -> str:
    """The section of RESULTS.md."""
    text = (
        f"CPU time of TaskManager and Redis for each event, and event → list, with one TaskManager of two cores; "
        f"{plan.measure_s} s at each rate, {plan.events:,} events at saturation. In parentheses: beside "
        f"{costs[0].buckets} buckets."
    )
    rates = list(costs[0].held)
    head = ["buckets"]
    for rate in rates:
        head += [f"{rate:,}/s: µs", "p50 ms", "p99 ms"]
    head += ["saturation: µs", "events an element"]
    rows = []
    for cost in costs:
        row = [str(cost.buckets)]
        for rate in rates:
            held, first = cost.held[rate], costs[0].held[rate]
            row.append(f"{held.cpu_us:,.0f} ({held.cpu_us / first.cpu_us:.2f})")
            row += [f"{percentile(held.ms, 50):.1f}", f"{percentile(held.ms, 99):.1f}"]
        row.append(f"{cost.full_cpu_us:,.0f} ({cost.full_cpu_us / costs[0].full_cpu_us:.2f})")
        rows.append([*row, f"{cost.full_events:.1f}"])
    return "\n\n".join([text, table(head, rows)])
