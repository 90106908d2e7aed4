"""`freshet demo`: the journey of a click, on screen."""

from pathlib import Path
from typing import Annotated

import typer

from freshet.cli.file_options import FileOptions, with_file_options
from freshet.cli.shape import command, root


@command(root, "demo", "freshet demo --replay shop.csv --user customer --item sku --time at --type-constant purchase")
@with_file_options
def demo(
    of_file: FileOptions,
    shoppers: Annotated[int, typer.Option(min=1, help="Simulated shoppers.")] = 300,
    rate: Annotated[int, typer.Option(min=1, help="Interactions a second.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the simulated shop.")] = 1,
    seconds: Annotated[int | None, typer.Option(min=1, help="End after so long; left out: with Ctrl-C.")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="A block of text every 5 s instead of a picture.")] = False,
    replay: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Play this file instead: CSV, Parquet or JSON lines.")
    ] = None,
    speed: Annotated[int | None, typer.Option(min=1, help="Rows a second; left out: as fast as Kafka takes.")] = None,
    follow: Annotated[
        str | None, typer.Option(metavar="USER", help="Whose list to show; left out: who has most rows.")
    ] = None,
) -> None:
    """Show the journey of a click on a real Kafka, Redis and Flink, with simulated shoppers or a file of yours.

    Starts all of it below .local/demo, and ends all of it.
    """
    from deploy.demo.show import DemoOptions
    from deploy.demo.show import demo as show

    source = shoppers, rate, seed, seconds, plain, replay, speed, follow
    show(DemoOptions(*source, of_file.mapping(), of_file.choice()))
