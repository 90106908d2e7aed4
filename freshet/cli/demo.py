"""`freshet demo`: watch clicks change recommendations."""

from pathlib import Path
from typing import Annotated

import typer

from freshet.cli.file_options import FileOptions, with_file_options
from freshet.cli.shape import command, root


@command(root, "demo", "freshet demo --replay shop.csv --user customer --item sku --time at --type-constant purchase")
@with_file_options
def demo(
    of_file: FileOptions,
    shoppers: Annotated[int, typer.Option(min=1, max=1_000_000, help="Number of simulated shoppers.")] = 300,
    rate: Annotated[int, typer.Option(min=1, help="Interactions per second.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the simulated shop.")] = 1,
    seconds: Annotated[
        int | None, typer.Option(min=1, help="Stop after this many seconds; default: run until Ctrl-C.")
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Print plain text every 5 s instead of a live screen.")
    ] = False,
    replay: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Play this file instead: CSV, Parquet or JSON lines.")
    ] = None,
    speed: Annotated[
        int | None, typer.Option(min=1, help="Rows per second; default: as fast as Kafka accepts.")
    ] = None,
    follow: Annotated[
        str | None, typer.Option(metavar="USER", help="The user whose list is shown; default: the one with most rows.")
    ] = None,
) -> None:
    """Show how clicks change recommendations on real Kafka, Redis and Flink, with simulated shoppers or your own file.

    Starts everything below .local/demo, and stops it at the end.
    """
    if replay is None and (of_file.is_given() or speed is not None or follow is not None):
        raise typer.BadParameter("options of a file do nothing without --replay FILE")
    from deploy.demo.show import DemoOptions
    from deploy.demo.show import demo as show

    source = shoppers, rate, seed, seconds, plain, replay, speed, follow
    show(DemoOptions(*source, of_file.mapping(), of_file.choice()))
