"""Features of users as Parquet files, as Feast's offline stores read them (:mod:`udfs.features`).

Columns: `user`, the name that the export gives them; `event_timestamp`, from which on the features are those of the
row; `created`; then a column for each feature. Times are timestamps in ms, UTC.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import ExportError
from schemas.exports import PART_MARK

ROWS_AT_ONCE: Final = 10_000
USER: Final = "user"
EVENT_TIMESTAMP: Final = "event_timestamp"
CREATED: Final = "created"
_TIME: Final = pa.timestamp("ms", "UTC")
_TYPES: Final = {
    "int": pa.int64(),
    "float": pa.float64(),
    "texts": pa.list_(pa.string()),
    "ints": pa.list_(pa.int64()),
    "floats": pa.list_(pa.float64()),
}

Row = tuple[str, int, Sequence[Any]]
"""User, event time in ms, and the values of the features."""


def write_feature_rows(
    file: BinaryIO, features: Sequence[tuple[str, str]], created_ms: int, rows: Iterable[Row]
) -> int:
    """Write `rows` with the (name, kind) of `features`; returns how many. The same rows give the same bytes."""
    schema = pa.schema(
        [
            pa.field(USER, pa.string(), nullable=False),
            pa.field(EVENT_TIMESTAMP, _TIME, nullable=False),
            pa.field(CREATED, _TIME, nullable=False),
            *(pa.field(name, _TYPES[kind], nullable=False) for name, kind in features),
        ],
        {PART_MARK: b"2"},
    )
    count, left = 0, iter(rows)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while chunk := list(islice(left, ROWS_AT_ONCE)):
            users, times, values = zip(*chunk, strict=True)
            columns = [list(users), list(times), [created_ms] * len(chunk), *map(list, zip(*values, strict=True))]
            arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            count += len(chunk)
    return count


def users_in(path: Path) -> Iterator[str]:
    """The user of each row; raises :class:`ExportError`."""
    try:
        for batch in pq.ParquetFile(path).iter_batches(ROWS_AT_ONCE, columns=[USER]):
            yield from batch.column(0).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise ExportError(f"{path} cannot be read: {error}: compute the features again") from None
