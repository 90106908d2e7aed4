"""`python -m bench`: the job beside a plain consumer, in one run, on the same events.

Starts a stack of its own below `.local/bench`, and ends it whatever happens. The figures go to `.local/bench.json` and,
after a full run with the settings as they ship, to `bench/RESULTS.md`.
"""

import argparse
import shlex
import signal
import sys
import time
from datetime import UTC, datetime
from types import FrameType
from typing import Any

from bench import latency, report, throughput
from bench.figures import machine, verdicts
from bench.results import limits, write_json, write_section
from bench.stand import Stand, stand
from deploy.local.errors import StackError

EVENTS, EVENTS_QUICK = 500_000, 150_000
REPEATS, REPEATS_QUICK = 3, 1
PLAN, PLAN_QUICK = latency.Plan(warm_up_s=120, measure_s=60), latency.Plan(warm_up_s=60, measure_s=20)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three minutes instead of ten; not for keeping")
    parser.add_argument(
        "--events", type=int, help=f"of the throughput part (default {EVENTS:,}, quick {EVENTS_QUICK:,})"
    )
    parser.add_argument(
        "--repeats", type=int, help=f"of the throughput part, for medians (default {REPEATS}, quick {REPEATS_QUICK})"
    )
    parser.add_argument("--only", choices=("throughput", "latency"))
    parser.add_argument("--warm-up", type=int, metavar="S", help="of the latency part, in seconds")
    parser.add_argument("--seconds", type=int, metavar="S", help="measured at each rate of the latency part")
    parser.add_argument(
        "--flink", action="append", default=[], metavar="KEY=VALUE", help="a setting of Flink to try; may be repeated"
    )
    parser.add_argument(
        "--settings", action="append", default=[], metavar="TOML", help="a line of the job's settings to try"
    )
    return parser.parse_args(arguments)


def measure(on: Stand, options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, str]]:
    """Run the parts that were asked for: figures for bench.json, and a Markdown body for each part."""
    figures: dict[str, Any] = {}
    bodies: dict[str, str] = {}
    if options.only != "latency":
        events = options.events or (EVENTS_QUICK if options.quick else EVENTS)
        repeats = []
        for number in range(options.repeats or (REPEATS_QUICK if options.quick else REPEATS)):
            repeats.append(throughput.measure(on, f"throughput-{number + 1}", events))
            on.say(report.one_repeat(*repeats[-1]))
        figures |= throughput.figures(repeats)
        bodies["throughput"] = report.throughput_body(repeats, events)
    if options.only != "throughput":
        plan = PLAN_QUICK if options.quick else PLAN
        plan = latency.Plan(options.warm_up or plan.warm_up_s, options.seconds or plan.measure_s)
        measured = latency.measure(on, plan)
        figures |= latency.figures(measured)
        bodies["latency"] = report.latency_body(measured, plan)
    return figures, bodies


def keep(figures: dict[str, Any], bodies: dict[str, str], command: str) -> None:
    """Write RESULTS.md, a section for each part that was measured."""
    for name, body in bodies.items():
        mine = [
            verdict for verdict in verdicts(figures) if verdict.what.startswith("throughput") == (name == "throughput")
        ]
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
