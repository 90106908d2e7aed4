"""Decides the decimal mark of a file's columns, once and by proof, before any number is parsed.

``12.50``, ``0.123`` and ``1,234.5`` prove a decimal point; ``2,50``, ``1.234.567`` and ``1.234,5`` prove a comma.
``1,234`` and ``1.234`` prove nothing: they are read as the rest of the column indicates.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from models.cells import Cell, Chunk, DecimalMark, decimal_marks

_NAMES = {".": "point", ",": "comma"}


class DecimalEvidence:
    """How the numbers of some columns are written. ``usual`` applies if nothing in the file proves a mark."""

    def __init__(self, columns: Iterable[str], usual: DecimalMark) -> None:
        self._usual = usual
        self._found: dict[str, Counter[str]] = {column: Counter() for column in columns}

    def add(self, chunk: Chunk) -> None:
        """Add the evidence of some rows; other columns are ignored."""
        for column, found in self._found.items():
            found.update(_marks_of(chunk[column]))

    def marks(self) -> dict[str, DecimalMark]:
        """Column → the mark that its numbers prove, else that of the other columns, else the usual one."""
        file = _proved(self._found.values())
        return {
            column: _proved([found]) or (file if file in (".", ",") else None) or self._usual
            for column, found in self._found.items()
        }

    def guessed(self) -> dict[str, int]:
        """Sentence → count of ambiguous numbers, for columns whose mark nothing in the file proves."""
        return {
            _guess(column, self._usual): found[".,"]
            for column, found in self._found.items()
            if found[".,"] and _proved([found]) is None and _proved(self._found.values()) in (None, "?")
        }


def count_ambiguous(cells: Iterable[Cell], mark: DecimalMark) -> int:
    """How many cells remain ambiguous with a column's mark."""
    return _marks_of(cells)[".,"] if mark == "?" else 0


def _marks_of(cells: Iterable[Cell]) -> Counter[str]:
    found = Counter[str]()
    for cell, times in Counter(cells).items():
        if isinstance(cell, str):
            found[decimal_marks(cell)] += times
    return found


def _proved(found: Iterable[Mapping[str, int]]) -> DecimalMark | None:
    proved = {mark for each in found for mark in (".", ",") if each.get(mark)}
    if len(proved) == 2:
        return "?"
    return "." if "." in proved else "," if proved else None


def _guess(column: str, mark: str) -> str:
    return (
        f"numbers of {column} that can be read in two ways, such as 1,234, are read with a decimal {_NAMES[mark]}, as "
        "nothing in the file says which it is: write them without separators of thousands if that is wrong"
    )
