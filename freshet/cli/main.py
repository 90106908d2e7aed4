"""The command `freshet`: runs one of its commands, and maps errors to exit codes."""

import io
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
from freshet.cli.shape import ExitCode, LogFormatName, progress, root, say
from schemas.errors import FreshetError, KafkaUnreachable, NotAcknowledged, StoreUnavailable

COMMANDS: Final = (
    "access",
    "audit",
    "bench",
    "client",
    "consent",
    "demo",
    "doctor",
    "erase",
    "explain",
    "export",
    "features",
    "flink_conf",
    "gateway",
    "keys",
    "logs",
    "map",
    "model",
    "rebucket",
    "rebuild",
    "replay",
    "report",
    "retention",
    "retrain",
    "rollout",
    "rotate",
    "stack",
    "state",
    "submit",
    "take_over",
    "topics",
    "upgrade",
)
MODULES: Final = tuple(import_module(f"freshet.cli.{name}") for name in COMMANDS)
"""The modules of the commands; importing them adds their commands to `root`."""
INTERRUPTED: Final = 130
"""Typer's exit code for Ctrl-C."""
SIGNALLED: Final = 128
"""As in shells, a command ended by a signal exits with this plus the signal's number."""


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"freshet {freshet.__version__}")
        raise typer.Exit


@root.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    log_format: Annotated[
        LogFormatName,
        typer.Option(envvar="FRESHET_LOG_FORMAT", help="Format of progress, warnings and errors on standard error."),
    ] = LogFormatName.TEXT,
) -> None:
    if log_format == LogFormatName.JSON:
        from adapters.log_output import log_to_stderr

        log_to_stderr("json", {"service.name": "freshet"})
        progress.as_log_lines = True


def run(arguments: Sequence[str]) -> int:
    """Run the command line `arguments`; returns its exit code (:class:`ExitCode`)."""
    words = list(arguments)
    try:
        code = typer.main.get_command(root)(
            words, prog_name="freshet", standalone_mode=False, obj=shlex.join(["freshet", *words])
        )
    except typer.TyperException as error:
        say(_usage_message(error))
        return ExitCode.USAGE
    except (FreshetError, OSError) as error:
        say(f"freshet: not done: {_error_message(error)}")
        return ExitCode.NOT_DONE
    except Exception as error:
        if (message := _kafka_message(error)) is None:
            raise
        say(f"freshet: not done: {message}")
        return ExitCode.NOT_DONE
    if code == INTERRUPTED:
        say("freshet: interrupted; you can run the command again")
    return int(code or 0)


def _usage_message(error: typer.TyperException) -> str:
    message, context = error.format_message(), getattr(error, "ctx", None)
    if message.startswith("Usage:"):  # the help of a group without a command
        return message
    return (
        f"freshet: not understood: {message.rstrip('.')}; see `{context.command_path if context else 'freshet'} --help`"
    )


def _error_message(error: Exception) -> str:
    if isinstance(error, FileExistsError):
        return f"{error.filename} already exists and is not overwritten: name another file"
    if isinstance(error, OSError):
        return ": ".join(str(part) for part in (error.filename, error.strerror or type(error).__name__) if part)
    return f"{error}{_advice(error)}"


def _advice(error: Exception) -> str:
    """The next command, if a server did not answer: the doctor itself reports such errors in its own way."""
    if isinstance(error, KafkaUnreachable):
        return "; `freshet doctor --settings …` checks all settings"
    if isinstance(error, StoreUnavailable | NotAcknowledged):
        return "; `freshet doctor --settings …` checks Redis and Kafka. It is safe to run the command again"
    return ""


def _kafka_message(error: Exception) -> str | None:
    """The message for an error of Kafka's client; None for other errors."""
    errors = sys.modules.get("kafka.errors")  # unless imported, it cannot have raised the error
    if errors is None or not isinstance(error, errors.KafkaError):
        return None
    if isinstance(error, errors.RetriableError | errors.KafkaConnectionError):
        return (
            f"Kafka did not answer in time ({type(error).__name__}): `freshet doctor --settings …` says whether it "
            "does. It is safe to run the command again"
        )
    return (
        f"Kafka refused a request ({type(error).__name__}): its user may lack rights; `freshet doctor --settings …` "
        "checks them. It is safe to run the command again"
    )


def main() -> NoReturn:
    """Run the command line of this process. On SIGTERM or SIGHUP, a command cleans up as it does after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a check mark that the terminal cannot show is no failure
            stream.reconfigure(errors="backslashreplace")
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as whoever started this process has set it for imports
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under `nohup`
            signal.signal(number, _end)
    # Unless logging is configured, only our own message reports a failure of Kafka.
    logging.getLogger("kafka").addHandler(logging.NullHandler())
    try:
        with bars_on_a_terminal():
            code = run(sys.argv[1:])
        sys.exit(code)
    except Exception:  # Python would exit with 1, which means findings
        traceback.print_exc()
        say("freshet: not done: internal error, see above")
        sys.exit(ExitCode.NOT_DONE)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(SIGNALLED + number)
