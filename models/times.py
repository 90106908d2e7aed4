"""Parses times of a file into ms since the epoch: dates by their format, numbers by the unit that their column proves.

``1709251200`` is a time in 2024 in seconds, and one in January 1970 in milliseconds. A number is a time between 1980
and 2100 in at most one unit, so it proves the unit of its column; a column that proves two is refused. The same goes
for the order of day and month in ``29/11/2026``: a number above 12 is a day.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from fractions import Fraction
from typing import Final, Literal

from models.cells import Cell, decimal_marks
from schemas.errors import FileError

TWO_READINGS: Final = "a date in which day and month cannot be told apart: say how with --time-format"
"""Why such rows are left out."""

DateOrder = Literal["day", "month"]
"""What comes first in ``3/1/2024``."""
_MONTHS: Final = 12

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ZONE: Final = r"\s*(?P<zone>Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)?"
_CLOCK: Final = rf"(?:[T ]+(?P<hour>\d{{1,2}}):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<part>\d+))?)?{_ZONE})?"
_YEAR_FIRST: Final = re.compile(
    rf"(?P<year>\d{{4}})([-/.])(?P<month>\d{{1,2}})\2(?P<day>\d{{1,2}}){_CLOCK}", re.A | re.I
)
_DAY_FIRST: Final = re.compile(rf"(?P<day>\d{{1,2}})\.(?P<month>\d{{1,2}})\.(?P<year>\d{{4}}){_CLOCK}", re.A | re.I)
_SLASHED: Final = re.compile(rf"(?P<one>\d{{1,2}})([-/])(?P<two>\d{{1,2}})\2(?P<year>\d{{4}}){_CLOCK}", re.A | re.I)
_TWO_WAYS: Final = re.compile(r"\d{1,2}([-/])\d{1,2}\1\d{2,4}\b", re.A)
_WITH_NAMES: Final = re.compile(
    r"(?:[A-Z][a-z]{2}, )?\d{1,2} [A-Z][a-z]{2} \d{4} \d\d:\d\d(?::\d\d)?(?: [-+A-Z0-9]+)?", re.A
)
_NUMBER: Final = re.compile(r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:(?:e[+-]?|E-?)\d{1,3})?", re.A)
"""Excludes ``1.70925E+12``, which is how Excel writes rounded numbers."""
_NUMBER_LENGTH_MAX: Final = 64
_NUMBER_MAX: Final = 10**24

_HALF: Final = Fraction(1, 2)
_PROOF_FROM_MS: Final = 315_532_800_000
_PROOF_TO_MS: Final = 4_102_444_800_000
"""1980-01-01 and 2100-01-01."""
FILE_TS_MAX: Final = _PROOF_TO_MS
"""A later time in a file stands for none: 9999-12-31, or a year of another calendar."""

FILE_TS_MIN: Final = 31_536_000_000
"""1971-01-01 in ms: an earlier time in a file is zero for a missing one, or seconds that were stored as ms."""


@dataclass(frozen=True)
class Unit:
    """The unit of a column's times: its length in ``ms``, and its zero ``zero_ms`` as ms since the epoch."""

    name: str
    ms: Fraction
    zero_ms: int = 0
    is_rounded: bool = False

    def milliseconds(self, number: Fraction | int) -> int:
        """Ms since the epoch, rounded down; to the nearest for days, whose decimals are already rounded."""
        ms = number * self.ms
        return math.floor(ms + _HALF if self.is_rounded else ms) + self.zero_ms

    def number(self, ms: int) -> int:
        """The number for a time that is whole in this unit."""
        return int((ms - self.zero_ms) / self.ms)


_DAY_MS: Final = 86_400_000
DAYS: Final = Unit("days since 1899-12-30, as Excel counts them", Fraction(_DAY_MS), -25_569 * _DAY_MS, is_rounded=True)
SECONDS: Final = Unit("seconds since the epoch", Fraction(1000))
MILLISECONDS: Final = Unit("milliseconds since the epoch", Fraction(1))
MICROSECONDS: Final = Unit("microseconds since the epoch", Fraction(1, 1000))
NANOSECONDS: Final = Unit("nanoseconds since the epoch", Fraction(1, 1_000_000))
_UNITS: Final = (DAYS, SECONDS, MILLISECONDS, MICROSECONDS, NANOSECONDS)
_BOUNDS: Final = [each.number(ms) for each in _UNITS for ms in (_PROOF_FROM_MS, _PROOF_TO_MS)]
"""Ascending: the numbers that prove a unit lie between its two bounds, and no two ranges overlap."""


def unit_proved_by(number: int | Fraction) -> Unit | None:
    """The unit in which the number is a time between 1980 and 2100, if any.

    >>> [unit.name[:5] for unit in map(unit_proved_by, (45000, 1709251200, 1709251200000)) if unit]
    ['days ', 'secon', 'milli']
    >>> unit_proved_by(20240301), unit_proved_by(0)
    (None, None)
    """
    place = bisect_right(_BOUNDS, number)
    return _UNITS[place // 2] if place % 2 else None


def is_time(text: str) -> bool:
    """Whether text is surely a time: a date with a year, or a number that proves a unit other than days.

    >>> [is_time(text) for text in ("881250949", "2014-04-07T10:51:09.277Z", "45000", "5", "1.0", "ts")]
    [True, True, False, False, False, False]
    """
    number = _number(text)
    if number is None:
        return _date_ms(text.strip(), None) is not None
    return unit_proved_by(number) not in (None, DAYS)


class TimeEvidence:
    """Detects the unit of a time column from its values that are not in ``form``.

    Without a ``form``, also detects whether days or months come first.
    """

    def __init__(self, form: str | None = None) -> None:
        self._form = form
        self._found: dict[Unit, Cell] = {}
        self._orders: dict[DateOrder, Cell] = {}

    def add(self, cells: Iterable[Cell]) -> None:
        """Add some of the column's values."""
        for cell in set(cells):
            if self._form is None and (order := date_order_proved_by(cell)) is not None:
                self._orders.setdefault(order, cell)
            number = _number(cell)
            if number is None or (unit := unit_proved_by(number)) is None or unit in self._found:
                continue
            if self._form is None or _in_form(cell, self._form) is None:
                self._found[unit] = cell

    def unit(self, file: str, column: str) -> Unit | None:
        """The unit; None if no number proves one. Raises :class:`FileError` if two are proved."""
        if len(self._found) > 1:
            shown = " and ".join(f"{cell} in {unit.name}" for unit, cell in list(self._found.items())[:2])
            raise FileError(
                f"times of column {column} of {file} are in more than one unit: {shown}: write all of them in one, or "
                "as dates such as 2024-03-01T10:00:00Z"
            )
        return next(iter(self._found), None)

    def order(self, file: str, column: str) -> DateOrder | None:
        """What comes first; None if no date proves it. Raises :class:`FileError` if both are proved."""
        if len(self._orders) > 1:
            raise FileError(
                f"dates of column {column} of {file} have the day first, as {self._orders['day']}, and the month "
                f"first, as {self._orders['month']}: write all of them as 2024-03-01T10:00:00Z"
            )
        return next(iter(self._orders), None)


def date_order_proved_by(cell: Cell) -> DateOrder | None:
    """What comes first in a date, if one of its numbers cannot be a month.

    >>> [date_order_proved_by(date) for date in ("29/11/2026", "11-29-2026 10:00", "3/1/2024", "29/30/2026")]
    ['day', 'month', None, None]
    """
    found = _SLASHED.fullmatch(cell.strip()) if isinstance(cell, str) else None
    if found is None:
        return None
    first, second = int(found["one"]), int(found["two"])
    if (first > _MONTHS) == (second > _MONTHS):
        return None
    return "day" if first > _MONTHS else "month"


def describe_order(order: DateOrder | None, column: str) -> list[str]:
    """A sentence that says in which order dates were read; none without proof."""
    return [] if order is None else [f"dates of {column} such as 3/1/2024 are read with the {order} first"]


def describe_unit(unit: Unit | None, column: str) -> list[str]:
    """A sentence that says in which unit a column was read; none if it has no numbers."""
    return [] if unit is None else [f"times of {column} are numbers: read as {unit.name}"]


def milliseconds_of(
    cells: Sequence[Cell],
    form: str | None = None,
    unit: Unit | None = MILLISECONDS,
    order: DateOrder | None = None,
) -> list[int | None]:
    """Times as ms since the epoch, None for invalid ones: numbers are in ``unit``, texts are dates.

    A date is in ISO 8601 or similar, as ``1.3.2024 10:00``, as in e-mails, or in ``form`` (as for ``strptime``); it is
    UTC unless it names a zone. ``3/1/2024`` is invalid without a ``form`` or an ``order``, and numbers are invalid
    without a ``unit``.

    >>> milliseconds_of(["2024-03-01T00:00:00.000Z", "2024-03-01 1:00", 1709254800000, "3/1/2024", "soon"])
    [1709251200000, 1709254800000, 1709254800000, None, None]
    >>> milliseconds_of(["2024-03-01", "1709251200.5"], unit=SECONDS), milliseconds_of([45352.25], unit=DAYS)
    ([1709251200000, 1709251200500], [1709272800000])
    """
    read = {cell: _ms_of(cell, form, unit, order) for cell in set(cells)}
    return [read[cell] for cell in cells]


def has_two_readings(cell: Cell, order: DateOrder | None = None) -> bool:
    """Whether it is a date in which either number may be the month."""
    return order is None and isinstance(cell, str) and _TWO_WAYS.match(cell.strip()) is not None


def check_form(form: str | None) -> None:
    """Raise :class:`FileError` if ``strptime`` does not accept the format."""
    try:
        datetime.strptime("", form or "")
    except ValueError as error:
        if "bad directive" in str(error) or "stray" in str(error):
            raise FileError(f"{form!r} is not a time format: {error}") from None


def _ms_of(cell: Cell, form: str | None, unit: Unit | None, order: DateOrder | None) -> int | None:
    if form is not None and (found := _in_form(cell, form)) is not None:
        return found
    number = _number(cell)
    if number is not None:
        return None if unit is None else unit.milliseconds(number)
    return _date_ms(cell.strip(), order) if isinstance(cell, str) else None


def _number(cell: Cell) -> int | Fraction | None:
    """A number with one reading, exactly as written."""
    if cell is None or isinstance(cell, int):
        return cell if cell is not None and abs(cell) < _NUMBER_MAX else None
    if isinstance(cell, float):
        return _fraction(repr(cell)) if math.isfinite(cell) else None
    text = cell.strip()
    if len(text) > _NUMBER_LENGTH_MAX or ":" in text:
        return None
    if text.isdigit() and text.isascii():
        return _number(int(text))
    is_number = _NUMBER.fullmatch(text) is not None and len(decimal_marks(text)) < 2
    return _fraction(text.replace(",", ".")) if is_number else None


def _fraction(text: str) -> int | Fraction | None:
    if not (near := abs(float(text))) < _NUMBER_MAX:
        return None
    exact = Fraction(text) if near else Fraction(0)
    return exact.numerator if exact.denominator == 1 else exact


def _date_ms(text: str, order: DateOrder | None) -> int | None:
    try:
        return _ms(_date(text, order))
    except (ValueError, OverflowError, TypeError):
        return None


def _in_form(cell: Cell, form: str) -> int | None:
    try:
        return None if cell is None else _ms(datetime.strptime(str(cell).strip(), form))
    except (ValueError, OverflowError):
        return None


def _date(text: str, order: DateOrder | None) -> datetime:
    if text[:4].isdigit() and text[4:5] == "-":
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            pass
    slashed = None if order is None else _SLASHED.fullmatch(text)
    if found := _YEAR_FIRST.fullmatch(text) or _DAY_FIRST.fullmatch(text) or slashed:
        given = found.groupdict()
        if slashed:
            given["day"], given["month"] = (given["one"], given["two"])[:: 1 if order == "day" else -1]
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
