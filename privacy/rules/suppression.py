"""Suppression of small figures: counts of fewer than `k` persons are withheld and cannot be derived from the rest.

1. A figure is shown if at least `k` distinct persons are behind it.
2. If one of the figures that add up to a total is withheld, the smallest of those larger than all withheld ones is
   withheld as well, with its equals; if none is larger, all are. The small figure and its larger cover could be
   swapped: even somebody who knows this rule cannot tell from the total which is which.
3. Figures withheld by either rule look the same, and so does a 0 next to them.
4. If fewer than `k` persons are behind the total, nothing of it is shown.

Figures of different totals must not be related by any other equation: see `privacy/rules/compliance.py`. This does not
prevent two attacks: reports over overlapping periods can be subtracted from each other, and somebody with outside
knowledge, such as that nobody changed a consent twice, can compute more.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from schemas.pseudonyms import kid_of

K_LEAST: Final = 10
CATEGORIES_MAX: Final = 1_000
"""How many values of a text written by others are distinguished per table; the rest count as :data:`OTHERS`."""
OTHERS: Final = ""
Figure = int | None
"""A count; None if it is withheld."""


class Cell:
    """A count, and the distinct persons behind it, up to `k`.

    A rotation gives a person a second pseudonym that cannot be linked to the first, so persons are counted by key, and
    the largest count is certain. If no name was recorded, the number of persons is unknown: each `unnamed` event counts
    as one. At most `k` names per key are kept.
    """

    __slots__ = ("_enough", "_k", "_names", "_unnamed", "count")

    def __init__(self, k: int) -> None:
        self.count = 0
        self._k = k
        self._names: set[str] = set()
        self._unnamed = 0
        self._enough = False

    def add(self, name: str | None, count: int = 1) -> None:
        """Count `count` events of the person `name`; None if no name was recorded."""
        self.count += count
        if self._enough:
            return
        if name is None:
            self._unnamed += count
        else:
            self._names.add(name)
        if len(self._names) + self._unnamed >= self._k:
            by_key = Counter(map(kid_of, self._names))
            self._enough = max(by_key.values(), default=0) + self._unnamed >= self._k
        if self._enough:
            self._names = set()

    @property
    def is_safe(self) -> bool:
        """Whether it may be shown by itself: at least `k` persons are behind it, or the count is 0."""
        return self._enough or self.count == 0

    @property
    def figure(self) -> Figure:
        """Its count, if it may be shown by itself. For parts of a total, use :meth:`Tally.table`."""
        return self.count if self.is_safe else None


class SuppressedTable(msgspec.Struct, frozen=True):
    """A total and its parts. `rest` is the sum of the withheld figures."""

    total: Figure
    rows: dict[str, Figure]
    rest: Figure


class Tally:
    """A total and its parts, by category."""

    def __init__(self, k: int, categories_max: int = CATEGORIES_MAX) -> None:
        self.total = Cell(k)
        self._k = k
        self._categories_max = categories_max
        self._cells: dict[str, Cell] = {}

    def add(self, category: str, name: str | None, count: int = 1) -> None:
        """Count `count` events of `category`, of the person `name`."""
        if category not in self._cells and len(self._cells) >= self._categories_max:
            category = OTHERS
        self.total.add(name, count)
        self._cells.setdefault(category, Cell(self._k)).add(name, count)

    def table(self, categories: Iterable[str] = ()) -> SuppressedTable:
        """What may be shown: rows for `categories` in their order, then all other counted rows.

        Of the others, rows with a withheld figure are left out, because their names may identify somebody.
        """
        cells = {name: self._cells.get(name) or Cell(self._k) for name in (*categories, *sorted(self._cells))}
        if not self.total.is_safe:
            return SuppressedTable(None, dict.fromkeys(categories), None)
        shown = select_shown(cells)
        rest = self.total.count - sum(cells[name].count for name in shown)
        known = set(categories)
        rows = {
            name: cell.count if name in shown or not rest else None
            for name, cell in cells.items()
            if name in known or name in shown
        }
        return SuppressedTable(self.total.count, rows, rest)


def select_shown(cells: Mapping[str, Cell]) -> set[str]:
    """Which of `cells`, whose sum is shown, may be shown by rules 1 and 2. Never empty ones."""
    shown = {name for name, cell in cells.items() if cell.count and cell.is_safe}
    withheld = [cell.count for name, cell in cells.items() if cell.count and name not in shown]
    if not withheld:
        return shown
    larger = [cells[name].count for name in shown if cells[name].count > max(withheld)]
    return {name for name in shown if larger and cells[name].count != min(larger)}
