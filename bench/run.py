"""`freshet bench run`: compares the job with a plain consumer, and with itself without consent checks.

All read the same events. It starts a stack of its own in `.local/bench`, and always ends it. The figures go to
`.local/bench.json` and, after a full run with the default settings, to `bench/RESULTS.md`.
"""

import functools
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from bench import (
    buckets,
    fence,
    latency,
    metrics_cost,
    privacy,
    privacy_report,
    rebucket_time,
    rebuild_time,
    report,
    rollout_time,
    take_over_time,
    throughput,
    upgrade_time,
)
from bench.figures import machine, verdicts
from bench.results import limits, write_json, write_section
from bench.testbed import Testbed, open_testbed
from bench.workload import USERS

EVENTS, EVENTS_QUICK = 500_000, 150_000
REPEATS, REPEATS_QUICK = 3, 1
REBUILD_QUICK = 15_000
READS, READS_QUICK = 200, 20
PRIVACY_EVENTS, PAIRS = 430_000, 4
PLAN, PLAN_QUICK = latency.LatencyPlan(warm_up_s=120, measure_s=60), latency.LatencyPlan(warm_up_s=60, measure_s=20)
BUCKETS, BUCKETS_QUICK = buckets.BucketCountPlan(30, 20, 200_000), buckets.BucketCountPlan(5, 5, 40_000)
ROLLOUT, ROLLOUT_QUICK = rollout_time.RolloutPlan(20, 60, 60), rollout_time.RolloutPlan(5, 20, 15)
TAKE_OVER, TAKE_OVER_QUICK = take_over_time.TakeOverPlan(3, 60, 30), take_over_time.TakeOverPlan(1, 20, 10)
UPGRADE, UPGRADE_QUICK = upgrade_time.UpgradePlan(3, 60, 30), upgrade_time.UpgradePlan(1, 20, 10)
FENCE, FENCE_QUICK = fence.FencePlan(withdrawals=400, warm_up_s=30), fence.FencePlan(withdrawals=100, warm_up_s=10)


class BenchOptions(NamedTuple):
    """What is measured, and for how long; None: the default according to `quick`.

    `flink` and `settings` override defaults.
    """

    quick: bool = False
    only: str | None = None
    events: int | None = None
    repeats: int | None = None
    warm_up: int | None = None
    withdrawals: int | None = None
    seconds: int | None = None
    flink: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()


Say = Callable[[str], None]
Measured = tuple[dict[str, Any], str]
"""Figures for bench.json, and a Markdown body."""


def _throughput(on: Testbed, options: BenchOptions, part: str = "throughput") -> Measured:
    events = options.events or (EVENTS_QUICK if options.quick else EVENTS)
    repeats = []
    for number in range(options.repeats or (REPEATS_QUICK if options.quick else REPEATS)):
        repeats.append(throughput.measure(on, f"{part}-{number + 1}", events, online=part == "learning"))
        on.say(report.one_repeat(*repeats[-1]))
    return throughput.figures(repeats, part), report.throughput_body(repeats, events)


def _latency(on: Testbed, options: BenchOptions) -> Measured:
    plan = PLAN_QUICK if options.quick else PLAN
    plan = latency.LatencyPlan(options.warm_up or plan.warm_up_s, options.seconds or plan.measure_s)
    measured = latency.measure(on, plan)
    return latency.figures(measured), report.latency_body(measured, plan)


def _privacy(on: Testbed, options: BenchOptions) -> Measured:
    events = options.events or (EVENTS_QUICK if options.quick else PRIVACY_EVENTS)
    pairs = options.repeats or (REPEATS_QUICK if options.quick else PAIRS)
    begin_ms = time.time_ns() // 1_000_000 - 3_600_000
    cost = privacy.measure(on, events, pairs, begin_ms)
    plan = FENCE_QUICK if options.quick else FENCE
    plan = fence.FencePlan(options.withdrawals or plan.withdrawals, options.warm_up or plan.warm_up_s)
    fences = fence.measure(on, plan)
    return privacy.figures(cost) | fence.figures(fences), privacy_report.body(cost, events, fences, plan)


def _rebuild(on: Testbed, options: BenchOptions) -> Measured:
    measured = rebuild_time.measure(on, REBUILD_QUICK if options.quick else USERS)
    return rebuild_time.figures(measured), rebuild_time.body(measured)


def _buckets(on: Testbed, options: BenchOptions) -> Measured:
    plan = BUCKETS_QUICK if options.quick else BUCKETS
    measured = buckets.measure(on, plan)
    return buckets.figures(measured), buckets.body(measured, plan)


def _rebucket(on: Testbed, options: BenchOptions) -> Measured:
    measured = rebucket_time.measure(on, REBUILD_QUICK if options.quick else USERS)
    return rebucket_time.figures(measured), rebucket_time.body(measured)


def _rollout(on: Testbed, options: BenchOptions) -> Measured:
    plan = ROLLOUT_QUICK if options.quick else ROLLOUT
    plan = rollout_time.RolloutPlan(
        options.repeats or plan.swaps, options.warm_up or plan.warm_up_s, options.seconds or plan.quiet_s
    )
    measured = rollout_time.measure(on, plan)
    return rollout_time.figures(measured), rollout_time.body(measured, plan)


def _take_over(on: Testbed, options: BenchOptions) -> Measured:
    plan = TAKE_OVER_QUICK if options.quick else TAKE_OVER
    plan = take_over_time.TakeOverPlan(
        options.repeats or plan.take_overs, options.warm_up or plan.warm_up_s, options.seconds or plan.quiet_s
    )
    measured = take_over_time.measure(on, plan)
    return take_over_time.figures(measured), take_over_time.body(measured, plan)


def _upgrade(on: Testbed, options: BenchOptions) -> Measured:
    plan = UPGRADE_QUICK if options.quick else UPGRADE
    plan = upgrade_time.UpgradePlan(
        options.repeats or plan.upgrades, options.warm_up or plan.warm_up_s, options.seconds or plan.quiet_s
    )
    measured = upgrade_time.measure(on, plan)
    return upgrade_time.figures(measured), upgrade_time.body(measured, plan)


def _metrics(on: Testbed, options: BenchOptions) -> Measured:
    measured = metrics_cost.measure(on, READS_QUICK if options.quick else READS)
    return metrics_cost.figures(measured), metrics_cost.body(measured)


PARTS: dict[str, Callable[[Testbed, BenchOptions], Measured]] = {
    "throughput": _throughput,
    "latency": _latency,
    "privacy": _privacy,
    "rebuild": _rebuild,
    "buckets": _buckets,
    "rebucket": _rebucket,
    "rollout": _rollout,
    "take-over": _take_over,
    "upgrade": _upgrade,
    "metrics": _metrics,
    "learning": functools.partial(_throughput, part="learning"),
}
ASKED_FOR: Final = ("buckets", "rebucket", "rollout", "take-over", "upgrade", "metrics", "learning")
"""Parts that run only with `--only`."""


def measure(on: Testbed, options: BenchOptions) -> tuple[dict[str, Any], dict[str, str]]:
    """Run the selected parts: returns figures for bench.json, and a Markdown body for each part."""
    figures: dict[str, Any] = {}
    bodies: dict[str, str] = {}
    for name, part in PARTS.items():
        if options.only == name or (options.only is None and name not in ASKED_FOR):
            its_figures, bodies[name] = part(on, options)
            figures |= its_figures
    return figures, bodies


def keep(figures: dict[str, Any], bodies: dict[str, str], command: str) -> None:
    """Write RESULTS.md, with a section for each measured part."""
    for name, body in bodies.items():
        mine = [verdict for verdict in verdicts(figures) if verdict.part == name]
        when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        head = f"## {name.capitalize()}\n\n{when} on {machine()}; `{command}`."
        write_section(name, "\n\n".join(filter(None, [head, limits(mine), body])))


def run(options: BenchOptions, command: str, say: Say) -> str:
    """Measure the selected parts on a stack of its own; returns the tables.

    Figures go to bench.json and, after a full run with the default settings, to RESULTS.md, with `command`.
    """
    of_part = metrics_cost.FLINK if options.only == "metrics" else {}
    flink_settings = {**of_part, **dict(setting.split("=", 1) for setting in options.flink)}
    slots = 2 if options.only == "take-over" else 1
    with open_testbed(flink_settings, "\n".join(options.settings), say, slots) as on:
        figures, bodies = measure(on, options)
    if options.flink or options.settings:
        say("settings were tried, so nothing was written")
    else:
        write_json(figures)
        if not options.quick:
            keep(figures, bodies, command)
    return "\n\n".join(filter(None, [*bodies.values(), limits(verdicts(figures))]))
