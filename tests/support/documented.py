"""Commands and rights as the documentation prints them, so that what is printed is what is tested."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
PAGES = (DOCS.parent / "README.md", DOCS.parent / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md")))
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"`(python -m [^`]+)`")


def shell_line(beginning: str) -> str:
    """The command of the installation page that begins so, continued lines joined."""
    return _line(DOCS / "data-engineers" / "install.md", beginning)


def blocks(language: str) -> Iterator[tuple[Path, str]]:
    """The code blocks in `language`, with the page on which each stands."""
    for page in PAGES:
        for found in _BLOCK.finditer(page.read_text()):
            if found[1] == language:
                yield page, found[2]


def python_commands() -> Iterator[tuple[Path, list[str]]]:
    """Every `python -m …` of code blocks and running text, as the shell splits it, without `python -m`."""
    for page in PAGES:
        if "decisions" in page.parts:  # what was so on the day of the decision
            continue
        text = page.read_text().replace("\\\n", " ")
        lines = [line for found in _BLOCK.finditer(text) for line in found[2].splitlines()]
        typed = [line for line in lines if line.startswith("python -m ")] + _COMMAND.findall(text)
        for line in typed:
            yield page, shlex.split(line, comments=True)[2:]


def redis_rights(program: str) -> list[str]:
    """The commands that the page of permissions allows the Redis user of `program`."""
    row = _line(DOCS / "data-engineers" / "permissions.md", f"| {program} | `~<prefix>* ")
    return row.partition("`~<prefix>* ")[2].partition("`")[0].split()


def job_rights() -> list[str]:
    """Those of the job's user."""
    return redis_rights("the job")


def _line(page: Path, beginning: str) -> str:
    [line] = [line for line in page.read_text().replace("\\\n", " ").splitlines() if line.startswith(beginning)]
    return line
