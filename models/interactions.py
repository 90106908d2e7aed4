"""Interactions as columns, the form for training; and readers that create them from files and rows."""

import shlex
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd

from adapters.files.export_parts import part_events, read_manifest
from models.cells import LOST_DIGITS, Cell, DecimalMark, numbers_of, rows_with_lost_digits, texts_of
from models.csv_files import Layout
from models.decimals import DecimalEvidence
from models.files import NO_OBJECT, cell_of, cells_of, object_of, open_table
from models.row_rules import BAD_ITEM, NO_ITEM, NO_USER, UNKNOWN_KIND, RowRules, Unusable
from models.times import (
    FILE_TS_MAX,
    FILE_TS_MIN,
    TWO_READINGS,
    DateOrder,
    TimeEvidence,
    Unit,
    check_form,
    describe_order,
    describe_unit,
    has_two_readings,
    milliseconds_of,
)
from models.whole_ids import TWO_WRITINGS, IdEvidence, as_floats, pointed_rows
from schemas.errors import ExportError, FileError, ModelError
from schemas.events import EVENT_TYPES, ID_LENGTH_MAX, KIND_OF
from schemas.ids import is_id

ROWS_PER_CHUNK: Final = 100_000


NO_TIME: Final = "no valid time (write dates such as 2024-03-01T10:00:00Z, or all times in one unit since the epoch)"


@dataclass(frozen=True)
class Interactions:
    """Columns of equal length ``n``, in any order.

    ``users`` int64[n] and ``items`` int64[n]: codes from 0; ``item_ids[code]`` is the item's id; users need no ids.
    ``ts_ms`` int64[n]: ms since the epoch. ``kinds`` int64[n]: indices in ``schemas.events.EVENT_TYPES``. ``dropped``:
    reason → rows that the reader left out. ``notes``: how the file was read, for the user. ``labels``: the name of the
    column ``Columns.label``, and its values as texts[n].
    """

    users: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]
    ts_ms: npt.NDArray[np.int64]
    kinds: npt.NDArray[np.int64]
    item_ids: list[str]
    dropped: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    labels: tuple[str, npt.NDArray[np.object_]] | None = None

    def __len__(self) -> int:
        return len(self.ts_ms)

    def report_lines(self) -> list[str]:
        """Lines of text about what was read and what was dropped."""
        lines = [f"  {len(self)} interactions, {len(self.item_ids)} items", f"  {self._span()}"]
        lines += [f"  {note}" for note in self.notes]
        return lines + [f"  dropped {rows}: {reason}" for reason, rows in self.dropped.items()]

    def _span(self) -> str:
        first, last = (np.datetime64(int(ms), "ms").astype("M8[D]") for ms in (self.ts_ms.min(), self.ts_ms.max()))
        return f"from {first} to {last}"

    def where(self, keep: npt.NDArray[np.bool_]) -> "Interactions":
        """The rows where ``keep`` bool[n] is true; codes are unchanged."""
        labels = None if self.labels is None else (self.labels[0], self.labels[1][keep])
        return Interactions(
            self.users[keep], self.items[keep], self.ts_ms[keep], self.kinds[keep], self.item_ids, labels=labels
        )

    def column(self) -> tuple[str, list[str]] | None:
        """The name and the values of the column that was asked for."""
        return None if self.labels is None else (self.labels[0], self.labels[1].tolist())


@dataclass(frozen=True)
class Columns:
    """Names of the columns in a file.

    ``every`` is the kind of all rows if the file has no such column. Rows whose ``quantity`` is not above zero
    (returns, cancellations) are dropped. ``time_form`` is the format of dates, as for ``strptime``, if they are
    ambiguous. ``layout``: how a text file is separated, and the names of its columns if it has no header. ``rules``:
    which rows count, and as which kind. ``label``: a column whose values are kept as they are, for tables by segment.
    """

    user: str = "user_id"
    item: str = "item_id"
    time: str = "ts"
    kind: str = "type"
    every: str | None = None
    quantity: str | None = None
    time_form: str | None = None
    layout: Layout = field(default_factory=Layout)
    rules: RowRules = field(default_factory=RowRules)
    label: str | None = None

    def in_file(self) -> list[str]:
        """The columns that the file must have, each once."""
        kind = self.kind if self.every is None else None
        names = (self.user, self.item, self.time, kind, self.quantity, self.label)
        return list(dict.fromkeys(name for name in (*names, *self.rules.column()) if name is not None))


CLEAN_EVENTS: Final = Columns(user="pseudonym")
"""The columns of the ``events`` topic."""


def read(path: Path, columns: Columns) -> Interactions:
    """Read a CSV, Parquet or JSON-lines file (:mod:`models.files`), or the folder of an export.

    Unusable rows are dropped and counted by reason. Raises :class:`ModelError`, which names what is missing; if no row
    is usable, it shows values that were seen.
    """
    if path.is_dir():
        return from_rows(export_rows(path, time.time_ns() // 1_000_000), columns)
    try:
        check_form(columns.time_form)
        table = open_table(path, columns.layout)
        wanted = columns.in_file()
        _check_columns(table.names, columns, table.names_text())
        left_out: Counter[str] = Counter()
        ids = IdEvidence(column for column in (columns.user, columns.item) if column not in table.typed)
        marks = DecimalEvidence(set(columns.rules.column()) - table.typed, table.usual_mark)
        chunks, times = [], TimeEvidence(columns.time_form)
        for chunk in table.chunks(wanted, left_out):
            times.add(() if columns.time in table.times else chunk[columns.time])
            ids.add(chunk)
            marks.add(chunk)
            chunks.append(pd.DataFrame(chunk, dtype=object))
        unit, order = table.unit(columns.time, times), times.order(table.file, columns.time)
    except FileError as error:
        raise ModelError(str(error)) from None
    if not chunks:
        raise ModelError(f"there are no interactions to read in {path}{_left_out_text(left_out)}")
    frame = _with_clear_ids(pd.concat(chunks, ignore_index=True), ids, left_out)
    notes = describe_unit(None if columns.time in table.times else unit, columns.time)
    notes += describe_order(order, columns.time)
    form = _Written(table.file, unit, order, next(iter(marks.marks().values()), "."))
    return _from_cells(frame, columns, form, left_out, (*table.notes, *ids.notes(), *notes))


class _Written(NamedTuple):
    """How the times, dates and numbers of ``source`` are written."""

    source: str
    unit: Unit | None
    order: DateOrder | None
    mark: DecimalMark = "."


def _with_clear_ids(frame: pd.DataFrame, ids: IdEvidence, left_out: Counter[str]) -> pd.DataFrame:
    """The rows whose ids are unambiguous."""
    frame = frame.assign(**{name: pd.Series(as_floats(frame[name]), dtype=object) for name in ids.floats()})
    unclear = {row for name in ids.mixed() for row in pointed_rows(frame[name])}
    if not unclear:
        return frame
    left_out[TWO_WRITINGS] += len(unclear)
    return frame.drop(index=list(unclear)).reset_index(drop=True)


def default_user(path: Path, layout: Layout | None = None) -> str:
    """The default column of the user: that of clean events if the file has it and no ``user_id``."""
    if path.is_dir():
        return CLEAN_EVENTS.user
    try:
        names = open_table(path, layout).names
    except FileError as error:
        raise ModelError(str(error)) from None
    return user_among(names)


def user_among(names: Collection[str]) -> str:
    """The default column of the user in a table with these columns."""
    return CLEAN_EVENTS.user if CLEAN_EVENTS.user in names and Columns().user not in names else Columns().user


def export_rows(folder: Path, now_ms: int) -> Iterator[dict[str, Any]]:
    """The events of an export as rows; raises :class:`ModelError` if training on it is not allowed or not possible."""
    try:
        manifest = read_manifest(folder)
        if manifest.purpose != "train":
            raise ModelError(f"{folder} was exported to {manifest.purpose}: a model needs an export to train")
        if now_ms >= manifest.delete_after:
            command = shlex.join(["freshet", "export", "rewrite", str(folder)])
            raise ModelError(f"{folder} is past its retention: delete it with `{command}`")
        for part in manifest.parts:
            yield from map(msgspec.to_builtins, part_events(folder, part))
    except ExportError as error:
        raise ModelError(str(error)) from None


def parse_line(line: bytes) -> dict[str, Any]:
    """Parse one line of JSON; a line that is not an object is an empty row, which is counted as dropped."""
    return object_of(line.removeprefix(b"\xef\xbb\xbf")) or {}


def from_rows(rows: Iterable[Mapping[str, Any]], columns: Columns = CLEAN_EVENTS) -> Interactions:
    """Columns from an iterator of rows, such as the clean events of a topic, read in chunks."""
    names = columns.in_file()
    rows, left_out, chunks = iter(rows), Counter[str](), []
    while chunk := list(islice(rows, ROWS_PER_CHUNK)):
        taken = [cells for row in chunk if (cells := _cells(row, names, left_out)) is not None]
        chunks.append(pd.DataFrame(taken, columns=names, dtype=object))
    if not chunks:
        raise ModelError("there are no interactions to read: the input is empty")
    frame = pd.concat(chunks, ignore_index=True)
    written = _written(frame, columns, "the input")
    notes = (*describe_unit(written.unit, columns.time), *describe_order(written.order, columns.time))
    return _from_cells(frame, columns, written, left_out, notes)


def _written(frame: pd.DataFrame, columns: Columns, source: str) -> _Written:
    times = TimeEvidence(columns.time_form)
    times.add(frame[columns.time].tolist())
    try:
        return _Written(source, times.unit(source, columns.time), times.order(source, columns.time))
    except FileError as error:
        raise ModelError(str(error)) from None


def _cells(row: Mapping[str, Any], names: list[str], left_out: Counter[str]) -> list[Cell] | None:
    if row:
        return cells_of(row, names, left_out)
    left_out[NO_OBJECT] += 1
    return None


def from_frame(frame: pd.DataFrame, columns: Columns) -> Interactions:
    """Columns from a pandas DataFrame; unusable rows are dropped and counted by reason."""
    _check_columns(list(frame.columns), columns, f"the columns are {', '.join(map(str, frame.columns))}")
    cells = pd.DataFrame({name: list(map(_plain, frame[name])) for name in columns.in_file()}, dtype=object)
    return _from_cells(cells, columns, _written(cells, columns, "the table"), {})


def _from_cells(
    frame: pd.DataFrame, columns: Columns, written: _Written, left_out: Mapping[str, int], notes: tuple[str, ...] = ()
) -> Interactions:
    """Columns from a table of :data:`models.cells.Cell`, as ``written``.

    Unusable rows are dropped and counted by reason, together with those already ``left_out``. Raises
    :class:`ModelError` if none is left."""
    given, rules, order = frame, columns.rules, written.order
    cells = frame[columns.time].tolist()
    times = milliseconds_of(cells, columns.time_form, written.unit, order)
    unclear = [time is None and has_two_readings(cell, order) for time, cell in zip(times, cells, strict=True)]
    rounded = _rounded(frame[columns.user]) | _rounded(frame[columns.item])
    kinds = [columns.every] * len(frame) if columns.every is not None else rules.kinds_of(frame[columns.kind].tolist())
    frame = frame.assign(
        **{name: np.array(texts_of(frame[name].tolist()), dtype=object) for name in (columns.user, columns.item)},
        **{columns.kind: np.array(kinds, dtype=object)},
        **{columns.time: np.array([-1 if each is None else each for each in times], dtype=object)},
    )
    unusable = Unusable(left_out)

    def drop(reason: str, column: str | None, bad: Callable[[pd.DataFrame], Any]) -> None:
        nonlocal frame
        keep = ~np.asarray(bad(frame), dtype=bool)
        if not keep.all():
            seen = () if column is None else given[column][frame.index[~keep]]
            unusable.add(reason, int((~keep).sum()), seen)
            frame = frame[keep]

    drop(NO_USER, None, lambda rows: rows[columns.user].isna())
    drop(NO_ITEM, None, lambda rows: rows[columns.item].isna())
    drop(LOST_DIGITS, None, lambda rows: rounded[rows.index])
    if rules.at_least is not None:
        numbers = given[rules.at_least[0]]
        too_low = np.array(rules.are_too_low(numbers.tolist(), written.mark), bool)
        drop(rules.too_low(), rules.at_least[0], lambda rows: too_low[rows.index])
    drop(UNKNOWN_KIND, columns.kind, lambda rows: ~rows[columns.kind].isin(EVENT_TYPES))
    if columns.quantity is not None:
        drop("quantity not above zero", columns.quantity, lambda rows: ~_is_positive(rows[columns.quantity]))
    drop(TWO_READINGS, columns.time, lambda rows: np.array(unclear, bool)[rows.index])
    drop(NO_TIME, columns.time, lambda rows: ~rows[columns.time].between(FILE_TS_MIN, FILE_TS_MAX))
    drop("item id empty or too long", None, lambda rows: ~rows[columns.item].str.len().between(1, ID_LENGTH_MAX))
    unfit = {item for item in set(frame[columns.item]) if not is_id(item)}
    drop(BAD_ITEM, columns.item, lambda rows: rows[columns.item].isin(unfit))
    if frame.empty:
        raise ModelError("; ".join([unusable.message(written.source), *notes]))
    return _coded(frame, columns, unusable.rows, notes)


def _coded(frame: pd.DataFrame, columns: Columns, dropped: dict[str, int], notes: tuple[str, ...]) -> Interactions:
    """Columns from rows that are all usable."""
    users, _ = pd.factorize(frame[columns.user], sort=True)
    items, item_ids = pd.factorize(frame[columns.item], sort=True)
    kinds = frame[columns.kind].map(KIND_OF).to_numpy(np.int64)
    ts_ms = frame[columns.time].to_numpy(np.int64)
    item_names = list(map(str, item_ids))
    labels = None if columns.label is None else (columns.label, _label_texts(frame[columns.label]))
    return Interactions(
        users.astype(np.int64), items.astype(np.int64), ts_ms, kinds, item_names, dropped, notes, labels
    )


def _label_texts(cells: pd.Series) -> npt.NDArray[np.object_]:
    return np.array(["" if cell is None else str(cell) for cell in cells.tolist()], object)


def _rounded(values: pd.Series) -> npt.NDArray[np.bool_]:
    rounded = np.zeros(len(values), dtype=bool)
    rounded[rows_with_lost_digits(values.tolist())] = True
    return rounded


def _is_positive(values: pd.Series) -> npt.NDArray[np.bool_]:
    """Which numbers are above zero, which is the same in both readings of ``1,234``."""
    numbers = numbers_of(values.tolist())
    return np.array([isinstance(each, int | float) and each > 0 for each in numbers], dtype=bool)


def _plain(value: Any) -> Cell:
    """Convert a pandas or numpy value to a cell; missing values become None."""
    if isinstance(value, str) or value is None:
        return value
    if value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, pd.Timestamp):
        aware = value.tz_localize("UTC") if value.tz is None else value
        return int((aware - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(milliseconds=1))
    return cell_of(value.item() if isinstance(value, np.generic) else value)


def _left_out_text(left_out: Mapping[str, int]) -> str:
    return "".join(f"; left out {rows}: {reason}" for reason, rows in left_out.items())


def _check_columns(have: list[str], columns: Columns, have_text: str) -> None:
    if columns.every is not None and columns.every not in KIND_OF:
        raise ModelError(f"{columns.every!r} is not a kind of event; kinds are {', '.join(EVENT_TYPES)}")
    wanted = {"--user": columns.user, "--item": columns.item, "--time": columns.time, "--kind": columns.kind}
    if columns.every is not None:
        del wanted["--kind"]
    if twice := next((name for name, count in Counter(wanted.values()).items() if count > 1), None):
        options = " and ".join(option for option, name in wanted.items() if name == twice)
        raise ModelError(f"{twice!r} is the column of {options}: name another one")
    if columns.quantity is not None:
        wanted["--quantity"] = columns.quantity
    if columns.rules.at_least is not None:
        wanted["--at-least"] = columns.rules.at_least[0]
    if columns.label is not None:
        if columns.label == columns.user:
            raise ModelError(f"--by {columns.label} is the column of the user: name one that many users share")
        wanted["--by"] = columns.label
    for option, name in wanted.items():
        if name not in have:
            hint = " (or --every KIND where all rows are of one kind)" if option == "--kind" else ""
            raise ModelError(f"there is no column {name!r}: name it with {option}{hint}; {have_text}")
