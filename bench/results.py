"""Writes the figures: to `.local/bench.json` for programs, to `bench/RESULTS.md` for people.

No figure is entered by hand.
"""

import json
import re
from pathlib import Path
from typing import Any, Final

from bench.figures import LimitCheck
from deploy.local.files import write_atomically
from deploy.local.paths import LOCAL, ROOT

JSON_PATH: Final = LOCAL / "bench.json"
MARKDOWN_PATH: Final = ROOT / "bench" / "RESULTS.md"
HEAD: Final = """# Results

Written by `make bench`: each section is the last full run of its part, and says when, where and how it was measured.
`python -m bench`, `bench.read` and `bench.users` in older sections are `freshet bench run`, `read` and `users` now.
"""


def merged(known: dict[str, Any], figures: dict[str, Any]) -> dict[str, Any]:
    """`known`, updated with the new figures.

    >>> merged({"throughput_ratio": 0.5, "other": 1}, {"throughput_ratio": 0.6})
    {'throughput_ratio': 0.6, 'other': 1}
    """
    return {**known, **figures}


def write_json(figures: dict[str, Any], path: Path = JSON_PATH) -> None:
    """Update bench.json with `figures`; other entries are kept."""
    known = json.loads(path.read_text()) if path.exists() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(merged(known, figures), indent=2) + "\n")


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; all columns but the first are right-aligned.

    >>> print(table(["way", "p50"], [["job", "40"]]))
    | way | p50 |
    |---|--:|
    | job | 40 |
    """
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    dashes = "|" + "|".join(lines[1]) + "|"
    return "\n".join(["| " + " | ".join(head) + " |", dashes, *("| " + " | ".join(row) + " |" for row in rows)])


def limits(found: list[LimitCheck]) -> str:
    """The limits as a table; empty if there are none."""
    if not found:
        return ""
    rows = [
        [verdict.what, verdict.figure, verdict.limit, "met" if verdict.is_met else "**missed**"] for verdict in found
    ]
    return table(["held against its limit", "figure", "limit", ""], rows)


def section(name: str, body: str) -> str:
    """`body` between the marks that identify the section."""
    return f"<!-- {name} -->\n{body.strip()}\n<!-- /{name} -->"


def with_section(text: str, name: str, body: str) -> str:
    """`text` with the section of that name replaced, or appended."""
    marks = re.compile(rf"<!-- {name} -->.*<!-- /{name} -->", re.DOTALL)
    new = section(name, body)
    if marks.search(text):
        return marks.sub(lambda _: new, text)
    return f"{text.rstrip()}\n\n{new}\n"


def write_section(name: str, body: str, path: Path = MARKDOWN_PATH) -> None:
    """Write a section of RESULTS.md; all others are kept."""
    text = path.read_text() if path.exists() else HEAD
    write_atomically(path, with_section(text, name, body))
