"""`python -m bench`: the job beside a plain consumer, and beside itself without consent, on the same events.

Starts a stack of its own below `.local/bench`, and ends it whatever happens. The figures go to `.local/bench.json` and,
after a full run with the settings as they ship, to `bench/RESULTS.md`.
"""

import argparse
import shlex
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import FrameType
from typing import Any, Final

from bench import buckets, fence, latency, privacy, privacy_report, rebuild, report, throughput
from bench.figures import machine, verdicts
from bench.results import limits, write_json, write_section
from bench.stand import Stand, stand
from bench.workload import USERS
from deploy.local.errors import StackError

EVENTS, EVENTS_QUICK = 500_000, 150_000
REPEATS, REPEATS_QUICK = 3, 1
REBUILD_QUICK = 15_000
PRIVACY_EVENTS, PAIRS = 430_000, 4
PLAN, PLAN_QUICK = latency.Plan(warm_up_s=120, measure_s=60), latency.Plan(warm_up_s=60, measure_s=20)
BUCKETS, BUCKETS_QUICK = buckets.Plan(30, 20, 200_000), buckets.Plan(5, 5, 40_000)
FENCE, FENCE_QUICK = fence.Plan(withdrawals=400, warm_up_s=30), fence.Plan(withdrawals=100, warm_up_s=10)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="seven minutes instead of half an hour; not for keeping")
    parser.add_argument(
        "--events",
        type=int,
        help=f"of each run of the throughput and privacy parts (default {EVENTS:,} and {PRIVACY_EVENTS:,}, "
        f"quick {EVENTS_QUICK:,})",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        help=f"of the throughput part, and pairs of the privacy part (default {REPEATS} and {PAIRS}, "
        f"quick {REPEATS_QUICK})",
    )
    parser.add_argument("--only", choices=tuple(PARTS))
    parser.add_argument("--warm-up", type=int, metavar="S", help="of the latency and privacy parts, in seconds")
    parser.add_argument("--withdrawals", type=int, metavar="N", help="at each rate of the privacy part")
    parser.add_argument("--seconds", type=int, metavar="S", help="measured at each rate of the latency part")
    parser.add_argument(
        "--flink", action="append", default=[], metavar="KEY=VALUE", help="a setting of Flink to try; may be repeated"
    )
    parser.add_argument(
        "--settings", action="append", default=[], metavar="TOML", help="a line of the job's settings to try"
    )
    return parser.parse_args(arguments)


Measured = tuple[dict[str, Any], str]
"""Figures for bench.json, and a Markdown body."""


def _throughput(on: Stand, options: argparse.Namespace) -> Measured:
    events = options.events or (EVENTS_QUICK if options.quick else EVENTS)
    repeats = []
    for number in range(options.repeats or (REPEATS_QUICK if options.quick else REPEATS)):
        repeats.append(throughput.measure(on, f"throughput-{number + 1}", events))
        on.say(report.one_repeat(*repeats[-1]))
    return throughput.figures(repeats), report.throughput_body(repeats, events)


def _latency(on: Stand, options: argparse.Namespace) -> Measured:
    plan = PLAN_QUICK if options.quick else PLAN
    plan = latency.Plan(options.warm_up or plan.warm_up_s, options.seconds or plan.measure_s)
    measured = latency.measure(on, plan)
    return latency.figures(measured), report.latency_body(measured, plan)


def _privacy(on: Stand, options: argparse.Namespace) -> Measured:
    events = options.events or (EVENTS_QUICK if options.quick else PRIVACY_EVENTS)
    pairs = options.repeats or (REPEATS_QUICK if options.quick else PAIRS)
    begin_ms = time.time_ns() // 1_000_000 - 3_600_000
    cost = privacy.measure(on, events, pairs, begin_ms)
    plan = FENCE_QUICK if options.quick else FENCE
    plan = fence.Plan(options.withdrawals or plan.withdrawals, options.warm_up or plan.warm_up_s)
    fences = fence.measure(on, plan)
    return privacy.figures(cost) | fence.figures(fences), privacy_report.body(cost, events, fences, plan)


def _rebuild(on: Stand, options: argparse.Namespace) -> Measured:
    measured = rebuild.measure(on, REBUILD_QUICK if options.quick else USERS)
    return rebuild.figures(measured), rebuild.body(measured)


def _buckets(on: Stand, options: argparse.Namespace) -> Measured:
    plan = BUCKETS_QUICK if options.quick else BUCKETS
    measured = buckets.measure(on, plan)
    return buckets.figures(measured), buckets.body(measured, plan)


PARTS: dict[str, Callable[[Stand, argparse.Namespace], Measured]] = {
    "throughput": _throughput,
    "latency": _latency,
    "privacy": _privacy,
    "rebuild": _rebuild,
    "buckets": _buckets,
}
ASKED_FOR: Final = ("buckets",)
"""Parts that only `--only` runs: they answer a question, and no limit is held against them."""


def measure(on: Stand, options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, str]]:
    """Run the parts that were asked for: figures for bench.json, and a Markdown body for each part."""
    figures: dict[str, Any] = {}
    bodies: dict[str, str] = {}
    for name, part in PARTS.items():
        if options.only == name or (options.only is None and name not in ASKED_FOR):
            its_figures, bodies[name] = part(on, options)
            figures |= its_figures
    return figures, bodies


def keep(figures: dict[str, Any], bodies: dict[str, str], command: str) -> None:
    """Write RESULTS.md, a section for each part that was measured."""
    for name, body in bodies.items():
        mine = [verdict for verdict in verdicts(figures) if verdict.part == name]
        when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        head = f"## {name.capitalize()}\n\n{when} on {machine()}; `{command}`."
        write_section(name, f"{head}\n\n{limits(mine)}\n\n{body}")


def main(arguments: list[str] | None = None) -> int:
    """0 = measured, whether limits are met or not; the table says which."""
    options = parse(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    begun = time.monotonic()

    def say(line: str) -> None:
        print(f"bench {time.monotonic() - begun:6.1f} s: {line}", flush=True)

    flink_settings = dict(setting.split("=", 1) for setting in options.flink)
    try:
        with stand(flink_settings, "\n".join(options.settings), say) as on:
            figures, bodies = measure(on, options)
    except KeyboardInterrupt:
        print("bench: interrupted; nothing was left running", file=sys.stderr)
        return 130
    except StackError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print("\n\n".join([*bodies.values(), limits(verdicts(figures))]))
    if options.flink or options.settings:
        say("settings were tried, so nothing was written")
        return 0
    write_json(figures)
    if not options.quick:
        keep(
            figures, bodies, shlex.join(["python", "-m", "bench", *(sys.argv[1:] if arguments is None else arguments)])
        )
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
