"""`freshet up`, `freshet status` and `freshet down`: a stack for this checkout, on loopback only."""

from pathlib import Path
from typing import Annotated

import typer

from freshet.cli.flink_conf import STATE_OPTION, StateName
from freshet.cli.shape import AsJson, ExitCode, command, print_json, root


@command(root, "up", "freshet up --task-managers 2 --more explore.toml")
def up(
    task_managers: Annotated[int, typer.Option(min=1, help="Number of TaskManagers, with one slot each.")] = 1,
    no_job: Annotated[bool, typer.Option("--no-job", help="Start only the stack: no topics and no job.")] = False,
    more: Annotated[
        Path | None,
        typer.Option(metavar="TOML", help="Tables to add to the settings of the job."),
    ] = None,
    state: Annotated[StateName | None, STATE_OPTION] = None,
) -> int:
    """Start Kafka, Redis, Flink, the job and a gateway below .local.

    Restarts Kafka, Redis, the gateway or the job if one of them has ended, with its data or last snapshot. The settings
    of the job are written to .local/freshet.toml. State is on the heap by default; a
    stack keeps its `--state` until `freshet down`.
    """
    from deploy.local.commands import describe_stack, interrupted_once, status
    from deploy.local.commands import up as start

    with interrupted_once():
        start(
            task_managers,
            with_job=not no_job,
            more="" if more is None else more.read_text("utf-8"),
            state=None if state is None else state.value,
        )
    print(*describe_stack(found := status()), sep="\n")
    return ExitCode.DONE if found.is_up() else ExitCode.FINDINGS


@command(root, "down", "freshet down")
def down() -> None:
    """Stop everything that `freshet up` started, and delete its data and token. Harmless if nothing runs.

    Keeps keys, settings, the model and logs below .local.
    """
    from deploy.local.commands import down as end
    from deploy.local.commands import interrupted_once

    with interrupted_once():
        end()


@command(root, "status", "freshet status --json")
def status(as_json: AsJson = False) -> int:
    """Show which parts of the stack are running, the state of the job, and the addresses.

    Exit code 1 if the stack is down, a part of it has ended, or the job does not run.
    """
    from deploy.local.commands import describe_stack
    from deploy.local.commands import status as found_of

    found = found_of()
    if as_json:
        print_json(found)
    else:
        print(*describe_stack(found), sep="\n")
    return ExitCode.DONE if found.is_up() else ExitCode.FINDINGS
