"""`freshet upgrade`: new code, keys or parallelism for a running job."""

from typing import Annotated

import typer

from freshet.cli.shape import AsJson, SettingsFile, command, print_json, root, say
from freshet.cli.submit import Parallelism, WorkersPython


@command(
    root, "upgrade", "freshet upgrade --settings freshet.toml --flink http://localhost:8081 --savepoints s3://state/s"
)
def upgrade(
    settings: SettingsFile,
    flink: Annotated[str, typer.Option(metavar="URL", help="Flink's REST URL.")],
    savepoints: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Where to put the savepoint; default: Flink's settings."),
    ] = None,
    parallelism: Parallelism = None,
    python: WorkersPython = None,
    as_json: AsJson = False,
) -> None:
    """Check this checkout's code, stop the running job with a savepoint, and submit the code with that savepoint.

    If the checks refuse the code, the job keeps running. If submission fails after that, the savepoint is printed with
    the command that resumes from it. New code needs new TaskManagers: a job on old ones says so, and continues by
    itself once they are replaced.
    """
    from deploy.submission import Submission
    from deploy.submission import upgrade as renew
    from jobs.registration import load_for_submission

    loaded = load_for_submission(settings)
    how = Submission(flink, None, parallelism, python, False)
    done = renew(settings, loaded.job.name, how, savepoints, say)
    if as_json:
        print_json(done)
    else:
        print(f"job {done.before} stopped with {done.savepoint}; submitted as job {done.job}")
