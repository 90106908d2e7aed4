"""`freshet rotate`: replace the key behind pseudonyms while everything runs."""

from pathlib import Path
from typing import Annotated

import typer

from freshet.cli.shape import AsJson, SettingsFile, command, group, print_json

app = group("rotate", "Rotate the key behind pseudonyms while everything runs: start, relink, end.")


@command(app, "start", "freshet rotate start --settings freshet.toml")
def start(settings: SettingsFile) -> None:
    """Add a second key to the key ring.

    From then on both pseudonyms of a user are valid. Update the ring on frontends first, so that their withdrawals
    fence both. Then stop the job with a savepoint and submit it again: it reads the ring when it starts.
    """
    from jobs.registration import load_deployed
    from privacy import rotation

    rotation.start(load_deployed(settings))


@command(app, "relink", "freshet rotate relink --settings freshet.toml")
def relink(settings: SettingsFile) -> None:
    """Move all users to their new pseudonym, and wait until the job has finished."""
    from jobs.registration import load_deployed
    from privacy import rotation

    rotation.relink(load_deployed(settings))


@command(app, "show", "freshet rotate show --settings freshet.toml")
def show(settings: SettingsFile, as_json: AsJson = False) -> None:
    """Show the progress of a rotation."""
    from jobs.registration import load_deployed
    from privacy import rotation

    status = rotation.rotation_status(load_deployed(settings))
    if as_json:
        print_json(status)
    else:
        print(*rotation.describe_rotation(status), sep="\n")


@command(app, "end", "freshet rotate end --settings freshet.toml --snapshots /var/lib/flink")
def end(
    settings: SettingsFile,
    snapshots: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="A folder of snapshots; name all of them, or none: then age counts (privacy.snapshots_kept_ms).",
        ),
    ] = None,
) -> None:
    """Destroy the old key.

    Refused while any user still has the old pseudonym, or any snapshot may still contain it.
    """
    from jobs.registration import load_deployed
    from privacy import rotation

    rotation.end(load_deployed(settings), snapshots or [])
