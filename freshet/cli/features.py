"""`freshet features`: the features of users for models outside of the job, through Feast and as Parquet."""

from pathlib import Path
from typing import Annotated

import typer

from freshet.cli.shape import AsJson, SettingsFile, command, group, in_existing_folder, print_json, say

app = group("features", "Serve the features of users to other models: online through Feast, offline as Parquet.")


@command(app, "init", "freshet features init feast --settings freshet.toml --export may-export")
def init(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", callback=in_existing_folder, help="The folder to write; must not exist yet."),
    ],
    settings: SettingsFile,
    export: Annotated[
        Path | None, typer.Option(metavar="DIR", help="An export with features, for training. By default none.")
    ] = None,
) -> None:
    """Write a Feast repository: store, entity, feature view and push source, from the settings of the job.

    Install `requirements.txt` of the folder in an environment of its own, and run `feast apply` in the folder.
    """
    from jobs.feature_repository import write_repository
    from jobs.settings import load_settings

    write_repository(load_settings(settings), folder, export)
    say(f"wrote {folder}: install its requirements.txt in an environment of its own, then run `feast apply` in it")


@command(app, "export", "freshet features export may-export --settings freshet.toml")
def export_(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An export.")],
    settings: SettingsFile,
    as_json: AsJson = False,
) -> None:
    """Compute the features of users at each of their events in an export, into its subfolder `features`.

    A row has the features after all events until its `event_timestamp`, which is when the event was appended.
    `freshet export rewrite` removes users from the features, too, and deletes them with the export.
    """
    from jobs.settings import load_settings
    from privacy.feature_export import export_features

    manifest = export_features(load_settings(settings), folder, say)
    if as_json:
        print_json(manifest)


@command(app, "push", "freshet features push --settings freshet.toml")
def push(
    settings: SettingsFile,
    once: Annotated[bool, typer.Option("--once", help="End when all existing events have been applied.")] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Delete all rows of the project first, and read everything again.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Keep the features of users in Feast's Redis in line with events and consents, until ended.

    A withdrawal or an erasure deletes the row of its user. Continues where the last run has ended.
    """
    from jobs.registration import load_deployed
    from privacy.push_features import describe
    from privacy.push_features import push as keep_pushing

    counts = keep_pushing(load_deployed(settings), once, rebuild, say)
    if as_json:
        print_json(dict(counts))
    else:
        print(describe(counts))
