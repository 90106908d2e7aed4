"""Values of a file as what they stand for: ids as text, numbers by their decimal mark, times in ms."""

import math
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, Literal

from schemas.errors import FileError

Cell = str | int | float | None
"""A value as a file has it; a time that the file itself knows to be one is ms since the epoch already."""

Chunk = dict[str, list[Cell]]
"""Column → its values of some rows; all lists are of one length."""
ROWS_PER_CHUNK: Final = 20_000
MISSING: Final = frozenset(["", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null", "None"])

TWO_READINGS: Final = "a date in which day and month cannot be told apart: say how with --time-format"
"""The reason for which such rows are not taken."""

LOST_DIGITS: Final = (
    "an id in scientific notation, such as 4.00638E+12, has lost digits: format the column as text and export again"
)
"""The reason for which such rows are not taken: ids that begin alike have become one."""

DecimalMark = Literal[".", ",", "?"]
"""What separates the decimals of a column's numbers; ``?`` where a column has both, and ``1,234`` says nothing."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ZONE: Final = r"\s*(?P<zone>Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)?"
_CLOCK: Final = rf"(?:[T ]+(?P<hour>\d{{1,2}}):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<part>\d+))?)?{_ZONE})?"
_YEAR_FIRST: Final = re.compile(
    rf"(?P<year>\d{{4}})([-/.])(?P<month>\d{{1,2}})\2(?P<day>\d{{1,2}}){_CLOCK}", re.A | re.I
)
_DAY_FIRST: Final = re.compile(rf"(?P<day>\d{{1,2}})\.(?P<month>\d{{1,2}})\.(?P<year>\d{{4}}){_CLOCK}", re.A | re.I)
_TWO_WAYS: Final = re.compile(r"\d{1,2}([-/])\d{1,2}\1\d{2,4}\b", re.A)
_WITH_NAMES: Final = re.compile(
    r"(?:[A-Z][a-z]{2}, )?\d{1,2} [A-Z][a-z]{2} \d{4} \d\d:\d\d(?::\d\d)?(?: [-+A-Z0-9]+)?", re.A
)
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
    """An id or a label; whole numbers that a missing value made float are written without the point.

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
    """Whether an id is one that Excel rounded, or a float beyond the whole numbers that floats can tell apart.

    >>> has_lost_digits("4.00638E+12"), has_lost_digits(2.0**60), has_lost_digits("2E10"), has_lost_digits(2**60)
    (True, True, False, False)
    """
    if isinstance(cell, str):
        return _SCIENTIFIC.fullmatch(cell) is not None
    return isinstance(cell, float) and math.isfinite(cell) and abs(cell) >= _EXACT_FLOAT_MAX


def decimal_marks(text: str) -> str:
    """The decimal marks with which the text is a number that has a separator.

    One mark is proof of how the column is written; two are no proof, nor is none.

    >>> [decimal_marks(text) for text in ("12.50", "2,50", "0.123", "1.234.567", "1,234", "1.234", "1234", "a few")]
    ['.', ',', '.', ',', '.,', '.,', '', '']
    """
    text = _without_spaces(text)
    if text.isdigit():
        return ""
    marks = "".join(mark for mark, form in _NUMBERS.items() if form.fullmatch(text))
    return marks if "." in text or "," in text else ""


def number_of(cell: Cell, mark: DecimalMark = ".") -> Cell:
    """A number; text that is none stays as it is, and so does ``1,234`` where the column's ``mark`` is not known.

    A number that can be read in one way only is read in that way, whatever the mark of its column.

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


def _without_spaces(text: str) -> str:
    return text.strip().translate(_SPACES)


def milliseconds_of(cells: Sequence[Cell], form: str | None = None) -> list[int | None]:
    """Times as ms since the epoch, None for what is no time: numbers are that already, texts are dates.

    A date is written as ISO 8601 has it or nearly so, as ``1.3.2024 10:00``, as mails have it, or in ``form``
    (as for ``strptime``); it is UTC where it names no zone. ``3/1/2024`` is no time without a ``form``.

    >>> milliseconds_of(["2024-03-01T00:00:00.000Z", "2024-03-01 1:00", 1709254800000, "3/1/2024", "soon"])
    [1709251200000, 1709254800000, 1709254800000, None, None]
    """
    texts = {cell: _date_ms(cell, form) for cell in set(cells) if isinstance(cell, str)}
    return [texts[cell] if isinstance(cell, str) else _number_ms(cell, form) for cell in cells]


def has_two_readings(cell: Cell) -> bool:
    """Whether this is a date of which nobody can say which number is the month."""
    return isinstance(cell, str) and _TWO_WAYS.match(cell.strip()) is not None


def check_form(form: str | None) -> None:
    """Raise :class:`FileError` where ``strptime`` cannot take the form."""
    try:
        datetime.strptime("", form or "")
    except ValueError as error:
        if "bad directive" in str(error) or "stray" in str(error):
            raise FileError(f"{form!r} is no form of a time: {error}") from None


def _number_ms(cell: float | None, form: str | None) -> int | None:
    if cell is None or not math.isfinite(cell):
        return None
    found = None if form is None else _in_form(str(cell), form)
    return math.floor(cell) if found is None else found


def _date_ms(text: str, form: str | None) -> int | None:
    text = text.strip()
    found = None if form is None else _in_form(text, form)
    if found is not None:
        return found
    number = number_of(text) if _PLAIN.fullmatch(text) else None
    if isinstance(number, int | float):
        return math.floor(number)
    try:
        return _ms(_date(text))
    except (ValueError, OverflowError, TypeError):
        return None


def _in_form(text: str, form: str) -> int | None:
    try:
        return _ms(datetime.strptime(text, form))
    except (ValueError, OverflowError):
        return None


def _date(text: str) -> datetime:
    if text[:4].isdigit() and text[4:5] == "-":
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            pass
    if found := _YEAR_FIRST.fullmatch(text) or _DAY_FIRST.fullmatch(text):
        given = found.groupdict()
        second, part, zone = given["second"] or "00", (given["part"] or "0")[:6], (given["zone"] or "").upper()
        day = f"{given['year']}-{given['month']:0>2}-{given['day']:0>2}"
        zone = "Z" if zone in ("", "UTC", "GMT") else zone
        return datetime.fromisoformat(
            f"{day}T{given['hour'] or 0:0>2}:{given['minute'] or '00'}:{second}.{part:0<6}{zone}"
        )
    if _WITH_NAMES.fullmatch(text):
        return parsedate_to_datetime(text)
    raise ValueError


def _ms(time: datetime) -> int:
    since = (time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH
    return since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000


def texts_of(cells: Iterable[Cell]) -> list[str | None]:
    """:func:`text_of` of each."""
    return [cell if isinstance(cell, str) else text_of(cell) for cell in cells]
