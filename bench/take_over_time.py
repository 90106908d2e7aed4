"""Measures take-overs under load: how late a list is at most while one job takes over from another.

The probes and the load are those of the other parts. A take-over includes the savepoint of the running job, the start
of a second job beside it, its catching up, and the end of the first one.
"""

import threading
import time
from typing import Any, Final, NamedTuple

from bench.clients import producer, send_all
from bench.figures import percentiles
from bench.latency import loaded
from bench.probes import WARM_UP, Probes, probe_users
from bench.progress import Progress
from bench.testbed import BenchTenant, Testbed
from bench.workload import USERS, consent_records, user_id
from deploy.submission import Submission
from deploy.take_over import TakeOver, take_over

RATE: Final = 500
BETWEEN_S: Final = 5.0
QUIET: Final = "quiet"
TAKING_OVER: Final = "taking over"
LOAD_MAX_S: Final = 150
"""How long a take-over may take, at most, on a slow machine: the load goes on for as long."""


class TakeOverPlan(NamedTuple):
    """How many take-overs, and seconds of warm-up and of probes without one."""

    take_overs: int
    warm_up_s: int
    quiet_s: int


class TakeOverTime(NamedTuple):
    """Seconds of whole take-overs, how far the new jobs were behind (ms, a bound), and milliseconds of probes."""

    whole_s: list[float]
    behind_ms: list[int]
    quiet_ms: list[float]
    taking_over_ms: list[float]


def measure(testbed: Testbed, plan: TakeOverPlan) -> TakeOverTime:
    """Measure one run."""
    tenant = testbed.tenant("takeover")
    testbed.empty_redis()
    testbed.submit(tenant)
    consent(testbed, tenant)
    probes = Probes(tenant)
    whole: list[float] = []
    done: list[TakeOver] = []
    seconds = plan.warm_up_s + plan.quiet_s + plan.take_overs * LOAD_MAX_S
    with loaded(tenant, RATE, seconds, seed=1):
        testbed.say(f"{RATE:,} events/s: {plan.warm_up_s} s of warm-up, {plan.quiet_s} s without a take-over")
        probes.run(WARM_UP, plan.warm_up_s)
        probes.run(QUIET, plan.quiet_s)
        for _ in range(plan.take_overs):
            taking_over = threading.Thread(target=_take_over, args=(testbed, tenant, whole, done))
            taking_over.start()
            while taking_over.is_alive():
                probes.run(TAKING_OVER, 0.2)
            probes.run(WARM_UP, BETWEEN_S)
        probes.finish()
    probes.close()
    if len(done) < plan.take_overs:
        raise RuntimeError("a take-over failed")
    testbed.stack.rest.cancel(done[-1].job)
    return TakeOverTime(whole, [one.behind_ms for one in done], probes.found[QUIET], probes.found[TAKING_OVER])


def consent(testbed: Testbed, tenant: BenchTenant) -> None:
    """Let all users of the load and of the probes consent."""
    ids = [*(user_id(user) for user in range(USERS)), *probe_users()]
    testbed.say(f"producing {len(ids):,} consents")
    sending, progress = producer(testbed.servers), Progress(tenant)
    send_all(sending, tenant.settings.topic_names().consents, consent_records(ids, time.time_ns() // 1_000_000))
    sending.close()
    progress.wait(consents=len(ids))
    progress.close()


def _take_over(testbed: Testbed, tenant: BenchTenant, whole: list[float], done: list[TakeOver]) -> None:
    begun = time.monotonic()
    directory = (testbed.stack.directory / "take-overs").as_uri()
    how = Submission(testbed.stack.rest.url, parallelism=1)
    done.append(take_over(tenant.path, tenant.settings, how, directory, False, testbed.say))
    whole.append(time.monotonic() - begun)


def figures(found: TakeOverTime) -> dict[str, Any]:
    """The entries of bench.json."""
    return {
        "take_over_longest_ms": round(max(found.taking_over_ms), 1),
        "take_over_quiet_ms": percentiles(found.quiet_ms),
        "take_over_ms": percentiles(found.taking_over_ms),
        "take_over_behind_ms": max(found.behind_ms),
        "take_over_whole_s": round(max(found.whole_s), 1),
    }


def body(found: TakeOverTime, plan: TakeOverPlan) -> str:
    """The section of RESULTS.md."""
    quiet, meanwhile = percentiles(found.quiet_ms), percentiles(found.taking_over_ms)
    return (
        f"{plan.take_overs} take-overs at {RATE:,} events/s, each by a job from a savepoint of the running one. Event "
        f"to list meanwhile: p50 {meanwhile['p50']:.0f}, p99 {meanwhile['p99']:.0f} ms, longest "
        f"{max(found.taking_over_ms) / 1000:.2f} s of {len(found.taking_over_ms):,} probes; without a take-over p50 "
        f"{quiet['p50']:.0f}, p99 {quiet['p99']:.0f} ms, longest {max(found.quiet_ms) / 1000:.2f} s. A new job was at "
        f"most {max(found.behind_ms)} ms behind when both agreed; a whole take-over took "
        f"{min(found.whole_s):.0f}–{max(found.whole_s):.0f} s."
    )
