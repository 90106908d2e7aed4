"""`freshet take-over`: another job takes over from the running one, and nobody waits."""

from typing import Annotated, Literal

import typer

from freshet.cli.shape import AsJson, SettingsFile, command, print_json, root, say
from freshet.cli.submit import Parallelism, WorkersPython


@command(root, "take-over", "freshet take-over --settings freshet.toml --flink http://localhost:8081 -p 2")
def take_over(
    settings: SettingsFile,
    flink: Annotated[str, typer.Option(metavar="URL", help="Flink's REST URL.")],
    savepoints: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Where to put the savepoints; default: Flink's settings."),
    ] = None,
    from_start: Annotated[
        bool,
        typer.Option(
            "--from-start",
            help="Start with empty state, and read the topics from their beginning: for other buckets or another "
            "execution mode. Profiles are as old as the topic `interactions`.",
        ),
    ] = False,
    mode: Annotated[
        Literal["thread", "process"] | None,
        typer.Option(
            help="The execution mode of the new job; default: Flink's settings. Another one needs --from-start."
        ),
    ] = None,
    parallelism: Parallelism = None,
    python: WorkersPython = None,
    as_json: AsJson = False,
) -> None:
    """Submit this checkout's code beside the running job, let it catch up silently, and let it take over.

    Both jobs agree on a moment: one writes what follows from records before it, the other from those after it. So
    lists stay fresh, and every event is published exactly once. Needs free task slots for a second job. If anything
    fails before they agree, the running job goes on.
    """
    from deploy.submission import Submission, require_servers
    from deploy.take_over import take_over as renew
    from jobs.settings import load_settings

    loaded = load_settings(settings)
    require_servers(loaded.kafka, flink)
    how = Submission(flink, None, parallelism, python, False, None, mode)
    done = renew(settings, loaded, how, savepoints, from_start, say)
    if as_json:
        print_json(done)
    else:
        print(
            f"job {done.job} has taken over from job {done.before}, whose last state is in {done.savepoint}; it was at "
            f"most {done.behind_ms} ms behind"
        )
