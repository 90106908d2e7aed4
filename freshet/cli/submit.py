"""`freshet submit`: submit the job to a Flink cluster."""

from typing import Annotated

import typer

from freshet.cli.shape import AsJson, SettingsFile, command, print_json, root, say

FlinkUrl = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Flink's REST interface; left out: that of the client's own settings."),
]
Parallelism = Annotated[
    int | None, typer.Option("--parallelism", "-p", min=1, help="Left out: what Flink's settings say.")
]
WorkersPython = Annotated[
    str | None, typer.Option(metavar="PATH", help="The interpreter of the workers; left out: this one.")
]


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
            help="Record these settings in the place of those before. State cannot be restored under others: leave "
            "--savepoint out where they differ.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run all checks, and submit the job.

    Packs the code that is here and calls `flink run` of Flink's own client: that of FLINK_HOME, else `flink` on PATH,
    else that of the pip package. Prints the job's id.
    """
    from deploy.submission import Submission
    from deploy.submission import submit as give
    from jobs.settings import load_settings

    load_settings(settings)
    job = give(settings, Submission(flink, savepoint, parallelism, python, new_deployment), say)
    if as_json:
        print_json({"job": job})
    else:
        print(f"submitted as job {job}")
