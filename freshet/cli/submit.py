"""`freshet submit`: submit the job to a Flink cluster."""

from pathlib import Path
from typing import Annotated

import typer

from freshet.cli.shape import AsJson, SettingsFile, command, print_json, root, say

FlinkUrl = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Flink's REST URL; default: the one in the client's own settings."),
]
Parallelism = Annotated[
    int | None, typer.Option("--parallelism", "-p", min=1, help="Parallelism of the job; default: Flink's settings.")
]
WorkersPython = Annotated[str | None, typer.Option(metavar="PATH", help="The workers' interpreter; default: this one.")]


@command(root, "submit", "freshet submit --settings freshet.toml --flink http://localhost:8081 -p 2")
def submit(
    settings: SettingsFile,
    flink: FlinkUrl = None,
    savepoint: Annotated[
        str | None, typer.Option("--savepoint", "-s", metavar="PATH", help="Resume from this savepoint or checkpoint.")
    ] = None,
    parallelism: Parallelism = None,
    python: WorkersPython = None,
    new_deployment: Annotated[
        bool,
        typer.Option(
            "--new-deployment",
            help="Record these settings in place of the last ones. State cannot be restored under different settings: "
            "leave out --savepoint if they differ.",
        ),
    ] = False,
    package: Annotated[
        Path | None,
        typer.Option(metavar="ZIP", help="Code that an earlier submission has kept; default: this checkout's."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run all checks, and submit the job.

    Packs this checkout's code and calls `flink run` of Flink's own client: from FLINK_HOME, else `flink` on PATH, else
    from the pip package. Prints the job's id. A copy of the code and of the settings is kept in .local/releases, for
    the roll-back of an upgrade.
    """
    from deploy.submission import Submission, require_servers
    from deploy.submission import submit as give
    from jobs.settings import load_settings

    require_servers(load_settings(settings).kafka, flink)
    job = give(settings, Submission(flink, savepoint, parallelism, python, new_deployment), say, package)
    if as_json:
        print_json({"job": job})
    else:
        print(f"submitted as job {job}")
