"""The command `freshet`: runs one of its commands, and turns what that raises into one convention of exit codes."""

import logging
import shlex
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from types import FrameType
from typing import Annotated, Final, NoReturn

import typer

import freshet
from freshet.cli.bars import bars_on_a_terminal
from freshet.cli.shape import ExitCode, root, say
from schemas.errors import FreshetError

COMMANDS: Final = (
    "access",
    "audit",
    "bench",
    "client",
    "consent",
    "demo",
    "doctor",
    "erase",
    "export",
    "gateway",
    "keys",
    "model",
    "rebuild",
    "replay",
    "report",
    "retention",
    "rotate",
    "stack",
    "submit",
    "topics",
    "upgrade",
)
MODULES: Final = tuple(import_module(f"freshet.cli.{name}") for name in COMMANDS)
"""Whose commands there are: each has added its own to `root`."""
INTERRUPTED: Final = 130
"""What typer makes of Ctrl-C."""
SIGNALLED: Final = 128
"""A command that is ended by a signal has this and the signal's number as exit code, as shells have it."""


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"freshet {freshet.__version__}")
        raise typer.Exit


@root.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def run(arguments: Sequence[str]) -> int:
    """Run the command line `arguments`; returns its exit code (:class:`ExitCode`)."""
    words = list(arguments)
    try:
        code = typer.main.get_command(root)(
            words, prog_name="freshet", standalone_mode=False, obj=shlex.join(["freshet", *words])
        )
    except typer.TyperException as error:
        say(_told_of_usage(error))
        return ExitCode.USAGE
    except (FreshetError, OSError) as error:
        say(f"freshet: not done: {_told(error)}")
        return ExitCode.NOT_DONE
    except Exception as error:
        if (told := _told_of_kafka(error)) is None:
            raise
        say(f"freshet: not done: {told}")
        return ExitCode.NOT_DONE
    if code == INTERRUPTED:
        say("freshet: interrupted; you can run the command again")
    return int(code or 0)


def _told_of_usage(error: typer.TyperException) -> str:
    message, context = error.format_message(), getattr(error, "ctx", None)
    if message.startswith("Usage:"):  # of a group that was given no command: its help
        return message
    return (
        f"freshet: not understood: {message.rstrip('.')}; see `{context.command_path if context else 'freshet'} --help`"
    )


def _told(error: Exception) -> str:
    if isinstance(error, FileExistsError):
        return f"{error.filename} already exists and is not overwritten: name another file"
    if isinstance(error, OSError):
        return ": ".join(str(part) for part in (error.filename, error.strerror or type(error).__name__) if part)
    return str(error)


def _told_of_kafka(error: Exception) -> str | None:
    """What to say of an error of Kafka's client; None where it is another's."""
    errors = sys.modules.get("kafka.errors")  # who has not imported it cannot have raised it
    if errors is None or not isinstance(error, errors.KafkaError):
        return None
    return (
        f"Kafka did not do what was asked ({type(error).__name__}): `freshet doctor` says whether it answers; its "
        "user may lack rights. The command may be given again"
    )


def main() -> NoReturn:
    """Run the command line of this process. Ended by SIGTERM or SIGHUP, a command cleans up as it does after Ctrl-C."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` has it
            signal.signal(number, _end)
    # What went wrong with Kafka is told once, by us, where nobody has asked for logs.
    logging.getLogger("kafka").addHandler(logging.NullHandler())
    try:
        with bars_on_a_terminal():
            code = run(sys.argv[1:])
        sys.exit(code)
    except Exception:  # Python's own exit code for it is 1, which says that there are findings
        traceback.print_exc()
        say("freshet: not done: internal error, see above")
        sys.exit(ExitCode.NOT_DONE)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(SIGNALLED + number)
