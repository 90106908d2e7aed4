"""How values of others' records become those of an interaction: ids, times, numbers. Bounds are checked later."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from schemas.events import EVENT_TS_MIN, ID_LENGTH_MAX
from schemas.rejects import RejectReason
from schemas.wire.codecs import BadRecord
from schemas.wire.map_settings import TimeForm

YEAR_2100_MS: Final = 4_102_444_800_000
_PER_SECOND: Final = {"s": 1, "ms": 1_000, "us": 1_000_000}
_NS: Final = 1_000_000_000


def as_id(value: Any) -> str:
    """An id, which may be a whole number. Raises :class:`BadRecord` for anything else."""
    if type(value) is str:
        return value
    if type(value) is int or (type(value) is float and value.is_integer()):
        return str(int(value))
    raise BadRecord(RejectReason.WRONG_TYPE)


def as_event_id(value: Any) -> str:
    """The id of an event; a digest of one that is longer than ours may be.

    >>> as_event_id(7), as_event_id("a" * 65)[:8]
    ('7', '635361c4')
    """
    text = as_id(value)
    return text if len(text) <= ID_LENGTH_MAX else digest(text.encode())


def digest(raw: bytes) -> str:
    """64 hexadecimal digits that identify `raw`: SHA-256 (FIPS 180-4)."""
    return hashlib.sha256(raw).hexdigest()


def as_number(value: Any) -> int | float:
    """A number, which may be written as text. Raises :class:`BadRecord` for anything else."""
    if type(value) is int or type(value) is float:
        return value
    if type(value) is str and len(value) <= 32 and "_" not in value:
        try:
            return int(value) if value.lstrip("-").isdecimal() and value.isascii() else float(value)
        except ValueError:
            pass
    raise BadRecord(RejectReason.WRONG_TYPE)


def as_whole_number(value: Any) -> int:
    """A whole number, which may be written as text or like `1.0`."""
    number = as_number(value)
    if type(number) is float and not number.is_integer():
        raise BadRecord(RejectReason.WRONG_TYPE)
    return int(number)


def as_currency(value: Any) -> str:
    """A currency, in capital letters."""
    return as_text(value).upper()


def as_text(value: Any) -> str:
    """A text. Raises :class:`BadRecord` for anything else."""
    if type(value) is not str:
        raise BadRecord(RejectReason.WRONG_TYPE)
    return value


def reader_of_times(form: TimeForm) -> Callable[[Any], int]:
    """A function from times in that form to ms since the epoch; it raises :class:`BadRecord`."""
    if form == "rfc3339":
        return _ms_of_text
    if form == "found":
        return as_time
    per_second = _PER_SECOND[form]

    def ms_of_number(value: Any) -> int:
        return _in_bounds(as_number(value) * 1_000 / per_second if per_second != 1_000 else as_number(value))

    return ms_of_number


def as_time(value: Any) -> int:
    """The time (ms since the epoch) that a text or number means, where only one meaning is plausible.

    Text is RFC 3339. A number counts seconds, ms, µs or ns: of these, only one gives a date between 2000 and 2100.

    >>> [as_time(1_700_000_000), as_time("1700000000000"), as_time(1_700_000_000_000_000), as_time(1.7e9)]
    [1700000000000, 1700000000000, 1700000000000, 1700000000000]
    >>> as_time("2023-11-14T22:13:20Z"), as_time("2023-11-14 23:13:20.5+01:00")
    (1700000000000, 1700000000500)
    """
    if type(value) is str and (value[4:5] == "-" or not value.replace(".", "", 1).isdecimal()):
        return _ms_of_text(value)
    number = as_number(value)
    for per_second in (*_PER_SECOND.values(), _NS):
        ms = number * 1_000 / per_second if per_second != 1_000 else number
        if EVENT_TS_MIN <= ms < YEAR_2100_MS:
            return int(ms)
    raise BadRecord(RejectReason.TIME_TOO_OLD if number < EVENT_TS_MIN else RejectReason.TIME_IN_FUTURE)


def _in_bounds(ms: float) -> int:
    if not -(2**53) < ms < 2**53:  # also NaN
        raise BadRecord(RejectReason.OUT_OF_RANGE)
    return int(ms)


def _ms_of_text(value: Any) -> int:
    """RFC 3339; without an offset, as data warehouses write it, UTC."""
    text = as_text(value)
    if len(text) > 40:
        raise BadRecord(RejectReason.WRONG_TYPE)
    try:
        found = datetime.fromisoformat(text.removesuffix(" UTC"))
    except ValueError:
        raise BadRecord(RejectReason.WRONG_TYPE) from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    return round(found.timestamp() * 1_000)
