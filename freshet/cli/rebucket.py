"""`freshet rebucket`: another number of buckets for a stopped job."""

from typing import Annotated

import typer

from freshet.cli.shape import AsJson, SettingsFile, command, print_json, root


@command(
    root,
    "rebucket",
    "freshet rebucket --settings freshet.toml --from s3://state/savepoint-1 --to s3://state/rebucketed --buckets 8",
)
def rebucket(
    settings: SettingsFile,
    source: Annotated[
        str, typer.Option("--from", metavar="SAVEPOINT", help="The canonical savepoint that the job was stopped with.")
    ],
    target: Annotated[str, typer.Option("--to", metavar="SAVEPOINT", help="The folder to write; it must not exist.")],
    buckets: Annotated[int, typer.Option(min=1, help="The new job.buckets, at most job.max_parallelism.")],
    as_json: AsJson = False,
) -> None:
    """Divide the state of a stopped job among another number of buckets: writes a savepoint, and records the number.

    The settings are those of the stopped job. Then set job.buckets, and submit with the new savepoint; the old one is
    refused from then on. If the command fails or is interrupted, nothing has changed.
    """
    from jobs.rebucket import rebucket as divide
    from jobs.registration import load_for_submission
    from privacy.user_routes import user_routes

    loaded = load_for_submission(settings)
    done = divide(loaded, source, target, buckets, lambda: user_routes(loaded).of)
    if as_json:
        print_json(done)
    else:
        print(
            f"{done.users} users of {done.before} buckets are in {done.after} now, in {done.savepoint} "
            f"({done.seconds:.1f} s)"
        )
        if done.dropped:
            print(f"{done.dropped} users who had withdrawn, and whom `consents` no longer names, were dropped")
        print(
            f"next: set job.buckets = {done.after} in {settings}, and run "
            f"`freshet submit --settings {settings} --flink … --savepoint {done.savepoint}`"
        )
