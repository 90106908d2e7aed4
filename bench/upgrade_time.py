"""Measures upgrades under load: how late a list is at most while `freshet upgrade` replaces the job, and why.

The probes and the load are those of the other parts. Each upgrade replaces the job by one of the same code, on the same
TaskManagers.
"""

import threading
from functools import partial
from typing import Any, Final, NamedTuple

from adapters.flink.rest import FlinkRest
from bench.figures import percentiles
from bench.latency import loaded
from bench.probes import WARM_UP, Probes
from bench.take_over_time import consent
from bench.testbed import BenchTenant, Testbed
from deploy.submission import Submission
from deploy.upgrade import Safety, UpgradeResult, upgrade
from privacy.canary import prove

RATE: Final = 200
BETWEEN_S: Final = 5.0
QUIET: Final = "quiet"
UPGRADING: Final = "upgrading"
LOAD_MAX_S: Final = 150
"""How long an upgrade may take, at most, on a slow machine: the load goes on for as long."""
VERIFY_S: Final = 60.0
STARTING: Final = ("SCHEDULED", "DEPLOYING", "INITIALIZING")
"""The states of a task until it runs. It opens its operators and restores their state while it is initialising."""


class UpgradePlan(NamedTuple):
    """How many upgrades, and seconds of warm-up and of probes without one."""

    upgrades: int
    warm_up_s: int
    quiet_s: int


class UpgradeTime(NamedTuple):
    """The upgrades, the ms that the slowest task of each spent in each state, and milliseconds of probes."""

    upgrades: list[UpgradeResult]
    starting_ms: list[dict[str, int]]
    quiet_ms: list[float]
    upgrading_ms: list[float]


def measure(testbed: Testbed, plan: UpgradePlan) -> UpgradeTime:
    """Measure one run."""
    tenant = testbed.tenant("upgrade")
    testbed.empty_redis()
    testbed.submit(tenant)
    consent(testbed, tenant)
    probes = Probes(tenant)
    done: list[UpgradeResult] = []
    starting: list[dict[str, int]] = []
    with loaded(tenant, RATE, plan.warm_up_s + plan.quiet_s + plan.upgrades * LOAD_MAX_S, seed=1):
        testbed.say(f"{RATE:,} events/s: {plan.warm_up_s} s of warm-up, {plan.quiet_s} s without an upgrade")
        probes.run(WARM_UP, plan.warm_up_s)
        probes.run(QUIET, plan.quiet_s)
        for _ in range(plan.upgrades):
            upgrading = threading.Thread(target=_upgrade, args=(testbed, tenant, done))
            upgrading.start()
            while upgrading.is_alive():
                probes.run(UPGRADING, 0.2)
            starting += [_starting_ms(testbed.stack.rest, one.job) for one in done[len(starting) :]]
            probes.run(WARM_UP, BETWEEN_S)
        probes.finish()
    probes.close()
    if len(done) < plan.upgrades:
        raise RuntimeError("an upgrade failed")
    testbed.stack.rest.cancel(done[-1].job)
    return UpgradeTime(done, starting, probes.found[QUIET], probes.found[UPGRADING])


def _upgrade(testbed: Testbed, tenant: BenchTenant, done: list[UpgradeResult]) -> None:
    directory = (testbed.stack.directory / "upgrades").as_uri()
    how = Submission(testbed.stack.rest.url, parallelism=1)
    safety = Safety(VERIFY_S, partial(prove, tenant.settings, VERIFY_S))
    done.append(upgrade(tenant.path, tenant.settings.job.name, how, directory, safety, testbed.say))


def _starting_ms(rest: FlinkRest, job: str) -> dict[str, int]:
    vertices = [rest.get(f"/jobs/{job}/vertices/{one['id']}") for one in rest.get(f"/jobs/{job}")["vertices"]]
    durations = [subtask["status-duration"] for vertex in vertices for subtask in vertex["subtasks"]]
    return {state: max(max(0, of.get(state, 0)) for of in durations) for state in STARTING}


def figures(found: UpgradeTime) -> dict[str, Any]:
    """The entries of bench.json."""
    return {
        "upgrade_longest_ms": round(max(found.upgrading_ms), 1),
        "upgrade_quiet_ms": percentiles(found.quiet_ms),
        "upgrade_stopped_s": round(max(one.stopped_s for one in found.upgrades), 1),
    }


def body(found: UpgradeTime, plan: UpgradePlan) -> str:
    """The section of RESULTS.md."""
    quiet = percentiles(found.quiet_ms)
    slowest = max(range(plan.upgrades), key=lambda number: found.upgrades[number].stopped_s)
    one, starting = found.upgrades[slowest], found.starting_ms[slowest]
    tasks = ", ".join(f"{state.lower()} {ms / 1000:.1f} s" for state, ms in starting.items())
    return (
        f"{plan.upgrades} upgrades at {RATE:,} events/s. Event to list meanwhile: longest "
        f"{max(found.upgrading_ms) / 1000:.1f} s of {len(found.upgrading_ms):,} probes; without an upgrade p50 "
        f"{quiet['p50']:.0f}, p99 {quiet['p99']:.0f} ms. In the slowest upgrade, all tasks ran {one.stopped_s:.1f} s "
        f"after the order to stop: savepoint and stop {one.saved_s:.1f} s, submission "
        f"{one.submitted_s - one.saved_s:.1f} s, start of the tasks {one.stopped_s - one.submitted_s:.1f} s (slowest "
        f"task: {tasks}). What preceded that order, while the job ran, took {one.prepared_s:.1f} s."
    )
