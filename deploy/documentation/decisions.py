"""Generates the index of the decisions from the head of each file."""

import re
from pathlib import Path
from typing import Final, NamedTuple

_HEAD: Final = re.compile(
    r"# (?P<number>\d{4})\. (?P<title>[^\n]+)\n\n- Date: (?P<date>\d{4}-\d\d-\d\d)\n- Status: (?P<status>[^\n]+)\n"
    r"- Replaces: (?P<replaces>[^\n]+)\n\n"
)
_INTRODUCTION: Final = """# Decisions

One file per decision: what was known, what was decided, what follows, and the measurement that decided it.
A decision is never changed, though its wording may be improved: when one no longer holds, a new file replaces it, and
the status of the old one says so.
Figures and file names are those of the day of the decision.

| | decision | date | status |
|---|---|---|---|
"""


class DecisionRecord(NamedTuple):
    """The head of a decision file."""

    file: str
    number: str
    title: str
    date: str
    status: str
    replaces: str


def decisions(folder: Path) -> list[DecisionRecord]:
    """All decisions in `folder`, by number. Raises :class:`ValueError` for a file with an incomplete head."""
    found = []
    for path in sorted(folder.glob("[0-9]*.md")):
        match = _HEAD.match(path.read_text())
        if match is None or not path.name.startswith(match["number"]):
            raise ValueError(
                f"{path.name}: a decision begins with its number, title, date, status and what it replaces"
            )
        found.append(DecisionRecord(path.name, **match.groupdict()))
    return found


def decisions_page(folder: Path) -> str:
    """The index of the decisions in `folder`, newest last."""
    rows = [f"| [{one.number}]({one.file}) | {one.title} | {one.date} | {one.status} |" for one in decisions(folder)]
    return _INTRODUCTION + "\n".join(rows) + "\n"
