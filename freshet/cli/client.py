"""`freshet client`: the client library as a wheel."""

from pathlib import Path
from typing import Annotated

import typer

from freshet.cli.shape import command, in_existing_folder, root


@command(root, "client", "freshet client --out dist")
def client(
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", callback=in_existing_folder, help="The output folder; default: .local/dist."),
    ] = None,
) -> None:
    """Build the client library, the wheel `freshet-client`, and print its path.

    The same sources give the same bytes.
    """
    from deploy.client.wheel import DEFAULT_FOLDER, build_wheel

    print(build_wheel(out or DEFAULT_FOLDER))
