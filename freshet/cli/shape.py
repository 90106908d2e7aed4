"""What all commands share: exit codes, help with an example, and common options.

A command is a function that turns its options into a call of the package that does the work, and prints the result. It
imports that package when it runs, so that `freshet --help` and shell completion respond at once.
"""

import logging
import math
import re
import sys
from collections.abc import Callable
from enum import IntEnum, StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer

F = TypeVar("F", bound=Callable[..., Any])
EXAMPLE: Final = "Example: "
_TOPIC: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[A-Za-z0-9._-]{0,244}audit")


class ExitCode(IntEnum):
    """The exit codes of all commands."""

    DONE = 0
    FINDINGS = 1
    """The command succeeded, and found problems."""
    NOT_DONE = 2
    """The command failed or did not finish; the last line on standard error says why."""
    NEEDS_BACKFILL = 3
    """The job cannot start from the snapshot, but can rebuild its state from the topics."""
    ROLLED_BACK = 4
    """The new code of an upgrade was not well, and the previous code runs again."""
    USAGE = 64
    """The command line is invalid; nothing was started."""


root: Final = typer.Typer(
    help="Real-time, consent-first recommendations on Apache Flink. Exit codes: 0 done, 1 findings, 2 not done, "
    "3 needs backfill, 4 rolled back, 64 invalid command line, 130 ended by Ctrl-C, 143 by SIGTERM.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
"""The command `freshet`; importing the other modules of this package adds their commands."""


def group(name: str, help: str) -> typer.Typer:
    """Add a group of commands to `freshet`."""
    app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    root.add_typer(app, name=name, help=help)
    return app


def command(app: typer.Typer, name: str, example: str) -> Callable[[F], F]:
    """Add a function to `app` as the command `name`; its docstring is the help, followed by the example."""

    def add(function: F) -> F:
        app.command(name, epilog=f"{EXAMPLE}{example}", short_help=_first_sentence(function))(function)
        return function

    return add


def _first_sentence(function: Callable[..., Any]) -> str:
    return (function.__doc__ or "").partition(".\n")[0].strip().rstrip(".")


class LogFormatName(StrEnum):
    """The formats of :data:`schemas.log_lines.LogFormat`, which is not imported for help."""

    TEXT = "text"
    JSON = "json"


class ProgressStyle:
    """How progress is printed."""

    as_log_lines = False


progress: Final = ProgressStyle()


def say(line: str) -> None:
    """Print progress for people to standard error, as a log line with `--log-format json`.

    Results for scripts go to standard output.
    """
    if progress.as_log_lines:
        logging.getLogger("freshet.cli").info("%s", line)
        return
    print(line, file=sys.stderr, flush=True)


def print_json(value: object) -> None:
    """Print `value` as JSON for a script; a named tuple as an object with the names of its fields."""
    import msgspec

    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()

    print(msgspec.json.format(msgspec.json.encode(value)).decode())


def command_line(context: typer.Context) -> str:
    """The command line as command_line."""
    return str(context.find_root().obj)


def read_user_id(user: str) -> str:
    """The user id given by `--user`, from standard input for `-`. Raises a usage error unless there is exactly one."""
    user_ids = _read_lines() if user == "-" else [user]
    if len(user_ids) > 1:
        raise typer.BadParameter("several lines were given: one user per call", param_hint="--user")
    if user_ids in ([], [""]):
        raise typer.BadParameter("no user id was given", param_hint="--user")
    return user_ids[0]


def _read_lines() -> list[str]:
    """The first lines of standard input that are not empty, at most two; from a terminal, one line."""
    lines = [sys.stdin.readline()] if sys.stdin.isatty() else sys.stdin
    return list(islice(filter(None, (line.rstrip("\r\n") for line in lines)), 2))


def visible_name(text: str) -> str:
    """Validate a role or purpose for the audit trail."""
    from schemas.audit import NAME_LENGTH_MAX, is_name

    if not is_name(text):
        raise typer.BadParameter(
            f"must have a visible character, at most {NAME_LENGTH_MAX} characters, and no control characters"
        )
    return text


def in_existing_folder(path: Path | None) -> Path | None:
    """Validate an output path. Its parent folder must exist: a typo would put a key elsewhere."""
    if path is not None and not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no folder {path.absolute().parent}: create it first, or correct the path")
    return path


def finite(number: float | None) -> float | None:
    """Validate a number: `min` and `max` of an option let NaN pass."""
    if number is not None and not math.isfinite(number):
        raise typer.BadParameter("must be a finite number")
    return number


def topic_id(text: str) -> str:
    """Validate a topic given by Kafka's id, or by its name, because brokers before 2.8 assign no ids.

    >>> topic_id("9d1e0b6c-5a0f-4f1e-8a57-3c2f6f0f3f11"), topic_id("freshet.audit")
    ('9d1e0b6c-5a0f-4f1e-8a57-3c2f6f0f3f11', 'freshet.audit')
    """
    if not _TOPIC.fullmatch(text):
        raise typer.BadParameter("Kafka's id of a topic is 32 hexadecimal digits in five groups, as findings name it")
    return text


def public_key(text: str) -> bytes:
    """Parse a public key given in hexadecimal.

    >>> public_key("ab" * 32) == bytes([0xAB] * 32)
    True
    """
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise typer.BadParameter("a public key is 64 hexadecimal digits")
    return raw


SettingsFile = Annotated[
    Path, typer.Option("--settings", metavar="FILE", envvar="FRESHET_SETTINGS", help="The TOML file of the job.")
]
UserId = Annotated[
    str,
    typer.Option(
        "--user", metavar="ID", help="The user id; - reads it from standard input, so that no shell history has it."
    ),
]
OwnRole = Annotated[
    str, typer.Option("--role", parser=visible_name, metavar="<str>", help="Your role; recorded in the audit trail.")
]
OwnPurpose = Annotated[
    str,
    typer.Option(
        "--purpose",
        parser=visible_name,
        metavar="<str>",
        help="The purpose of the request; recorded in the audit trail.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Heads = Annotated[
    list[Path] | None,
    typer.Option("--heads", metavar="FILE", help="A file of `freshet audit save-heads`. Several may be given."),
]
PublicKeys = Annotated[
    list[bytes] | None,
    typer.Option(
        "--public-key", parser=public_key, metavar="HEX", help="Trust this key instead of the key in the settings."
    ),
]
Trails = Annotated[
    list[str] | None,
    typer.Option("--trail", parser=topic_id, metavar="ID", help="Kafka's id of a topic that the trail was moved from."),
]
