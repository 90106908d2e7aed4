"""Commands and rights as the documentation prints them, so that what is printed is what is tested."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
ROOT = DOCS.parent
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "serving" / "README.md", *sorted(DOCS.rglob("*.md")))
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"`((?:python -m|freshet) [^`]+)`")


def blocks(language: str) -> Iterator[tuple[Path, str]]:
    """The code blocks in `language`, with the page on which each stands."""
    for page in PAGES:
        for found in _BLOCK.finditer(page.read_text()):
            if found[1] == language:
                yield page, found[2]


def commands(program: str) -> Iterator[list[str]]:
    """The arguments of every `python -m …` or `freshet …` in code blocks and running text, as the shell splits them."""
    for page in PAGES:
        if "decisions" in page.parts:  # what was so on the day of the decision
            continue
        text = page.read_text().replace("\\\n", " ")
        lines = [line for found in _BLOCK.finditer(text) for line in found[2].splitlines()]
        for line in lines + _COMMAND.findall(text):
            if line.startswith(f"{program} "):
                yield shlex.split(line.removeprefix(program), comments=True)


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
