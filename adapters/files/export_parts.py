"""Parts of an export as Parquet files, one row per event (:class:`schemas.exports.ExportedEvent`).

Any warehouse can read a part: only `context` (a map of strings) and `pool` (a list of strings) are nested, times are
ms since the epoch in int64, and missing fields are null. The same events give the same bytes.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import ExportError
from schemas.exports import MANIFEST, PART_MARK, PARTS, ExportedEvent, ExportManifest, ExportPart

ROWS_AT_ONCE: Final = 20_000
"""Rows of a row group, and rows that a reader buffers: some MB."""

_TYPES: Final[dict[type, Any]] = {
    msgspec.inspect.StrType: pa.string(),
    msgspec.inspect.IntType: pa.int64(),
    msgspec.inspect.FloatType: pa.float64(),
    msgspec.inspect.DictType: pa.map_(pa.string(), pa.string()),
    msgspec.inspect.ListType: pa.list_(pa.string()),
}


def _schema() -> Any:
    described = msgspec.inspect.type_info(ExportedEvent)
    assert isinstance(described, msgspec.inspect.StructType)
    return pa.schema([_column(field) for field in described.fields], {PART_MARK: b"2"})


def _column(field: msgspec.inspect.Field) -> Any:
    kinds = field.type.types if isinstance(field.type, msgspec.inspect.UnionType) else (field.type,)
    [kind] = [kind for kind in kinds if not isinstance(kind, msgspec.inspect.NoneType)]
    return pa.field(field.encode_name, _TYPES[type(kind)], nullable=len(kinds) > 1)


SCHEMA: Final = _schema()
_CONTEXT: Final = "context"


class PartRows:
    """Writes the rows of one part into `file`, a row group at a time."""

    def __init__(self, file: BinaryIO) -> None:
        self._writer = pq.ParquetWriter(file, SCHEMA, compression="zstd")
        self._held: list[Any] = []

    def write(self, event: ExportedEvent) -> None:
        """Append a row."""
        self._held.append(msgspec.structs.asdict(event))
        if len(self._held) >= ROWS_AT_ONCE:
            self._flush()

    def close(self) -> None:
        """Write the buffered rows and the end of the file."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._held:
            self._writer.write_table(pa.Table.from_pylist(self._held, SCHEMA))
            self._held = []


def read_manifest(folder: Path) -> ExportManifest:
    """The manifest of the export in `folder`; raises :class:`ExportError`."""
    try:
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=ExportManifest)
    except OSError as error:
        raise ExportError(f"{folder} is not an export: {MANIFEST} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ExportError(
            f"{folder / MANIFEST} is not the manifest of an export of this release: delete the export and write it anew"
        ) from None


def part_events(folder: Path, part: ExportPart) -> Iterator[ExportedEvent]:
    """Stream the events of `part`; raises :class:`ExportError` if its bytes differ from the manifest's hash."""
    path = folder / part.name
    if Path(part.name).name != part.name or not Path(part.name).match(PARTS):
        raise ExportError(f"{folder / MANIFEST} names a part that no export has: the folder cannot be trusted")
    try:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != part.sha256:
                raise ExportError(f"{path} is not what its manifest says: delete the export and make a new one")
            for batch in pq.ParquetFile(file).iter_batches(ROWS_AT_ONCE):
                for row in batch.to_pylist():
                    yield _event(row)
    except (OSError, pa.ArrowException, msgspec.ValidationError) as error:
        raise ExportError(f"{path} cannot be read: {error}: delete the export and make a new one") from None


def _event(row: dict[str, Any]) -> ExportedEvent:
    if row[_CONTEXT] is not None:
        row[_CONTEXT] = dict(row[_CONTEXT])
    return msgspec.convert(row, ExportedEvent)
