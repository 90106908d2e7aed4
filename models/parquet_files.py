"""Parquet as cells: UUIDs as text, times of any unit as ms, bytes decoded as text."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from models.cells import ROWS_PER_CHUNK, Chunk
from schemas.errors import FileError
from schemas.exports import PART_MARK

MARK: Final = b"PAR1"
NO_TEXT: Final = "bytes that are no text"


class Schema(NamedTuple):
    """Column names, the number of rows, and the columns whose type is numeric, or a time."""

    names: list[str]
    rows: int
    numbers: frozenset[str]
    times: frozenset[str]


def schema_of(path: Path) -> Schema:
    """Read the file's schema; raises :class:`FileError`."""
    try:
        with pa.parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            if PART_MARK in (schema.metadata or {}):
                raise FileError(f"{path} is a part of an export: name the folder, whose manifest says what it is for")
            numbers = frozenset(column.name for column in schema if _is_number(column.type))
            times = frozenset(column.name for column in schema if _is_time(column.type))
            return Schema(list(schema.names), int(file.metadata.num_rows), numbers, times)
    except (OSError, pa.ArrowException) as error:
        raise FileError(f"{path} cannot be read: {error}") from None


def batches(path: Path, columns: Sequence[str], left_out: Counter[str]) -> Iterator[Chunk]:
    """The columns, some thousand rows at a time; rows whose bytes are not text are counted in ``left_out``.

    Raises :class:`FileError`, also for a column that does not hold single values.
    """
    try:
        with pa.parquet.ParquetFile(path) as file:
            uuids = _uuid_columns(file)
            for batch in file.iter_batches(ROWS_PER_CHUNK, columns=list(columns)):
                read = {name: _cells(path, name, batch.column(name), name in uuids) for name in columns}
                has_bytes = any(_is_bytes(batch.column(name).type) for name in columns)
                yield _without_bytes(read, left_out) if has_bytes else read
    except (OSError, pa.ArrowException) as error:
        raise FileError(f"{path} cannot be read: {error}") from None


def _uuid_columns(file: Any) -> set[str]:
    columns = (file.schema.column(place) for place in range(len(file.schema)))
    return {column.path for column in columns if column.logical_type.type == "UUID"}


def _without_bytes(chunk: dict[str, list[Any]], left_out: Counter[str]) -> Chunk:
    """The rows whose bytes are all text."""
    bad = {row for cells in chunk.values() for row, cell in enumerate(cells) if isinstance(cell, bytes)}
    if not bad:
        return chunk
    left_out[NO_TEXT] += len(bad)
    return {name: [cell for row, cell in enumerate(cells) if row not in bad] for name, cells in chunk.items()}


def _cells(path: Path, name: str, values: Any, is_uuid: bool) -> list[Any]:
    """A column as cells; bytes that are not text stay bytes."""
    if isinstance(values.type, pa.ExtensionType):
        values = values.storage
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = values.type
    if pa.types.is_nested(kind) or pa.types.is_duration(kind) or pa.types.is_time(kind) or pa.types.is_interval(kind):
        raise FileError(f"column {name} of {path.name} holds {kind}: name a column of single values or times")
    if is_uuid:
        return [None if value is None else str(UUID(bytes=value)) for value in values.to_pylist()]
    if _is_time(kind):
        return _listed(_ms(values))
    if pa.types.is_float32(kind) or pa.types.is_float16(kind):
        # Keep the printed form: 2.55, not 2.5499999523162842.
        return _listed(pc.cast(pc.cast(values, pa.string()), pa.float64()))
    if _is_bytes(kind):
        return [_decoded(value) for value in values.to_pylist()]
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _listed(values)
    return _listed(pc.cast(values, pa.string()))


def _listed(values: Any) -> list[Any]:
    """`to_pylist` through numpy, which is several times faster."""
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        return list(values.to_numpy(zero_copy_only=False).tolist())
    if values.null_count == 0:
        return list(values.to_numpy(zero_copy_only=False).tolist())
    present = values.is_valid().to_numpy(zero_copy_only=False).tolist()
    filled = pc.fill_null(values, 0).to_numpy(zero_copy_only=False).tolist()
    return [value if is_present else None for value, is_present in zip(filled, present, strict=True)]


def _is_number(kind: Any) -> bool:
    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def _is_time(kind: Any) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def _is_bytes(kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _ms(values: Any) -> Any:
    """Ms since the epoch, rounded down, as the job and pandas do."""
    if pa.types.is_date(values.type):
        values = pc.cast(values, pa.timestamp("ms"))
    return pc.cast(pc.floor_temporal(values, unit="millisecond"), pa.timestamp("ms"), safe=False).cast(pa.int64())


def _decoded(value: bytes | None) -> str | bytes | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return value
