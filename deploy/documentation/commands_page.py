"""Generates the command-line reference from the commands themselves."""

from collections.abc import Iterator
from typing import Any, Final

import typer

import freshet.cli.main  # noqa: F401 - adds its commands to root
from freshet.cli.shape import root

WIDTH: Final = 110
_INTRODUCTION: Final = """# Command line

`make setup` installs the command `freshet` into `.venv/bin`. `freshet --help` lists its commands, and the help of each
one ends with an example.

- Exit codes: 0 done, 1 findings, 2 not done (the last line on standard error says why), 3 needs backfill, 4 rolled
  back, 64 invalid command line.
  A command that a signal ends has 128 plus the signal's number: 130 after Ctrl-C, 143 after SIGTERM. Give it again.
- `--json` prints what a script reads.
- The variable `FRESHET_SETTINGS` replaces `--settings`.
- `freshet --install-completion` adds completion to your shell.
- If a server refuses connections, a command ends within five seconds.
"""


def commands_page() -> str:
    """The page as Markdown: the help text of each command."""
    lines = [_INTRODUCTION]
    for words, command in commands(typer.main.get_command(root)):
        name = f"freshet {' '.join(words)}"
        context = command.make_context(name, [], resilient_parsing=True, terminal_width=WIDTH)
        lines += [f"## {name}", "", "```text", command.get_help(context).strip(), "```", ""]
    return "\n".join(lines)


def commands(node: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every executable command below `node`, with the words of its name."""
    children = getattr(node, "commands", None)
    if children is None:
        yield words, node
    for name, child in sorted((children or {}).items()):
        yield from commands(child, (*words, name))
