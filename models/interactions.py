"""Interactions as columns, the form in which models are trained; and the readers that make them from files and rows."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd

from schemas.errors import ExportError, ModelError
from schemas.events import EVENT_TS_MAX, EVENT_TS_MIN, EVENT_TYPES, ID_LENGTH_MAX, KIND_OF
from schemas.exports import part_lines, read_manifest

ROWS_PER_CHUNK: Final = 100_000


@dataclass(frozen=True)
class Interactions:
    """Columns of equal length ``n``, in any order.

    ``users`` int64[n] and ``items`` int64[n]: codes from 0; ``item_ids[code]`` is the item's id; users need no ids.
    ``ts_ms`` int64[n]: ms since the epoch. ``kinds`` int64[n]: places in ``schemas.events.EVENT_TYPES``.
    ``dropped``: reason → rows that the reader left out.
    """

    users: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]
    ts_ms: npt.NDArray[np.int64]
    kinds: npt.NDArray[np.int64]
    item_ids: list[str]
    dropped: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ts_ms)

    def where(self, keep: npt.NDArray[np.bool_]) -> "Interactions":
        """The rows where ``keep`` bool[n] holds; the codes stay as they are."""
        return Interactions(self.users[keep], self.items[keep], self.ts_ms[keep], self.kinds[keep], self.item_ids)


@dataclass(frozen=True)
class Columns:
    """Names of the columns in a file. ``every`` is the kind of all rows where a file has no such column;
    rows whose ``quantity`` is not above zero (returns, cancellations) are dropped."""

    user: str = "user_id"
    item: str = "item_id"
    time: str = "ts"
    kind: str = "type"
    every: str | None = None
    quantity: str | None = None


CLEAN_EVENTS: Final = Columns(user="pseudonym")
"""The columns of the ``events`` topic."""


def read(path: Path, columns: Columns) -> Interactions:
    """Read a ``.csv``, ``.parquet`` or JSON-lines file, or the folder of an export.

    Raises :class:`ModelError` that names what is missing.
    """
    if path.is_dir():
        return from_rows(map(decoded, export_lines(path, time.time_ns() // 1_000_000)), columns)
    try:
        if path.suffix == ".parquet":
            return from_frame(pd.read_parquet(path), columns)
        if path.suffix in (".csv", ".gz"):
            return from_frame(pd.read_csv(path, dtype={columns.user: str, columns.item: str}), columns)
        with path.open("rb") as lines:
            return from_rows((decoded(line) for line in lines), columns)
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error


def export_lines(folder: Path, now_ms: int) -> Iterator[bytes]:
    """The lines of an export; raises :class:`ModelError` for one that may not, or cannot, be trained on."""
    try:
        manifest = read_manifest(folder)
        if manifest.purpose != "train":
            raise ModelError(f"{folder} was exported to {manifest.purpose}: a model needs an export to train")
        if now_ms >= manifest.delete_after:
            raise ModelError(f"{folder} is past its retention: delete it with python -m jobs.export --rewrite {folder}")
        for part in manifest.parts:
            yield from part_lines(folder, part)
    except ExportError as error:
        raise ModelError(str(error)) from None


def decoded(line: bytes) -> dict[str, Any]:
    """One line of JSON; a line that is not an object is an empty row, which is counted as dropped."""
    try:
        row = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def from_rows(rows: Iterable[Mapping[str, Any]], columns: Columns = CLEAN_EVENTS) -> Interactions:
    """Columns from an iterator of rows, such as the clean events of a topic, read in chunks."""
    names = (columns.user, columns.item, columns.time, columns.kind, *filter(None, [columns.quantity]))
    rows = iter(rows)
    chunks = []
    while chunk := [[row.get(name) for name in names] for row in islice(rows, ROWS_PER_CHUNK)]:
        chunks.append(pd.DataFrame(chunk, columns=list(names)))
    if not chunks:
        raise ModelError("there are no interactions to read: the input is empty")
    return from_frame(pd.concat(chunks, ignore_index=True), columns)


def from_frame(frame: pd.DataFrame, columns: Columns) -> Interactions:
    """Columns from a table; rows that cannot be used are dropped and counted by reason."""
    frame = _with_kind(frame, columns)
    _check_columns(frame, columns)
    dropped: dict[str, int] = {}

    def drop(reason: str, bad: Callable[[pd.DataFrame], Any]) -> None:
        nonlocal frame
        keep = ~np.asarray(bad(frame), dtype=bool)
        if not keep.all():
            dropped[reason] = int((~keep).sum())
            frame = frame[keep]

    drop("no user", lambda rows: rows[columns.user].isna())
    drop("no item", lambda rows: rows[columns.item].isna())
    drop("unknown kind", lambda rows: ~rows[columns.kind].isin(EVENT_TYPES))
    if columns.quantity is not None:
        drop("quantity not above zero", lambda rows: ~(pd.to_numeric(rows[columns.quantity], errors="coerce") > 0))
    frame = frame.assign(**{columns.time: _milliseconds(frame[columns.time]), columns.item: _ids(frame[columns.item])})
    drop("no valid time", lambda rows: ~rows[columns.time].between(EVENT_TS_MIN, EVENT_TS_MAX))
    drop("item id empty or too long", lambda rows: ~rows[columns.item].str.len().between(1, ID_LENGTH_MAX))
    users, _ = pd.factorize(_ids(frame[columns.user]), sort=True)
    items, item_ids = pd.factorize(frame[columns.item], sort=True)
    kinds = frame[columns.kind].map(KIND_OF).to_numpy(np.int64)
    times = frame[columns.time].to_numpy(np.int64)
    return Interactions(users.astype(np.int64), items.astype(np.int64), times, kinds, list(map(str, item_ids)), dropped)


def _with_kind(frame: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    if columns.every is None:
        return frame
    if columns.every not in KIND_OF:
        raise ModelError(f"{columns.every!r} is not a kind of event; kinds are {', '.join(EVENT_TYPES)}")
    return frame.assign(**{columns.kind: columns.every})


def _check_columns(frame: pd.DataFrame, columns: Columns) -> None:
    wanted = {"--user": columns.user, "--item": columns.item, "--time": columns.time, "--kind": columns.kind}
    if columns.quantity is not None:
        wanted["--quantity"] = columns.quantity
    for option, name in wanted.items():
        if name not in frame.columns:
            have = ", ".join(map(str, frame.columns))
            hint = " (or --every KIND where all rows are of one kind)" if option == "--kind" else ""
            raise ModelError(f"there is no column {name!r}: name it with {option}{hint}; the columns are {have}")


def _milliseconds(times: pd.Series) -> pd.Series:
    """Times as ms since the epoch: numbers are taken to be that already, anything else is read as a date, UTC
    where it names no zone; what cannot be read becomes -1."""
    numbers = pd.to_numeric(times, errors="coerce") if times.dtype.kind not in "M" else None
    if numbers is not None and (numbers.notna().any() or not len(times)):
        return numbers.fillna(-1).astype("int64")
    dates = pd.to_datetime(times, utc=True, errors="coerce")
    return (dates - pd.Timestamp(0, tz="UTC")).floordiv(pd.Timedelta(milliseconds=1)).fillna(-1).astype("int64")


def _ids(values: pd.Series) -> pd.Series:
    """Ids as text; whole numbers that a reader made float by a missing value are written without the point."""
    if values.dtype.kind == "f" and (values % 1 == 0).all():
        values = values.astype("int64")
    return values.astype(str)
