"""Rows of somebody's own CSV or Parquet file as the payloads that a shop would send, column by column.

Every row is sent, dirty ones too, as they are: a negative quantity stays negative, a missing user is left out, a time
that cannot be read is sent as the text that stood there. It is the job that rejects them, each with a reason.
"""

from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from schemas.errors import FreshetError
from schemas.events import EVENT_TYPES

ROWS_PER_CHUNK: Final = 20_000
_NULLS: Final = ["", "NA", "NaN", "nan", "NULL", "null", "None"]


class MappingError(FreshetError):
    """The file cannot be read with this mapping; the text says what to change."""


class Mapping(msgspec.Struct, frozen=True):
    """Which column of the file is which field. None: the file has no such column and the field is left out.

    `type_constant` is the kind of all rows where no column says it, `currency_constant` likewise. `user_prefix` is put
    before every user. Event ids are ``<event_id_prefix>:<row>``, rows counted from 0; the prefix is the file's name
    where none is given. `time_format` is as for `strptime`, for dates that can be read in two ways. `name` is the
    item's name, for people to read; it is not sent.
    """

    user: str = "user_id"
    item: str = "item_id"
    time: str = "ts"
    type: str | None = None
    type_constant: str | None = None
    session: str | None = None
    quantity: str | None = None
    value: str | None = None
    currency: str | None = None
    currency_constant: str | None = None
    country: str | None = None
    surface: str | None = None
    query: str | None = None
    name: str | None = None
    time_format: str | None = None
    user_prefix: str = ""
    event_id_prefix: str | None = None

    def columns(self) -> list[str]:
        """The columns that the file must have."""
        fields = (self.user, self.item, self.time, self.type, self.session, self.quantity, self.value)
        others = (self.currency, self.country, self.surface, self.query)
        return [column for column in (*fields, *others) if column is not None]


ONLINE_RETAIL: Final = Mapping(
    user="customer_id",
    item="stock_code",
    time="invoice_ts",
    type_constant="purchase",
    session="invoice",
    quantity="quantity",
    value="unit_price",
    currency_constant="GBP",
    country="country",
    name="description",
    user_prefix="customer-",
)
PRESETS: Final[dict[str, Mapping]] = {"online-retail": ONLINE_RETAIL}


class _Row(msgspec.Struct, omit_defaults=True, gc=False):
    """An interaction that nobody has checked: the fields of :class:`schemas.events.Interaction`, all optional."""

    event_id: str
    type: Any = None
    ts: Any = None
    user_id: Any = None
    session_id: Any = None
    item_id: Any = None
    value: Any = None
    currency: Any = None
    quantity: Any = None
    surface: Any = None
    query: Any = None
    context: Any = None


def interactions_of(path: Path, mapping: Mapping) -> Iterator[tuple[bytes | None, bytes]]:
    """(key, payload) of every row in the order of the file; the key is None where there is no user."""
    check(path, mapping)
    prefix = mapping.event_id_prefix or path.stem
    encode = msgspec.json.Encoder().encode
    first = 0
    for chunk in _chunks(path, mapping.columns()):
        users = _texts(chunk, mapping.user, mapping.user_prefix)
        keys = [None if user is None else user.encode() for user in users]
        rows = map(_Row, _event_ids(prefix, first, chunk.num_rows), *_fields(chunk, mapping, users))
        yield from zip(keys, map(encode, rows), strict=True)
        first += chunk.num_rows


def users_of(path: Path, mapping: Mapping) -> list[str]:
    """The users of the file, each once, in the order in which they appear."""
    return [user for user in dict.fromkeys(users_of_rows(path, mapping)) if user is not None]


def users_of_rows(path: Path, mapping: Mapping) -> Iterator[str | None]:
    """The user of every row, None where it has none."""
    check(path, mapping)
    for chunk in _chunks(path, [mapping.user]):
        yield from _texts(chunk, mapping.user, mapping.user_prefix)


def names_of(path: Path, mapping: Mapping) -> dict[str, str]:
    """Item id → the name that stands beside it last; empty where the mapping names no column for it."""
    names: dict[str, str] = {}
    if mapping.name is None:
        return names
    check(path, mapping, mapping.name)
    for chunk in _chunks(path, [mapping.item, mapping.name]):
        pairs = zip(_texts(chunk, mapping.item), _texts(chunk, mapping.name), strict=True)
        names.update((item, name) for item, name in pairs if item and name)
    return names


def count_rows(path: Path) -> int | None:
    """How many rows the file has, where that is known without reading all of it."""
    return pa.parquet.ParquetFile(path).metadata.num_rows if path.suffix == ".parquet" else None


def check(path: Path, mapping: Mapping, *more: str) -> None:
    """Raise :class:`MappingError` where the file or the mapping cannot be used."""
    if mapping.type is None and mapping.type_constant is None:
        raise MappingError("say what kind the rows are: --type COLUMN, or --type-constant purchase")
    if mapping.type_constant is not None and mapping.type_constant not in EVENT_TYPES:
        raise MappingError(f"--type-constant {mapping.type_constant} is not a kind; kinds are {', '.join(EVENT_TYPES)}")
    have = _header(path)
    missing = [column for column in (*mapping.columns(), *more) if column not in have]
    if missing:
        raise MappingError(f"{path.name} has no column {', '.join(missing)}; its columns are {', '.join(have)}")


def _header(path: Path) -> list[str]:
    try:
        if path.suffix == ".parquet":
            return list(pa.parquet.ParquetFile(path).schema_arrow.names)
        with pa.csv.open_csv(path) as reader:
            return list(reader.schema.names)
    except (OSError, pa.ArrowInvalid) as error:
        raise MappingError(f"{path} cannot be read: {error}") from None


def _chunks(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    if path.suffix == ".parquet":
        with pa.parquet.ParquetFile(path) as file:
            yield from file.iter_batches(ROWS_PER_CHUNK, columns=columns)
        return
    options = pa.csv.ConvertOptions(
        include_columns=columns,
        column_types=dict.fromkeys(columns, pa.string()),
        null_values=_NULLS,
        strings_can_be_null=True,
    )
    with pa.csv.open_csv(path, convert_options=options) as reader:
        yield from reader


def _fields(chunk: pa.RecordBatch, mapping: Mapping, users: list[str | None]) -> list[Any]:
    """The columns of :class:`_Row` after the event id, each an iterable of one value a row."""
    kinds = repeat(mapping.type_constant) if mapping.type is None else _texts(chunk, mapping.type)
    currency = _texts(chunk, mapping.currency) if mapping.currency else repeat(mapping.currency_constant)
    countries: Any = repeat(None)
    if mapping.country:
        countries = [None if name is None else {"country": name} for name in _texts(chunk, mapping.country)]
    return [
        kinds,
        _times(chunk.column(mapping.time), mapping.time_format),
        users,
        _optional(chunk, mapping.session),
        _texts(chunk, mapping.item),
        _numbers(chunk, mapping.value, pa.float64()),
        currency,
        _numbers(chunk, mapping.quantity, pa.int64()),
        _optional(chunk, mapping.surface),
        _optional(chunk, mapping.query),
        countries,
    ]


def _event_ids(prefix: str, first: int, count: int) -> list[str]:
    return [f"{prefix}:{row}" for row in range(first, first + count)]


def _optional(chunk: pa.RecordBatch, column: str | None) -> Any:
    return repeat(None) if column is None else _texts(chunk, column)


def _texts(chunk: pa.RecordBatch, column: str, prefix: str = "") -> list[str | None]:
    """A column as texts. Whole numbers that a writer made float by a missing value are written without the point."""
    values = chunk.column(column)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_floating(values.type):
        values = _cast(pc.if_else(pc.is_nan(values), None, values), pa.int64()) or values
    texts = _listed(pc.cast(values, pa.string()))
    return [None if text is None else prefix + text for text in texts] if prefix else texts


def _times(values: pa.Array, time_format: str | None) -> list[Any]:
    """Ms since the epoch: numbers are that already, texts are read as dates, UTC where they name no zone."""
    if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        return _listed(pc.cast(pc.cast(values, pa.timestamp("ms"), safe=False), pa.int64()))
    numbers = _cast(values, pa.int64())
    if numbers is not None:
        return _listed(numbers)
    texts = _listed(pc.cast(values, pa.string()))
    dates = pd.to_datetime(pd.Series(texts, dtype=object), utc=True, errors="coerce", format=time_format)
    ms = dates.astype("datetime64[ms, UTC]").astype("int64").tolist()
    known = dates.notna().tolist()
    return [time if is_known else _number(text) for time, is_known, text in zip(ms, known, texts, strict=True)]


def _numbers(chunk: pa.RecordBatch, column: str | None, kind: pa.DataType) -> Any:
    """Numbers as they are; texts that are none stay texts. A float32 is written as it was printed: 2.55, not 2.5499."""
    if column is None:
        return repeat(None)
    values = chunk.column(column)
    if pa.types.is_float32(values.type):
        values = pc.cast(values, pa.string())
    numbers = _cast(values, kind)
    if numbers is not None:
        return _listed(numbers)
    return [_number(text) for text in _listed(values)]


def _number(text: Any) -> Any:
    """
    >>> _number("3"), _number("2.5"), _number("a few")
    (3, 2.5, 'a few')
    """
    for kind in (int, float):
        try:
            number = kind(text)
        except (TypeError, ValueError):
            continue
        return number if np.isfinite(number) else None
    return text


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array | None:
    """The values cast, NaN as missing, or None where they cannot be."""
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_finite(values), values, None)
    try:
        cast = pc.cast(values, kind)
    except pa.ArrowInvalid:
        return None
    return pc.if_else(pc.is_finite(cast), cast, None) if pa.types.is_floating(kind) else cast


def _listed(values: pa.Array) -> list[Any]:
    """`to_pylist` by way of numpy, which is several times faster."""
    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        if values.null_count == 0:
            return list(values.to_numpy().tolist())
        present = values.is_valid().to_numpy(zero_copy_only=False).tolist()
        filled = pc.fill_null(values, 0).to_numpy().tolist()
        return [value if is_present else None for value, is_present in zip(filled, present, strict=True)]
    return list(values.to_numpy(zero_copy_only=False).tolist())
