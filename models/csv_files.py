"""Reads separated text: CSV and TSV, MovieLens' ``1::1193::5::978300760``, RecBole's ``user_id:token``.

With or without a header. A first line that contains a time, or only numbers, is data: no column has such a name.
"""

import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, NamedTuple, TextIO

from models.cells import MISSING, ROWS_PER_CHUNK, Chunk, number_of
from models.text_files import REPLACED, open_text
from models.times import is_time
from schemas.errors import FileError

FIELD_CHARACTERS_MAX: Final = 1 << 20
"""A longer CSV field has an unclosed quotation mark."""

WRONG_WIDTH: Final = "another number of fields than the header"
WRONG_QUOTES: Final = "quotation marks that do not fit"
WRONG_ENCODING: Final = "text that is not of the file's encoding"

_SEPARATORS: Final = (",", ";", "\t", "|", "::")
_LAST_RESORT: Final = " "
"""Separates columns only if nothing else does, and there are at least as many as an interaction needs."""
_COLUMNS_MIN: Final = 3
_SPELLED: Final = {"tab": "\t", "\\t": "\t", "space": " ", "comma": ",", "semicolon": ";", "pipe": "|"}
_SHOWN: Final = {"\t": "tab", " ": "space"}
_BINARY: Final = frozenset(map(chr, range(9)))
_QUOTED_NAME: Final = re.compile(r"^([\[`'])([^\[\]`']+)[\]`']$")
"""A column name in the quotes of SQL exports."""
_TYPED_NAME: Final = re.compile(r"(.+):(?:token|float)(?:_seq)?")
"""A column name of RecBole's atomic files."""
_HINT: Final = re.compile(r"(\"?)sep=(?P<mark>\\t|[^\w\r\n\"]?)\1(?P=mark)*\s*", re.I)
"""A first line that names the separator for Excel: bare, quoted, or padded like a row."""


@dataclass(frozen=True)
class Layout:
    """What the user says about a text file. None: found in the file.

    ``separator`` is text between two columns, or a word such as ``tab``. ``names`` are the names of the columns of a
    file without a header.
    """

    separator: str | None = None
    names: tuple[str, ...] | None = None

    @classmethod
    def parse(cls, separator: str | None, names: str | None) -> "Layout":
        """From the texts of ``--separator`` and ``--column-names``; raises :class:`FileError`.

        >>> Layout.parse("tab", "user_id, item_id,rating,ts")
        Layout(separator='\\t', names=('user_id', 'item_id', 'rating', 'ts'))
        """
        if separator is not None:
            separator = _SPELLED.get(separator.lower(), separator)
            if not separator or not {'"', "\n", "\r"}.isdisjoint(separator):
                raise FileError('--separator must be text such as ";", "::" or tab, without quotation marks')
        if names is None:
            return cls(separator)
        listed = tuple(name.strip() for name in names.split(","))
        if not all(listed) or len(set(listed)) < len(listed):
            raise FileError("--column-names must be different names, separated by commas: user_id,item_id,rating,ts")
        return cls(separator, listed)


class Header(NamedTuple):
    """The separator and the columns of a text file; without a header, columns are named by the user or by number."""

    separator: str
    names: list[str]
    is_in_file: bool = True

    def notes(self, file: str, layout: Layout) -> list[str]:
        """What the user should know: that the file has no header, and a separator that the user did not give."""
        if self.is_in_file:
            return []
        named = "named" if layout.names else "numbered"
        by = f"separated by {_SHOWN.get(self.separator, self.separator)!r}, {named} {', '.join(self.names)}"
        return [f"{file} has no header: {len(self.names)} columns, {by}"]


def header_of(path: Path, shown: str, layout: Layout) -> Header:
    """The separator and the column names from the beginning of a file; raises :class:`FileError`.

    The separator is the user's, else the one that a first line ``sep=;`` names if it splits the header, else the one
    that gives most columns.
    """
    hint = _hinted(io.StringIO(shown, newline="").readline().removeprefix("\ufeff")) or ""
    if layout.separator is not None:
        separator = layout.separator
        first = _first_row(shown, separator)
    else:
        found = {each: _first_row(shown, each) for each in (*hint, *_SEPARATORS)}
        separator = hint if hint and len(found[hint]) > 1 else max(found, key=lambda each: len(found[each]))
        if len(found[separator]) == 1 and len(spaced := _first_row(shown, _LAST_RESORT)) >= _COLUMNS_MIN:
            separator, found[_LAST_RESORT] = _LAST_RESORT, spaced
        first = found[separator]
    if not any(map(str.strip, first)):
        raise FileError(f"{path} is empty: it has no header that names the columns")
    if not _BINARY.isdisjoint("".join(first)):
        raise FileError(f"{path} is neither CSV nor Parquet nor JSON lines")
    return _named(path, separator, first, layout.names)


def _named(path: Path, separator: str, first: list[str], names: tuple[str, ...] | None) -> Header:
    if names is not None:
        if len(names) != len(first):
            raise FileError(
                f"{path.name} has {len(first)} columns separated by {_SHOWN.get(separator, separator)!r}, and "
                f"--column-names gives {len(names)} names: name each column, or give the --separator"
            )
        return Header(separator, list(names), is_in_file=False)
    if is_data(first):
        return Header(separator, [str(place) for place in range(1, len(first) + 1)], is_in_file=False)
    own = [_QUOTED_NAME.sub(r"\2", name.strip()) for name in first]
    typed = [_TYPED_NAME.fullmatch(name) for name in own]
    return Header(separator, [each[1] for each in typed if each] if all(typed) else own)


def is_data(row: Sequence[str]) -> bool:
    """Whether a first line is data and not names: it has a time, or only numbers that do not count the columns.

    >>> is_data(["A1YJ", "0001713353", "1.0", "1391040000"]), is_data(["1", "2014-04-07T10:51:09.277Z", "21", "0"])
    (True, True)
    >>> is_data(["user_id", "item_id", "ts"]), is_data(["0", "1", "2"]), is_data(["user", "2024", "2025"])
    (False, False, False)
    """
    if any(map(is_time, row)):
        return True
    numbers = [number_of(field) for field in row]
    if len(row) == 1 or any(isinstance(each, str) or each is None for each in numbers):
        return False
    return not any(numbers == list(range(first, first + len(row))) for first in (0, 1))


def _first_row(shown: str, separator: str) -> list[str]:
    lines = _without_hint(io.StringIO(shown, newline=""))
    try:
        rows = _split(lines, separator) if len(separator) > 1 else _csv_reader(lines, separator, strict=False)
        return next((row for row in rows if row), [])
    except csv.Error:
        return []


def _split(lines: Iterable[str], separator: str) -> Iterator[list[str]]:
    """The fields of each line. Files with a separator of several characters have no quotation marks."""
    return (stripped.split(separator) if (stripped := line.rstrip("\r\n")) else [] for line in lines)


def _csv_reader(lines: Iterable[str], separator: str, strict: bool) -> Any:
    return csv.reader(lines, delimiter=separator, strict=strict, skipinitialspace=separator == " ")


def _without_hint(lines: Iterator[str]) -> Iterator[str]:
    """The lines without a hint in the first one, and without a byte order mark."""
    first = next(lines, "").removeprefix("\ufeff")
    return lines if _hinted(first) is not None else itertools.chain([first], lines)


def _hinted(line: str) -> str | None:
    r"""The separator in a line such as ``sep=;`` for Excel, empty if it names none; None for any other line.

    >>> [_hinted(line) for line in ("sep=;", '"sep=,"', "sep=\t", r"sep=\t", "sep=", "separator;item")]
    [';', ',', '\t', '\t', '', None]
    """
    found = _HINT.fullmatch(line)
    return None if found is None else found["mark"].replace("\\t", "\t")


def chunks_of(path: Path, header: Header, columns: Sequence[str], left_out: Counter[str]) -> Iterator[Chunk]:
    """The columns, some thousand rows at a time; unreadable rows are counted in ``left_out``."""
    places = [header.names.index(column) for column in columns]
    with open_text(path) as (text, encoding):
        rows = _records(text, header.separator, len(header.names), left_out)
        if header.is_in_file:
            next(rows, None)
        # One extra index, because a single one would not return tuples.
        picked = map(itemgetter(*places, 0), rows)
        while taken := list(itertools.islice(picked, ROWS_PER_CHUNK)):
            if encoding.replaces:
                taken = _readable(taken, left_out)
            values = zip(*taken, strict=True) if taken else itertools.repeat(())
            yield {
                column: list(cells)
                if MISSING.isdisjoint(cells)
                else [None if each in MISSING else each for each in cells]
                for column, cells in zip(columns, values, strict=False)
            }


def _records(text: TextIO, separator: str, width: int, left_out: Counter[str]) -> Iterator[list[str]]:
    """Rows as wide as the header, including the header; extra empty fields are ignored.

    A quotation mark not closed at the end of a field costs the lines that it includes: they are counted.
    """
    csv.field_size_limit(FIELD_CHARACTERS_MAX)
    lines = _without_hint(text)
    if len(separator) > 1:
        yield from (row for row in _split(lines, separator) if _is_as_wide(row, width, left_out))
        return
    reader = _csv_reader(lines, separator, strict=True)
    before, is_over = 0, False
    while not is_over:
        try:
            for row in reader:
                before = reader.line_num
                if len(row) == width or _is_as_wide(row, width, left_out):
                    yield row
            is_over = True
        except csv.Error:
            left_out[WRONG_QUOTES] += reader.line_num - before
            before = reader.line_num


def _is_as_wide(row: list[str], width: int, left_out: Counter[str]) -> bool:
    """Whether a row is as wide as the header, without extra empty fields; counts others, except empty lines."""
    if len(row) == width or (len(row) > width and not any(row[width:])):
        return True
    left_out[WRONG_WIDTH] += bool(row)
    return False


def _readable(rows: list[tuple[str, ...]], left_out: Counter[str]) -> list[tuple[str, ...]]:
    readable = [row for row in rows if not any(REPLACED in cell for cell in row[:-1])]
    if bad := len(rows) - len(readable):
        left_out[WRONG_ENCODING] += bad
    return readable
