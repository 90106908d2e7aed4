"""`freshet replay`: replay a file of your own into a running stack."""

from pathlib import Path
from typing import Annotated

import typer

from freshet.cli.file_options import FileOptions, with_file_options
from freshet.cli.shape import AsJson, command, finite, print_json, root, say


@command(root, "replay", "freshet replay online-retail.parquet --preset online-retail")
@with_file_options
def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, TSV, .dat, .inter, Parquet or JSON lines.")],
    of_file: FileOptions,
    speed: Annotated[
        float | None,
        typer.Option(min=0.001, callback=finite, help="Rows per second; default: as fast as Kafka accepts."),
    ] = None,
    endpoints: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File with the addresses of the stack; default: the one `freshet up` wrote."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Replay a file of your own into a running stack.

    Sends consents first, and waits for their receipts; then sends every row, including invalid ones. If no row is
    usable, sends nothing, and shows values that it saw and what is wanted.
    """
    file.stat()  # a missing file is said first, as an OSError
    from deploy.demo.endpoints import ENDPOINTS_PATH
    from deploy.demo.replay import replay_file

    counts = replay_file(file, endpoints or ENDPOINTS_PATH, of_file.mapping(), of_file.choice(), speed, say)
    if as_json:
        print_json(counts)
        return
    print(
        f"sent {counts.interactions:,} interactions, {counts.without_user:,} of them without a user, "
        f"and {counts.consents:,} consents in {counts.seconds:.1f} s"
    )
    for line in counts.remarks:
        print(line)
