"""What all commands have in common: exit codes, help with an example, and the options that several of them take.

A command is a function that turns its options into a call of the room that does the work, and prints what comes of it.
It imports that room when it runs, so that `freshet --help` and shell completion answer at once.
"""

import re
import sys
from collections.abc import Callable
from enum import IntEnum
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer

F = TypeVar("F", bound=Callable[..., Any])
EXAMPLE: Final = "Example: "
_TOPIC: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[A-Za-z0-9._-]{0,244}audit")


class ExitCode(IntEnum):
    """What a command's exit code says."""

    DONE = 0
    FINDINGS = 1
    """It was done, and found something wrong."""
    NOT_DONE = 2
    """It could not be done, or not to its end; the last line on standard error says why."""
    USAGE = 64
    """The command line was not understood; nothing was begun."""


root: Final = typer.Typer(
    help="Real-time, consent-first recommendations on Apache Flink. Exit codes: 0 done, 1 findings, 2 not done, "
    "64 invalid command line, 130 ended by Ctrl-C, 143 by SIGTERM.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
"""The command `freshet`; importing the modules beside this one adds their commands to it."""


def group(name: str, help: str) -> typer.Typer:
    """A command of `freshet` that has commands of its own."""
    app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    root.add_typer(app, name=name, help=help)
    return app


def command(app: typer.Typer, name: str, example: str) -> Callable[[F], F]:
    """Adds a function to `app` as the command `name`; its docstring is the help, below which the example stands."""

    def add(function: F) -> F:
        app.command(name, epilog=f"{EXAMPLE}{example}", short_help=_first_sentence(function))(function)
        return function

    return add


def _first_sentence(function: Callable[..., Any]) -> str:
    return (function.__doc__ or "").partition(".\n")[0].strip().rstrip(".")


def say(line: str) -> None:
    """Tell whoever waits how far the work is; what scripts read goes to standard output."""
    print(line, file=sys.stderr, flush=True)


def print_json(value: object) -> None:
    """Print `value` as JSON for a script."""
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(value)).decode())


def typed(context: typer.Context) -> str:
    """The command line as it was typed."""
    return str(context.find_root().obj)


def given_user(user: str) -> str:
    """The user id that `--user` gives, from standard input for `-`. Raises a usage error where there is not one."""
    user_ids = _typed_or_piped() if user == "-" else [user]
    if len(user_ids) > 1:
        raise typer.BadParameter("several lines were given: one user per call", param_hint="--user")
    if user_ids in ([], [""]):
        raise typer.BadParameter("no user id was given", param_hint="--user")
    return user_ids[0]


def _typed_or_piped() -> list[str]:
    """The first lines of standard input that are not empty, two at most; of a terminal, the line that is typed."""
    lines = [sys.stdin.readline()] if sys.stdin.isatty() else sys.stdin
    return list(islice(filter(None, (line.rstrip("\r\n") for line in lines)), 2))


def visible_name(text: str) -> str:
    """The role or purpose that an option gives for the audit trail."""
    from schemas.audit import NAME_LENGTH_MAX, is_name

    if not is_name(text):
        raise typer.BadParameter(
            f"must have a visible character, at most {NAME_LENGTH_MAX} characters, and no control characters"
        )
    return text


def in_a_folder(path: Path | None) -> Path | None:
    """What an option says is to be written. The folder around it must be there: a typo would put a key elsewhere."""
    if path is not None and not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no folder {path.absolute().parent}: make it first, or mend the path")
    return path


def topic_id(text: str) -> str:
    """The topic that an option names by Kafka's id, or by its name, as brokers before 2.8 give no ids.

    >>> topic_id("9d1e0b6c-5a0f-4f1e-8a57-3c2f6f0f3f11"), topic_id("freshet.audit")
    ('9d1e0b6c-5a0f-4f1e-8a57-3c2f6f0f3f11', 'freshet.audit')
    """
    if not _TOPIC.fullmatch(text):
        raise typer.BadParameter("Kafka's id of a topic is 32 hexadecimal digits in five groups, as findings name it")
    return text


def public_key(text: str) -> bytes:
    """The public key that an option gives in hexadecimal.

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
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Heads = Annotated[
    list[Path] | None,
    typer.Option("--heads", metavar="FILE", help="A file of `freshet audit save-heads`. Several may be given."),
]
PublicKeys = Annotated[
    list[bytes] | None,
    typer.Option(
        "--public-key", parser=public_key, metavar="HEX", help="Believe this key instead of the key in the settings."
    ),
]
Trails = Annotated[
    list[str] | None,
    typer.Option("--trail", parser=topic_id, metavar="ID", help="Kafka's id of a topic that the trail was moved from."),
]
