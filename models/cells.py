"""Parses cells of a file: ids as text, numbers by their decimal mark."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Final, Literal

Cell = str | int | float | None
"""A value as read from a file; times that the file's type marks as times are already ms since the epoch."""

Chunk = dict[str, list[Cell]]
"""Column → its values in some rows; all lists have the same length."""
ROWS_PER_CHUNK: Final = 20_000
MISSING: Final = frozenset(["", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null", "None"])

LOST_DIGITS: Final = (
    "an id in scientific notation, such as 4.00638E+12, has lost digits: format the column as text and export again"
)
"""Why such rows are left out: different ids have become the same."""

DecimalMark = Literal[".", ",", "?"]
"""What separates the decimals of a column's numbers; ``?`` if a column has both, so that ``1,234`` is ambiguous."""

_PLAIN: Final = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.A)
_WHOLE: Final = re.compile(r"[+-]?\d{1,30}", re.A)
_NUMBERS: Final[dict[Literal[".", ","], re.Pattern[str]]] = {
    ".": re.compile(r"[+-]?(?:[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?|(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)", re.A),
    ",": re.compile(r"[+-]?(?:[1-9]\d{0,2}(?:\.\d{3})+(?:,\d+)?|(?:\d+(?:,\d+)?|,\d+)(?:[eE][+-]?\d+)?)", re.A),
}
"""Numbers by their decimal mark; the other mark separates thousands."""
_SCIENTIFIC: Final = re.compile(r"\s*[+-]?\d(?:[.,]\d+)?[eE]\+\d{2,3}\s*", re.A)
_EXACT_FLOAT_MAX: Final = 2.0**53
_SPACES: Final = str.maketrans("", "", " \u00a0\u202f")


def text_of(cell: Cell) -> str | None:
    """An id or a label. Whole numbers that became floats because of a missing value are written without the point.

    >>> text_of(7.0), text_of("7.0"), text_of(float("nan"))
    ('7', '7.0', None)
    """
    if cell is None or isinstance(cell, str):
        return cell
    if isinstance(cell, float):
        if not math.isfinite(cell):
            return None
        return str(int(cell)) if cell.is_integer() else str(cell)
    return str(cell)


def has_lost_digits(cell: Cell) -> bool:
    """Whether an id was rounded by Excel, or is a float too large to represent whole numbers exactly.

    >>> has_lost_digits("4.00638E+12"), has_lost_digits(2.0**60), has_lost_digits("2E10"), has_lost_digits(2**60)
    (True, True, False, False)
    """
    if isinstance(cell, str):
        return "+" in cell and _SCIENTIFIC.fullmatch(cell) is not None
    return isinstance(cell, float) and math.isfinite(cell) and abs(cell) >= _EXACT_FLOAT_MAX


def rows_with_lost_digits(cells: Sequence[Cell]) -> list[int]:
    """The indices of the cells for which :func:`has_lost_digits`."""
    if not any(map(_may_have_lost_digits, set(cells))):
        return []
    return [row for row, cell in enumerate(cells) if has_lost_digits(cell)]


def _may_have_lost_digits(cell: Cell) -> bool:
    """Also true for a large int: in a set it may stand for an equal float."""
    return has_lost_digits(cell) or (isinstance(cell, int) and abs(cell) >= _EXACT_FLOAT_MAX)


def decimal_marks(text: str) -> str:
    """The decimal marks with which the text is a number that has a separator.

    One mark proves how the column is written; two or none prove nothing.

    >>> [decimal_marks(text) for text in ("12.50", "2,50", "0.123", "1.234.567", "1,234", "1.234", "1234", "a few")]
    ['.', ',', '.', ',', '.,', '.,', '', '']
    """
    text = _without_spaces(text)
    if text.isdigit():
        return ""
    marks = "".join(mark for mark, form in _NUMBERS.items() if form.fullmatch(text))
    return marks if "." in text or "," in text else ""


def number_of(cell: Cell, mark: DecimalMark = ".") -> Cell:
    """Parse a number; other text stays as it is, and so does ``1,234`` if the column's ``mark`` is unknown.

    A number with only one reading gets that reading, whatever the mark of its column.

    >>> number_of("3"), number_of("2,50"), number_of("1.234,5"), number_of("a few")
    (3, 2.5, 1234.5, 'a few')
    >>> number_of("1,234"), number_of("1,234", ","), number_of("1,234", "?")
    (1234, 1.234, '1,234')
    """
    if isinstance(cell, float) and not math.isfinite(cell):
        return None
    if not isinstance(cell, str):
        return cell
    text = _without_spaces(cell)
    marks = decimal_marks(text)
    if len(marks) == 2:
        if mark == "?":
            return cell
        marks = mark
    if marks:
        text = text.replace("," if marks == "." else ".", "").replace(marks, ".")
    if _WHOLE.fullmatch(text):
        return int(text)
    if _PLAIN.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return None if text.lower() in ("inf", "+inf", "-inf", "infinity", "-infinity") else cell


def numbers_of(cells: Sequence[Cell], mark: DecimalMark = ".") -> list[Cell]:
    """Apply :func:`number_of` to each cell; repeated texts are parsed once."""
    read = {cell: number_of(cell, mark) for cell in set(cells) if isinstance(cell, str)}
    return [read[cell] if isinstance(cell, str) else number_of(cell, mark) for cell in cells]


def _without_spaces(text: str) -> str:
    return text.strip().translate(_SPACES)


def texts_of(cells: Iterable[Cell]) -> list[str | None]:
    """Apply :func:`text_of` to each cell."""
    return [cell if isinstance(cell, str) else text_of(cell) for cell in cells]
