"""Suppression of small figures: counts of fewer than `k` persons are withheld and cannot be derived from the rest.

1. A figure is shown if at least `k` distinct persons are behind it.
2. Where one that adds up to a total with others is withheld, so is the smallest of the others that is larger than all
   that are withheld, and its equals; where none is larger, so are all. A small figure and its larger cover could change
   places: who subtracts from the total, and knows this rule, still does not know which is which.
3. What is withheld by either rule looks the same, and a 0 beside it too.
4. If fewer than `k` persons are behind the total, nothing of it is shown.

Figures that belong to different totals must not be bound by any other equation: see `privacy/rules/compliance.py`. What
this does not hold off: two reports over periods that overlap can be subtracted from each other, and who knows more than
the report says, such as that nobody changed a consent twice, can compute more.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from schemas.pseudonyms import kid_of

K_LEAST: Final = 10
CATEGORIES_MAX: Final = 1_000
"""So many values of a text that others write are told apart, by table; the rest are counted as :data:`OTHERS`."""
OTHERS: Final = ""
Figure = int | None
"""A count; None where it is not shown."""


class Cell:
    """A count, and who is behind it: distinct persons, up to `k` of them.

    A rotation gives a person a second pseudonym that nobody can link to the first, so persons are counted by key, and
    the largest of these counts is what is sure. Where no name was recorded, nobody knows how many persons there were:
    `unnamed` events stand for themselves. At most `k` names for each key are held.
    """

    __slots__ = ("_enough", "_k", "_names", "_unnamed", "count")

    def __init__(self, k: int) -> None:
        self.count = 0
        self._k = k
        self._names: set[str] = set()
        self._unnamed = 0
        self._enough = False

    def add(self, name: str | None, count: int = 1) -> None:
        """Count `count` things of the person `name`, None where no name was recorded."""
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
        """Whether it may be shown by itself: at least `k` persons are behind it, or nothing is."""
        return self._enough or self.count == 0

    @property
    def figure(self) -> Figure:
        """Its count, if it may be shown by itself. Not for what adds up to a total: see :meth:`Tally.table`."""
        return self.count if self.is_safe else None


class SuppressedTable(msgspec.Struct, frozen=True):
    """A total and what it is the sum of. `rest` is what the figures that are not shown add up to."""

    total: Figure
    rows: dict[str, Figure]
    rest: Figure


class Tally:
    """A total, and the cells that it is the sum of, by category."""

    def __init__(self, k: int, categories_max: int = CATEGORIES_MAX) -> None:
        self.total = Cell(k)
        self._k = k
        self._categories_max = categories_max
        self._cells: dict[str, Cell] = {}

    def add(self, category: str, name: str | None, count: int = 1) -> None:
        """Count `count` things of `category`, of the person `name`."""
        if category not in self._cells and len(self._cells) >= self._categories_max:
            category = OTHERS
        self.total.add(name, count)
        self._cells.setdefault(category, Cell(self._k)).add(name, count)

    def table(self, categories: Iterable[str] = ()) -> SuppressedTable:
        """What may be shown: rows for `categories` in their order, then for all others that are counted.

        Rows of the others whose figure is not shown are left out, because their very name may tell of somebody.
        """
        cells = {name: self._cells.get(name) or Cell(self._k) for name in (*categories, *sorted(self._cells))}
        if not self.total.is_safe:
            return SuppressedTable(None, dict.fromkeys(categories), None)
        shown = shown_of(cells)
        rest = self.total.count - sum(cells[name].count for name in shown)
        known = set(categories)
        rows = {
            name: cell.count if name in shown or not rest else None
            for name, cell in cells.items()
            if name in known or name in shown
        }
        return SuppressedTable(self.total.count, rows, rest)


def shown_of(cells: Mapping[str, Cell]) -> set[str]:
    """Which of `cells`, whose sum is shown and safe to show, are shown: rules 1 and 2. No empty ones."""
    shown = {name for name, cell in cells.items() if cell.count and cell.is_safe}
    withheld = [cell.count for name, cell in cells.items() if cell.count and name not in shown]
    if not withheld:
        return shown
    larger = [cells[name].count for name in shown if cells[name].count > max(withheld)]
    return {name for name in shown if larger and cells[name].count != min(larger)}
