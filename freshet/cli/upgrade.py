"""`freshet upgrade`: new code, keys or parallelism for a running job."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from freshet.cli.shape import AsJson, ExitCode, SettingsFile, command, print_json, root, say
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
    previous: Annotated[
        Path | None,
        typer.Option(metavar="ZIP", help="The package of the running code; default: the copy kept on this machine."),
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="S", min=1, help="How long each step of the verification may take.")
    ] = 120.0,
    as_json: AsJson = False,
) -> int:
    """Check this checkout's code, stop the running job with a savepoint, and submit the code with that savepoint.

    If the checks refuse the code, the job keeps running. After the start, all tasks of the new job must run, complete a
    checkpoint and process a canary, a synthetic user; if not, the previous code continues from the same savepoint, and
    the exit code is 4. If that is impossible, the savepoint is printed with the command that resumes from it. New code
    needs new TaskManagers: replace them before --timeout ends.
    """
    from deploy.submission import Submission
    from deploy.upgrade import Safety
    from deploy.upgrade import upgrade as renew
    from jobs.registration import load_for_submission
    from privacy.canary import prove

    loaded = load_for_submission(settings)
    how = Submission(flink, None, parallelism, python, False)
    safety = Safety(timeout, partial(prove, loaded, timeout), previous)
    done = renew(settings, loaded.job.name, how, savepoints, safety, say)
    if as_json:
        print_json(done)
    else:
        print(
            f"job {done.before} stopped with {done.savepoint}; "
            f"{'rolled back' if done.rolled_back else 'submitted'} as job {done.job}, which ran after "
            f"{done.stopped_s:.1f} s"
        )
    return ExitCode.ROLLED_BACK if done.rolled_back else ExitCode.DONE
