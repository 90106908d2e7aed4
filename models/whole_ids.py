"""Detects integer ids that a file stores as floats, once per column, from all of its ids.

A missing value turns a column of whole numbers into floats: ``12345`` is written as ``12345.0``, and would be another
person. If every number of a column is written so, its ids are read as whole numbers. If a column has both ``5`` and
``5.0``, it is ambiguous whether they are the same id.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from models.cells import Cell

TWO_WRITINGS: Final = (
    "an id such as 5.0 in a column that has ids such as 5, too: write all of them alike, without the point"
)
"""Why such rows are left out: the two may or may not be the same id."""

_POINTED: Final = re.compile(r"-?(?:0|[1-9]\d*)[.,]0{1,2}", re.A)
_WHOLE: Final = re.compile(r"-?\d+", re.A)
_NUMBER: Final = re.compile(r"-?\d+[.,]\d+", re.A)


class IdEvidence:
    """How the ids of some columns are written."""

    def __init__(self, columns: Iterable[str]) -> None:
        self._pointed: dict[str, str] = {}
        self._whole: set[str] = set()
        self._others: set[str] = set()
        self._columns = list(columns)

    def add(self, chunk: Mapping[str, Iterable[Cell]]) -> None:
        """Add the evidence of some rows; other columns are ignored."""
        for column in self._columns:
            for cell in set(chunk[column]):
                if isinstance(cell, int) or (isinstance(cell, str) and _WHOLE.fullmatch(cell)):
                    self._whole.add(column)
                elif isinstance(cell, str) and _POINTED.fullmatch(cell):
                    self._pointed.setdefault(column, cell)
                elif isinstance(cell, str) and _NUMBER.fullmatch(cell):
                    self._others.add(column)

    def floats(self) -> frozenset[str]:
        """Columns whose numbers are all written as floats with whole values."""
        return frozenset(self._pointed.keys() - self._whole - self._others)

    def mixed(self) -> frozenset[str]:
        """Columns whose numbers are written in both ways."""
        return frozenset(self._pointed.keys() & self._whole)

    def notes(self) -> list[str]:
        """Sentences that say which ids are read without their point."""
        floats = self.floats()
        return [
            f"ids of {column} are whole numbers that were written as {shown}: read without the point"
            for column, shown in self._pointed.items()
            if column in floats
        ]


def as_floats(cells: Iterable[Cell]) -> list[Cell]:
    """Convert ids of a float column back to floats."""
    return [
        float(cell.replace(",", ".")) if isinstance(cell, str) and _POINTED.fullmatch(cell) else cell for cell in cells
    ]


def pointed_rows(cells: Iterable[Cell]) -> list[int]:
    """The indices of ids that are written with a point."""
    return [row for row, cell in enumerate(cells) if isinstance(cell, str) and _POINTED.fullmatch(cell)]
