"""`freshet retention`: lists what is kept, and for how long."""

from pathlib import Path
from typing import Annotated

import typer

from freshet.cli.shape import AsJson, command, print_json, root


@command(root, "retention", "freshet retention --settings freshet.toml")
def retention(
    settings: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The TOML file of the job; default: the default settings.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print what is kept, for how long, by which setting, and what enforces it, as a Markdown table.

    Derived from the settings that the job itself reads.
    """
    from jobs.settings import load_settings
    from privacy.retention import DEFAULTS, page
    from privacy.retention import retention as rows

    loaded = DEFAULTS if settings is None else load_settings(settings)
    if as_json:
        print_json([row._asdict() for row in rows(loaded)])
    else:
        print(page(loaded, "the defaults" if settings is None else "the settings of a job"))
