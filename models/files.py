"""Reads user-supplied tables (separated text, Parquet, JSON lines), for replay and training alike.

The format is detected by content, not by name: ``SHOP.CSV``, ``shop`` and ``shop.csv.gz`` all work. Unreadable rows are
left out and counted by reason; nothing is dropped silently.
"""

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

import msgspec

from models.cells import ROWS_PER_CHUNK, Cell, Chunk, DecimalMark
from models.csv_files import WRONG_ENCODING, Layout, chunks_of, header_of
from models.decimals import DecimalEvidence
from models.parquet_files import MARK, batches, schema_of
from models.text_files import REPLACED, WINDOWS, open_text, read_beginning
from models.times import MILLISECONDS, DateOrder, TimeEvidence, Unit
from models.whole_ids import IdEvidence
from schemas.errors import FileError

NO_OBJECT: Final = "not a JSON object"
NESTED: Final = "a list or an object where a value should be"
HALF_CHARACTER: Final = "half of a character (a lone surrogate)"

_BRACKETS: Final = re.compile(r"\[[^\[\]{}\"]+\]\s*(?:[,;\t|]|$)")
_HEAD_CHARACTERS: Final = 1 << 16
ROWS_FOR_NAMES: Final = 1_000

LeftOut = Counter[str]


@dataclass(frozen=True)
class Table:
    """A file that can be read any number of times.

    ``file``: its name. ``names``: its columns; for JSON, those of the first thousand rows. ``rows``: their number, if
    known without reading them. ``usual_mark``: the decimal mark if the numbers prove none. ``notes``: what the user
    should know about how the file is read. ``has_names``: whether the file itself names its columns.
    """

    file: str
    names: list[str]
    _read: Callable[[Sequence[str], LeftOut], Iterator[Chunk]]
    rows: int | None = None
    usual_mark: DecimalMark = "."
    notes: tuple[str, ...] = ()
    has_names: bool = True
    typed: frozenset[str] = frozenset()
    """Columns whose numbers have a type in the file, so that their notation need not be detected."""
    times: frozenset[str] = frozenset()
    """Columns that the file's types mark as times: their cells are ms since the epoch."""

    def names_text(self) -> str:
        """The names of the columns, for an error; without a header, how to name them."""
        there = ", ".join(self.names)
        if self.has_names:
            return f"the columns are {there}"
        return (
            f"{self.file} has no header, and its columns are {there}: use these, or name them with "
            "--column-names user_id,item_id,rating,ts"
        )

    def chunks(self, columns: Iterable[str], left_out: LeftOut) -> Iterator[Chunk]:
        """The columns' values in file order, some thousand rows at a time; all lists of a chunk have the same length.

        Counts unreadable rows in ``left_out``, by reason. Raises :class:`FileError`.
        """
        wanted = list(dict.fromkeys(columns))
        for column in wanted:
            if (count := self.names.count(column)) > 1:
                raise FileError(f"{self.file} has {count} columns that are called {column}: rename all but one")
        return self._read(wanted, left_out)

    def evidence(
        self, numbers: Iterable[str], ids: Iterable[str], time: str, form: str | None
    ) -> tuple[DecimalEvidence, IdEvidence, Unit | None, DateOrder | None]:
        """Detect, from all rows of the file, how numbers, ids and times are written. Raises :class:`FileError`.

        Returns the notation of ``numbers`` and ``ids``, the unit of numeric values of ``time`` (those not in ``form``),
        and the order of its dates.
        """
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
        """Detect how the ids of some columns are written, from all rows of the file. Raises :class:`FileError`."""
        named = [column for column in columns if column not in self.typed]
        written = IdEvidence(named)
        for chunk in self.chunks(named, Counter()) if named else ():
            written.add(chunk)
        return written

    def unit(self, time: str, evidence: TimeEvidence) -> Unit | None:
        """The unit of a time column: from the file's type, else by proof. Raises :class:`FileError`."""
        return MILLISECONDS if time in self.times else evidence.unit(self.file, time)


def open_table(path: Path, layout: Layout | None = None) -> Table:
    """Open the table in a file; raises :class:`FileError`, which says what to change."""
    layout = layout or Layout()
    head = read_beginning(path)
    if head.startswith(MARK):
        _only_for_text(path, layout)
        schema = schema_of(path)
        return Table(
            path.name,
            schema.names,
            lambda columns, left_out: batches(path, columns, left_out),
            schema.rows,
            typed=schema.numbers,
            times=schema.times,
        )
    with open_text(path) as (text, encoding):
        notes = [f"{path.name} is not UTF-8: read as Windows-1252"] if encoding.name == WINDOWS else []
        shown = text.read(_HEAD_CHARACTERS)
    if _is_json(shown.lstrip("\ufeff \t\r\n")):
        _only_for_text(path, layout)
        names = _names_of_objects(path)
        return Table(path.name, names, lambda columns, left_out: _objects_of(path, columns, left_out), notes=(*notes,))
    header = header_of(path, shown, layout)
    return Table(
        path.name,
        header.names,
        lambda columns, left_out: chunks_of(path, header, columns, left_out),
        # Excel uses semicolons if the comma is the decimal mark.
        usual_mark="," if header.separator == ";" else ".",
        notes=(*notes, *header.notes(path.name, layout)),
        has_names=header.is_in_file,
    )


def _only_for_text(path: Path, layout: Layout) -> None:
    if layout != Layout():
        raise FileError(f"{path.name} names its columns itself: leave out --separator and --column-names")


def _is_json(shown: str) -> bool:
    """Whether the text begins like JSON; ``[user],[item]`` is a CSV header."""
    if not shown.startswith("["):
        return shown.startswith("{")
    first = shown.splitlines()[0]
    return _BRACKETS.match(first) is None or _json(first) is not None


# -- JSON


def object_of(line: str | bytes) -> dict[str, Any] | None:
    """Parse one line of JSON; None if it is not an object."""
    row = _json(line)
    return row if isinstance(row, dict) else None


def _json(text: str | bytes) -> Any:
    """Parse JSON; None if it is invalid. Accepts NaN, which Python and pandas write although it is not JSON."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        pass
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def cell_of(value: Any) -> Cell:
    """Convert a JSON value; raises :class:`TypeError` for a list or an object."""
    if value is None or isinstance(value, str | float):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return value
    raise TypeError


def cells_of(row: Mapping[str, Any], columns: Iterable[str], left_out: LeftOut) -> list[Cell] | None:
    """The columns of a JSON object; None if it is left out, with the reason counted in ``left_out``."""
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
    """Whether text has no lone surrogates, which JSON can escape and UTF-8 cannot encode."""
    return text.isascii() or not any("\ud800" <= each <= "\udfff" for each in text)


def _names_of_objects(path: Path) -> list[str]:
    with open_text(path) as (text, _):
        first = itertools.islice(_objects(text), ROWS_FOR_NAMES)
        names = list(dict.fromkeys(name for row in first if row is not None for name in row if _is_whole(name)))
    if not names:
        raise FileError(
            f"{path} begins as JSON and contains no object: write one object per line, or one array of objects"
        )
    return names


def _objects_of(path: Path, columns: Sequence[str], left_out: LeftOut) -> Iterator[Chunk]:
    with open_text(path) as (text, encoding):
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
