"""`freshet bench`: the benchmarks behind `bench/RESULTS.md`."""

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from freshet.cli.shape import ExitCode, command, command_line, finite, group, say

app = group("bench", "Run benchmarks; each figure is shown next to its baseline or its limit.")


class PartName(StrEnum):
    """The parts of :mod:`bench.run`, which is not imported for help; a test compares the two."""

    THROUGHPUT = "throughput"
    LATENCY = "latency"
    PRIVACY = "privacy"
    REBUILD = "rebuild"
    BUCKETS = "buckets"
    REBUCKET = "rebucket"
    ROLLOUT = "rollout"
    TAKE_OVER = "take-over"
    UPGRADE = "upgrade"
    METRICS = "metrics"
    LEARNING = "learning"


class ModelPartName(StrEnum):
    """A part of :mod:`bench.models` that can be measured alone."""

    SHADOW = "shadow"


@command(app, "run", "freshet bench run --quick --only latency")
def run(
    context: typer.Context,
    quick: Annotated[
        bool, typer.Option("--quick", help="Run for minutes instead of half an hour; results are not representative.")
    ] = False,
    only: Annotated[
        PartName | None, typer.Option(help="Run only this part; some, such as `buckets`, run only when named here.")
    ] = None,
    events: Annotated[int | None, typer.Option(min=1, help="Events per run of throughput and privacy.")] = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="Repeats of throughput, and pairs of privacy.")] = None,
    warm_up: Annotated[int | None, typer.Option(min=1, help="Warm-up of latency and privacy, in seconds.")] = None,
    withdrawals: Annotated[int | None, typer.Option(min=1, help="Withdrawals per rate of privacy.")] = None,
    seconds: Annotated[int | None, typer.Option(min=1, help="Seconds measured per rate of latency.")] = None,
    flink: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="A Flink setting to try. Several may be given.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(metavar="TOML", help="A line of the job's settings to try. Several may be given."),
    ] = None,
) -> None:
    """Measure the job next to a plain consumer, and next to itself without consent, on the same events.

    Starts its own stack and stops it at the end. A full run with the default settings is written to bench/RESULTS.md;
    the table says which limits are met.
    """
    if wrong := [each for each in flink or [] if "=" not in each]:
        raise typer.BadParameter(f"{wrong[0]} is not KEY=VALUE", param_hint="--flink")
    from bench.run import BenchOptions
    from bench.run import run as measure

    part = None if only is None else only.value
    to_try = tuple(flink or ()), tuple(settings or ())
    options = BenchOptions(quick, part, events, repeats, warm_up, withdrawals, seconds, *to_try)
    begun = time.monotonic()
    print(measure(options, command_line(context), lambda line: say(f"bench {time.monotonic() - begun:6.1f} s: {line}")))


@command(app, "read", "freshet bench read --no-feast")
def read(
    context: typer.Context,
    requests: Annotated[int, typer.Option(min=1, help="Requests per side and round.")] = 30_000,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds.")] = 5,
    overload_s: Annotated[
        float, typer.Option(min=0, callback=finite, help="Duration of the overload test, in seconds; 0 skips it.")
    ] = 30,
    no_feast: Annotated[bool, typer.Option("--no-feast", help="Do not install and measure Feast.")] = False,
) -> int:
    """Measure the cost of a read: gateway and library next to nginx serving a file and Feast's feature server.

    Exit code 1 if a limit is missed.
    """
    from bench.read import run as measure

    text, met = measure(
        requests, repeats, overload_s, not no_feast, command_line(context), lambda line: say(f"bench read: {line}")
    )
    print(text)
    return ExitCode.DONE if met else ExitCode.FINDINGS


@command(app, "masking", "freshet bench masking --texts 60000 --dry")
def masking(
    context: typer.Context,
    texts: Annotated[int, typer.Option(min=1, help="Number of texts to try.")] = 1_000_000,
    seed: Annotated[int, typer.Option(help="Seed of the random texts.")] = 16,
    processes: Annotated[int, typer.Option(min=1, help="Number of processes.")] = 2,
    dry: Annotated[bool, typer.Option("--dry", help="Do not write bench/RESULTS.md.")] = False,
) -> int:
    """Search for the text that is the most expensive to mask.

    Exit code 1 if it exceeds the limit.
    """
    from bench.masking import run as search

    text, met = search(texts, seed, processes, not dry, command_line(context))
    print(text)
    return ExitCode.DONE if met else ExitCode.FINDINGS


@command(app, "users", "freshet bench users")
def users(context: typer.Context) -> None:
    """Measure the cost of one user in a large bucket (half a minute), and write it to bench/RESULTS.md."""
    from bench.users import run as measure

    print(measure(command_line(context)))


@command(app, "state", "freshet bench state")
def state(context: typer.Context) -> None:
    """Measure checkpoints with state on the heap and in RocksDB (some minutes), and write it to bench/RESULTS.md."""
    from bench.state_backends import run as measure

    print(measure(command_line(context), lambda line: say(f"bench state: {line}")))


@command(app, "models", "freshet bench models --data online-retail.parquet")
def models(
    context: typer.Context,
    data: Annotated[
        Path | None,
        typer.Option(envvar="FRESHET_ONLINE_RETAIL", help="Online Retail (UCI) as a Parquet file or CSV."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of intervals and of made streams.")] = 18,
    quick: Annotated[
        bool, typer.Option("--quick", help="Replay the first 60,000 events only; results are not representative.")
    ] = False,
    only: Annotated[ModelPartName | None, typer.Option(help="Measure only this part.")] = None,
) -> int:
    """Measure the online model: its lists beside simple methods, a session-kNN peer and our frozen model, and its cost.

    Also measures how soon a shadow shows that a model is worse. A full run (about fifteen minutes) is written to
    models/RESULTS.md and .local/bench-models.json. Exit code 1 if a limit is missed, or if there is no data.
    """
    from bench import models as parts

    measure = parts.run if only is None else parts.run_shadow
    begun = time.monotonic()
    text, met = measure(
        parts.DATA if data is None else data,
        quick,
        seed,
        command_line(context),
        lambda line: say(f"bench models {time.monotonic() - begun:6.1f} s: {line}"),
    )
    print(text)
    return ExitCode.DONE if met else ExitCode.FINDINGS
