"""Reads user-supplied tables (CSV, Parquet, JSON lines), for replay and training alike.

A file is told by its content, not by its name: ``SHOP.CSV``, ``shop`` and ``shop.csv.gz`` are read alike.
Rows that cannot be read are left out and counted by reason; nothing is left out in silence.
"""

import csv
import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, TextIO

import msgspec

from models.cells import MISSING, ROWS_PER_CHUNK, Cell, Chunk, DecimalMark
from models.decimals import DecimalEvidence
from models.parquet_files import MARK, batches, schema_of
from models.text_files import REPLACED, WINDOWS, beginning, opened
from models.times import MILLISECONDS, DateOrder, TimeEvidence, Unit
from models.whole_ids import IdEvidence
from schemas.errors import FileError

FIELD_CHARACTERS_MAX: Final = 1 << 20
"""A field of CSV that is longer has a quotation mark that nothing closes."""

WRONG_WIDTH: Final = "another number of fields than the header"
WRONG_QUOTES: Final = "quotation marks that do not fit"
WRONG_ENCODING: Final = "text that is not of the file's encoding"
NO_OBJECT: Final = "not a JSON object"
NESTED: Final = "a list or an object where a value should be"
HALF_CHARACTER: Final = "half of a character (a lone surrogate)"

_DELIMITERS: Final = ",;\t|"
_BINARY: Final = frozenset(map(chr, range(9)))
_QUOTED_NAME: Final = re.compile(r"^([\[`'])([^\[\]`']+)[\]`']$")
"""A column's name as SQL exports quote it."""
_BRACKETS: Final = re.compile(r"\[[^\[\]{}\"]+\]\s*(?:[,;\t|]|$)")
_HINT: Final = re.compile(r"(\"?)sep=(?P<mark>\\t|[^\w\r\n\"]?)\1(?P=mark)*\s*", re.I)
"""A first line that tells Excel the delimiter, as exporters write it: bare, in quotes, or filled up like a row."""
_HEAD_CHARACTERS: Final = 1 << 16
_ROWS_FOR_NAMES: Final = 1_000

LeftOut = Counter[str]


@dataclass(frozen=True)
class Table:
    """A file that can be read any number of times.

    ``file``: its name. ``names``: its columns; of JSON, those of the first thousand rows. ``rows``: how many there are,
    where that is known without reading them. ``usual_mark``: the decimal mark of numbers where they prove none.
    ``note``: what a reader of the file should know of how it is read.
    """

    file: str
    names: list[str]
    _read: Callable[[Sequence[str], LeftOut], Iterator[Chunk]]
    rows: int | None = None
    usual_mark: DecimalMark = "."
    note: str | None = None
    typed: frozenset[str] = frozenset()
    """Columns whose numbers are of a type of the file: no way of writing is to be told."""
    times: frozenset[str] = frozenset()
    """Columns that the file itself knows to be times: their cells are ms since the epoch."""

    def chunks(self, columns: Iterable[str], left_out: LeftOut) -> Iterator[Chunk]:
        """The columns' values in the order of the file, some thousand rows at a time; all lists of a chunk are of one
        length. ``left_out`` is told the rows that could not be read, by reason. Raises :class:`FileError`."""
        wanted = list(dict.fromkeys(columns))
        for column in wanted:
            if (count := self.names.count(column)) > 1:
                raise FileError(f"{self.file} has {count} columns that are called {column}: rename all but one")
        return self._read(wanted, left_out)

    def evidence(
        self, numbers: Iterable[str], ids: Iterable[str], time: str, form: str | None
    ) -> tuple[DecimalEvidence, IdEvidence, Unit | None, DateOrder | None]:
        """How the numbers and ids of some columns are written, in which unit the numbers of another are times (those
        that are not in ``form``), and the order of its dates, from all rows of the file. Raises :class:`FileError`."""
        untyped = [column for column in numbers if column not in self.typed]
        named = [column for column in ids if column not in self.typed]
        marks, written, times = DecimalEvidence(untyped, self.usual_mark), IdEvidence(named), TimeEvidence(form)
        asked = [*untyped, *named, *(() if time in self.times else (time,))]
        for chunk in self.chunks(asked, Counter()) if asked else ():
            marks.add(chunk)
            written.add(chunk)
            times.add(() if time in self.times else chunk[time])
        return marks, written, self.unit(time, times), times.order(self.file, time)

    def ids(self, columns: Iterable[str]) -> IdEvidence:
        """How the ids of some columns are written, from all rows of the file. Raises :class:`FileError`."""
        named = [column for column in columns if column not in self.typed]
        written = IdEvidence(named)
        for chunk in self.chunks(named, Counter()) if named else ():
            written.add(chunk)
        return written

    def unit(self, time: str, evidence: TimeEvidence) -> Unit | None:
        """The unit of a column of times: what the file itself says, else what is proved. Raises :class:`FileError`."""
        return MILLISECONDS if time in self.times else evidence.unit(self.file, time)


def open_table(path: Path) -> Table:
    """The table in a file; raises :class:`FileError` that says what to change."""
    head = beginning(path)
    if head.startswith(MARK):
        schema = schema_of(path)
        return Table(
            path.name,
            schema.names,
            lambda columns, left_out: batches(path, columns, left_out),
            schema.rows,
            typed=schema.numbers,
            times=schema.times,
        )
    with opened(path) as (text, encoding):
        note = f"{path.name} is not UTF-8: read as Windows-1252" if encoding.name == WINDOWS else None
        shown = text.read(_HEAD_CHARACTERS)
    if _is_json(shown.lstrip("\ufeff \t\r\n")):
        names = _names_of_objects(path)
        return Table(path.name, names, lambda columns, left_out: _objects_of(path, columns, left_out), note=note)
    delimiter, names = _header(path, shown)
    return Table(
        path.name,
        names,
        lambda columns, left_out: _csv(path, delimiter, names, columns, left_out),
        # Excel takes the semicolon where the comma is the decimal mark.
        usual_mark="," if delimiter == ";" else ".",
        note=note,
    )


def _is_json(shown: str) -> bool:
    """Whether the text begins as JSON does; ``[user],[item]`` is a header of CSV."""
    if not shown.startswith("["):
        return shown.startswith("{")
    first = shown.splitlines()[0]
    return _BRACKETS.match(first) is None or _json(first) is not None


# -- CSV


def _header(path: Path, shown: str) -> tuple[str, list[str]]:
    """The delimiter that the hint says where it cuts the header, else that which cuts it into most names; the names."""
    hint = _hinted(io.StringIO(shown, newline="").readline().removeprefix("\ufeff")) or ""
    found = {delimiter: _first_row(shown, delimiter) for delimiter in hint + _DELIMITERS}
    delimiter = hint if hint and len(found[hint]) > 1 else max(_DELIMITERS, key=lambda each: len(found[each]))
    names = [_QUOTED_NAME.sub(r"\2", name.strip()) for name in found[delimiter]]
    if not any(names):
        raise FileError(f"{path} is empty: it has no header that names the columns")
    if not _BINARY.isdisjoint("".join(names)):
        raise FileError(f"{path} is neither CSV nor Parquet nor JSON lines")
    return delimiter, names


def _first_row(shown: str, delimiter: str) -> list[str]:
    lines = _without_hint(io.StringIO(shown, newline=""))
    try:
        return next((row for row in csv.reader(lines, delimiter=delimiter) if row), [])
    except csv.Error:
        return []


def _without_hint(lines: Iterator[str]) -> Iterator[str]:
    """The lines without the first where it is a hint, and without a mark."""
    first = next(lines, "").removeprefix("\ufeff")
    return lines if _hinted(first) is not None else itertools.chain([first], lines)


def _hinted(line: str) -> str | None:
    r"""The delimiter that a line such as ``sep=;`` tells Excel, empty where it tells none; None for any other line.

    >>> [_hinted(line) for line in ("sep=;", '"sep=,"', "sep=\t", r"sep=\t", "sep=", "separator;item")]
    [';', ',', '\t', '\t', '', None]
    """
    found = _HINT.fullmatch(line)
    return None if found is None else found["mark"].replace("\\t", "\t")


def _csv(path: Path, delimiter: str, names: list[str], columns: Sequence[str], left_out: LeftOut) -> Iterator[Chunk]:
    places = [names.index(column) for column in columns]
    with opened(path) as (text, encoding):
        rows = _records(text, delimiter, len(names), left_out)
        next(rows, None)
        # One place more than is wanted: a single one would not give tuples.
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


def _records(text: TextIO, delimiter: str, width: int, left_out: LeftOut) -> Iterator[list[str]]:
    """The rows of the header's width, the header among them; empty fields beyond it are no fields.

    A quotation mark that is not closed where a field ends costs the lines that it takes in: they are counted.
    """
    csv.field_size_limit(FIELD_CHARACTERS_MAX)
    reader = csv.reader(_without_hint(text), delimiter=delimiter, strict=True)
    before, is_over = 0, False
    while not is_over:
        try:
            for row in reader:
                before = reader.line_num
                if len(row) == width or (len(row) > width and not any(row[width:])):
                    yield row
                elif row:
                    left_out[WRONG_WIDTH] += 1
            is_over = True
        except csv.Error:
            left_out[WRONG_QUOTES] += reader.line_num - before
            before = reader.line_num


def _readable(rows: list[tuple[str, ...]], left_out: LeftOut) -> list[tuple[str, ...]]:
    readable = [row for row in rows if not any(REPLACED in cell for cell in row[:-1])]
    if bad := len(rows) - len(readable):
        left_out[WRONG_ENCODING] += bad
    return readable


# -- JSON


def object_of(line: str | bytes) -> dict[str, Any] | None:
    """One line of JSON, None where it is no object."""
    row = _json(line)
    return row if isinstance(row, dict) else None


def _json(text: str | bytes) -> Any:
    """What the text says, None where it is no JSON. NaN, which is none, is what Python and pandas write."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        pass
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def cell_of(value: Any) -> Cell:
    """A value of a JSON object; raises :class:`TypeError` for a list or an object."""
    if value is None or isinstance(value, str | float):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return value
    raise TypeError


def cells_of(row: Mapping[str, Any], columns: Iterable[str], left_out: LeftOut) -> list[Cell] | None:
    """The columns of a JSON object, None where it is left out: ``left_out`` is told the reason."""
    try:
        cells = [cell_of(row.get(column)) for column in columns]
    except TypeError:
        left_out[NESTED] += 1
        return None
    if all(_is_whole(cell) for cell in cells if isinstance(cell, str)):
        return cells
    left_out[HALF_CHARACTER] += 1
    return None


def _is_whole(text: str) -> bool:
    """Whether text has no half of a surrogate pair, which JSON can escape and UTF-8 cannot say."""
    return text.isascii() or not any("\ud800" <= each <= "\udfff" for each in text)


def _names_of_objects(path: Path) -> list[str]:
    with opened(path) as (text, _):
        first = itertools.islice(_objects(text), _ROWS_FOR_NAMES)
        names = list(dict.fromkeys(name for row in first if row is not None for name in row if _is_whole(name)))
    if not names:
        raise FileError(
            f"{path} begins as JSON and contains no object: write one object per line, or one array of objects"
        )
    return names


def _objects_of(path: Path, columns: Sequence[str], left_out: LeftOut) -> Iterator[Chunk]:
    with opened(path) as (text, encoding):
        rows = _rows_of_objects(_objects(text), columns, encoding.replaces, left_out)
        while taken := list(itertools.islice(rows, ROWS_PER_CHUNK)):
            yield {column: [row[place] for row in taken] for place, column in enumerate(columns)}


def _objects(text: TextIO) -> Iterator[dict[str, Any] | None]:
    """The objects of JSON lines, or of one JSON list of them."""
    first = next((line for line in text if line.strip("\ufeff \t\r\n")), "").lstrip("\ufeff")
    if first.lstrip().startswith("[") and (whole := _list_of(first + text.read())) is not None:
        yield from (row if isinstance(row, dict) else None for row in whole)
        return
    text.seek(0)
    yield from (object_of(line.lstrip("\ufeff")) for line in text if line.strip("\ufeff \t\r\n"))


def _list_of(whole: str) -> list[Any] | None:
    found = _json(whole)
    return found if isinstance(found, list) else None


def _rows_of_objects(
    objects: Iterable[dict[str, Any] | None], columns: Sequence[str], suspicious: bool, left_out: LeftOut
) -> Iterator[list[Cell]]:
    for row in objects:
        if row is None:
            left_out[NO_OBJECT] += 1
            continue
        cells = cells_of(row, columns, left_out)
        if cells is None:
            continue
        if suspicious and any(isinstance(cell, str) and REPLACED in cell for cell in cells):
            left_out[WRONG_ENCODING] += 1
        else:
            yield cells
