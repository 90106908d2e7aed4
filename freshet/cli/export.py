"""`freshet export`: clean events for training or measurement, as current consent allows."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from freshet.cli.shape import AsJson, SettingsFile, command, group, in_existing_folder, print_json, say

app = group("export", "Export clean events for training or measurement, and keep exports in line with consent.")


@command(app, "write", "freshet export write --settings freshet.toml --out may-export --purpose train")
def write(
    settings: SettingsFile,
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", callback=in_existing_folder, help="The output folder; must not exist yet."),
    ],
    purpose: Annotated[Literal["train", "measure"], typer.Option(help="What consent must allow.")] = "train",
    as_json: AsJson = False,
) -> None:
    """Export the current content of `events` that may be used for the purpose, under export pseudonyms.

    Export pseudonyms cannot be joined with anything that the job keeps. Somebody who holds both an export and the
    `events` topic may still match them by item and time. Run `freshet export rewrite` on every export, daily.
    """
    from jobs.registration import load_deployed
    from privacy.export import export

    manifest = export(load_deployed(settings), out, purpose, say)
    if as_json:
        print_json(manifest)


@command(app, "rewrite", "freshet export rewrite may-export --settings freshet.toml")
def rewrite(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An export.")],
    settings: SettingsFile,
    as_json: AsJson = False,
) -> None:
    """Remove users who have since withdrawn or been erased from an export; delete it once its retention has ended.

    Run it every day on every export. The retention is `[export] retention_days`.
    """
    from jobs.registration import load_deployed
    from privacy.export import rewrite as honour

    manifest = honour(load_deployed(settings), folder, say)
    if as_json:
        print_json(manifest)


@command(app, "history", "freshet export history --settings freshet.toml")
def history(settings: SettingsFile) -> None:
    """Print the clean events that may be used for training, as JSON lines, for a training run on this machine.

    Applies the same rule as an export, but keeps the job's pseudonyms: do not save the output to a file.
    """
    from jobs.registration import load_deployed
    from privacy.history import history as events_of

    events = 0
    for event in events_of(load_deployed(settings)):
        sys.stdout.buffer.write(event + b"\n")
        events += 1
    sys.stdout.buffer.flush()
    say(f"{events} events")
