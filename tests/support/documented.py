"""Commands and rights as the documentation prints them, so that tests use exactly what is printed."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parents[2] / "docs"
ROOT = DOCS.parent
FRONT_PAGES = tuple(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "serving/README.md"))
PAGES = (*FRONT_PAGES, *sorted(DOCS.rglob("*.md")))
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SHELL_BLOCK = re.compile(r"^```(?:sh|bash|shell|console)\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.M | re.DOTALL)
_COMPLETE = re.compile(r"`(freshet [a-z][^`…]* --[^`…]+)`")
_COMMAND = re.compile(r"`((?:python -m|freshet) [^`]+)`")


def blocks(language: str) -> Iterator[tuple[Path, str]]:
    """The code blocks in `language`, with the page of each."""
    for page in PAGES:
        for found in _BLOCK.finditer(page.read_text()):
            if found[1] == language:
                yield page, found[2]


class ShellBlock(NamedTuple):
    """A block of commands on a page, and the output shown directly below it, if any."""

    page: Path
    lines: list[str]
    output: str | None


def shell_blocks() -> list[ShellBlock]:
    """Every block of commands in the documentation."""
    return [
        ShellBlock(page, [line for line in found[1].replace("\\\n", " ").splitlines() if line.strip()], found[2])
        for page in PAGES
        for found in _SHELL_BLOCK.finditer(page.read_text())
    ]


def typed_lines() -> list[str]:
    """Every command line that can be typed as printed: in blocks, and in running text if it has options."""
    lines = [line for block in shell_blocks() for line in block.lines]
    for page in PAGES:
        if "decisions" not in page.parts and page.name != "commands.md":
            lines += _COMPLETE.findall(page.read_text())
    return sorted(set(lines))


def write_output(block: ShellBlock, output: str) -> None:
    """Show `output` below `block` instead of what is shown there now."""
    text = block.page.read_text()
    assert block.output is not None
    assert text.count(block.output) == 1, "two blocks show the same output"
    block.page.write_text(text.replace(block.output, output))


def commands(program: str) -> Iterator[list[str]]:
    """The arguments of every `python -m …` or `freshet …` in code blocks and running text, as the shell splits them."""
    for page in PAGES:
        if "decisions" in page.parts:  # a decision shows the commands of its day
            continue
        text = page.read_text().replace("\\\n", " ")
        lines = [line for found in _BLOCK.finditer(text) for line in found[2].splitlines()]
        for line in lines + _COMMAND.findall(text):
            if line.startswith(f"{program} "):
                yield shlex.split(line.removeprefix(program), comments=True)


def redis_rights(program: str) -> list[str]:
    """The commands that the permissions page allows the Redis user of `program`."""
    row = _line(DOCS / "data-engineers" / "permissions.md", f"| {program} | `~<prefix>* ")
    return row.partition("`~<prefix>* ")[2].partition("`")[0].split()


def job_rights() -> list[str]:
    """The commands allowed to the job's user."""
    return redis_rights("the job")


def _line(page: Path, beginning: str) -> str:
    [line] = [line for line in page.read_text().replace("\\\n", " ").splitlines() if line.startswith(beginning)]
    return line
