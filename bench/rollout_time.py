"""Measures a roll-out under load: how soon all buckets serve another model, or the one before, and what lists wait.

Versions of :data:`bench.testbed.MODEL_ITEMS` items are loaded, activated and rolled back in turn while probes run, and
each swap is of a version that no worker has seen. Beside it: the same load and probes without a roll-out.
"""

import threading
import time
from typing import Any, Final, NamedTuple

from bench.clients import producer, send_all
from bench.figures import percentiles
from bench.latency import loaded
from bench.probes import WARM_UP, Probes, probe_users
from bench.progress import Progress
from bench.testbed import MODEL_ITEMS, MODEL_NEIGHBOURS, MODEL_TOP_K, BenchTenant, Testbed
from bench.workload import USERS, consent_records, user_id
from jobs.model_commands import Rollout
from jobs.model_versions import push

RATE: Final = 500
BETWEEN_S: Final = 1.0
QUIET: Final = "quiet"
ROLLING: Final = "rolling"


class RolloutPlan(NamedTuple):
    """How many swaps, and seconds of warm-up and of probes without a roll-out."""

    swaps: int
    warm_up_s: int
    quiet_s: int


class RolloutTime(NamedTuple):
    """Seconds from a command to the last bucket's receipt, milliseconds of probes, and whether the job restarted.

    A swap is `load` and `activate` of a version that is in no cache; a rollback returns to the version before.
    """

    swap_s: list[float]
    rollback_s: list[float]
    quiet_ms: list[float]
    rolling_ms: list[float]
    restarted: bool


def measure(testbed: Testbed, plan: RolloutPlan) -> RolloutTime:
    """Measure one run."""
    tenant = testbed.tenant("rollout")
    testbed.empty_redis()
    job = testbed.submit(tenant)
    _consent(testbed, tenant)
    versions = _publish(testbed, tenant, plan.swaps)
    probes = Probes(tenant)
    swaps: list[float] = []
    rollbacks: list[float] = []
    seconds = plan.warm_up_s + plan.quiet_s + int(plan.swaps * (2 * BETWEEN_S + 4))
    with loaded(tenant, RATE, seconds, seed=1), Rollout(tenant.settings) as rollout:
        testbed.say(f"{RATE:,} events/s: {plan.warm_up_s} s of warm-up, {plan.quiet_s} s without a roll-out")
        probes.run(WARM_UP, plan.warm_up_s)
        probes.run(QUIET, plan.quiet_s)
        testbed.say(f"{plan.swaps} swaps")
        rolling = threading.Thread(target=_roll, args=(rollout, versions, swaps, rollbacks))
        rolling.start()
        while rolling.is_alive():
            probes.run(ROLLING, 0.2)
        probes.finish()
    probes.close()
    restarted = bool(testbed.stack.rest.get(f"/jobs/{job}")["timestamps"]["RESTARTING"])
    testbed.stack.rest.cancel(job)
    if len(rollbacks) < plan.swaps:
        raise RuntimeError("a roll-out failed")
    return RolloutTime(swaps, rollbacks, probes.found[QUIET], probes.found[ROLLING], restarted)


def _consent(testbed: Testbed, tenant: BenchTenant) -> None:
    ids = [*(user_id(user) for user in range(USERS)), *probe_users()]
    testbed.say(f"producing {len(ids):,} consents")
    sending, progress = producer(testbed.servers), Progress(tenant)
    send_all(sending, tenant.settings.topic_names().consents, consent_records(ids, time.time_ns() // 1_000_000))
    sending.close()
    progress.wait(consents=len(ids))
    progress.close()


def _publish(testbed: Testbed, tenant: BenchTenant, count: int) -> list[str]:
    """Versions that are new to every cache: the seed of each is the time."""
    from models.random_model import random_model  # as in bench.testbed

    seed, folder = time.time_ns() // 1_000_000_000, testbed.stack.directory / "to-publish"
    versions = []
    for number in range(count):
        random_model(folder, MODEL_ITEMS, MODEL_NEIGHBOURS, MODEL_TOP_K, seed + number)
        versions.append(str(push(tenant.settings, str(folder))[0]))
    return versions


def _roll(rollout: Rollout, versions: list[str], swaps: list[float], rollbacks: list[float]) -> None:
    for version in versions:
        begun = time.monotonic()
        rollout.carry_out("activate", [version], version=version)
        swaps.append(time.monotonic() - begun)
        time.sleep(BETWEEN_S)
        begun = time.monotonic()
        rollout.carry_out("rollback")
        rollbacks.append(time.monotonic() - begun)
        time.sleep(BETWEEN_S)


def figures(found: RolloutTime) -> dict[str, Any]:
    """The entries of bench.json: the slowest swap and rollback."""
    quiet, rolling = percentiles(found.quiet_ms), percentiles(found.rolling_ms)
    return {
        "rollout_swap_s": round(max(found.swap_s), 3),
        "rollout_rollback_s": round(max(found.rollback_s), 3),
        "rollout_quiet_ms": quiet,
        "rollout_rolling_ms": rolling,
        "rollout_p99_more_ms": round(rolling["p99"] - quiet["p99"], 1),
        "rollout_restarted": found.restarted,
    }


def body(found: RolloutTime, plan: RolloutPlan) -> str:
    """The section of RESULTS.md."""
    quiet, rolling = percentiles(found.quiet_ms), percentiles(found.rolling_ms)
    restart = "restarted" if found.restarted else "did not restart"
    swaps, rollbacks = (f"{min(times):.2f}–{max(times):.2f} s" for times in (found.swap_s, found.rollback_s))
    return (
        f"{plan.swaps} swaps to versions of {MODEL_ITEMS:,} items that no worker had seen, and rollbacks, at {RATE:,} "
        f"events/s. From the command to the last bucket's receipt: swaps (load and activate) {swaps}, rollbacks "
        f"{rollbacks}. Event to list meanwhile: p50 {rolling['p50']:.0f}, p99 {rolling['p99']:.0f} ms; without a "
        f"roll-out {quiet['p50']:.0f} and {quiet['p99']:.0f} ms. The job {restart}."
    )
