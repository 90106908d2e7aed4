"""Files as Excel, Windows and exporters write them: all values are read, and unreadable rows are counted."""

import calendar
import csv
import doctest
import gzip
import io
import json
import os
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from deploy.demo.table import (
    UNCLEAR_NUMBER,
    UNREAD_TIME,
    Mapping,
    MappingError,
    interactions_of,
    names_of,
    reading_of,
    users_of,
)
from freshet.cli.main import run
from models import cells, files, text_files, times
from models.cells import LOST_DIGITS, has_lost_digits, number_of, numbers_of, rows_with_lost_digits
from models.csv_files import WRONG_ENCODING, WRONG_QUOTES, WRONG_WIDTH
from models.files import HALF_CHARACTER, NESTED, NO_OBJECT, open_table
from models.interactions import NO_TIME, Columns, from_frame, from_rows, read
from models.parquet_files import NO_TEXT
from models.times import TWO_READINGS, milliseconds_of
from models.whole_ids import TWO_WRITINGS
from schemas.errors import FileError, ModelError
from tests.support.examples import examples

LATIN = st.text('àâäçéèêëîïôöûùüÿñabc ;"0', min_size=1, max_size=12)
"""Of which no two in Windows-1252 are a letter in UTF-8."""
ANY = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\ufeff"), min_size=1, max_size=12)
SHOP = Mapping(type_constant="click")
VIEWS = Columns(every="view")
MARCH = 1_709_251_200_000
quick = settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def rows_of(path: Path, *columns: str) -> tuple[list[tuple[Any, ...]], Counter[str]]:
    table, left_out = open_table(path), Counter[str]()
    wanted = columns or tuple(table.names)
    return [row for chunk in table.chunks(wanted, left_out) for row in zip(*chunk.values(), strict=True)], left_out


def written(rows: list[list[str]], delimiter: str = ",", end: str = "\r\n") -> str:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator=end).writerows([["user_id", "name, or so", "ts"], *rows])
    return text.getvalue()


def table_of(texts: st.SearchStrategy[str]) -> st.SearchStrategy[list[list[str]]]:
    some = texts.filter(lambda text: text not in cells.MISSING)
    return st.lists(st.lists(some, min_size=3, max_size=3), min_size=1, max_size=6)


@quick
@given(
    rows=table_of(ANY),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    delimiter=st.sampled_from(",;\t|"),
    end=st.sampled_from(["\n", "\r\n"]),
    packed=st.booleans(),
)
@example([["a", 'two\r\nlines, "quoted"', "é"]], "utf-16", ";", "\r\n", True)
def test_csv_is_read_as_it_was_written(
    tmp_path: Path, rows: list[list[str]], encoding: str, delimiter: str, end: str, packed: bool
) -> None:
    path, content = tmp_path / "SHOP.CSV", written(rows, delimiter, end).encode(encoding)
    path.write_bytes(gzip.compress(content) if packed else content)
    read_back, left_out = rows_of(path)
    assert [list(row) for row in read_back] == rows
    assert not left_out


@quick
@given(rows=table_of(LATIN))
@example([["josé", "crème brûlée", "€"]])
def test_windows_1252_csv_is_read_correctly_and_reported(tmp_path: Path, rows: list[list[str]]) -> None:
    path, content = tmp_path / "shop.csv", written([*rows, ["ü", "ü", "ü"]], ";").encode("cp1252")
    path.write_bytes(content)
    assert [list(row) for row in rows_of(path)[0]] == [*rows, ["ü", "ü", "ü"]]
    assert "Windows-1252" in str(open_table(path).notes)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_byte_order_mark_is_detected_by_its_zeros(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "shop.csv"
    path.write_bytes(written([["josé", "x", "1"]]).encode(encoding))
    assert rows_of(path)[0] == [("josé", "x", "1")]


def test_invalid_utf_8_bytes_drop_their_rows_only(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    good = "".join(f"é{row},x,1\n" for row in range(5)).encode()
    path.write_bytes(b"user_id,item_id,ts\n" + good + b"jos\xe9,x,1\nada,x,1\n")
    found, left_out = rows_of(path)
    assert [row[0] for row in found] == [*(f"é{row}" for row in range(5)), "ada"]
    assert left_out == {WRONG_ENCODING: 1}


def test_bytes_undefined_in_windows_1252_drop_their_rows_only(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    path.write_bytes(b"user_id,item_id,ts\njos\xe9,x,1\na\x81,x,1\na\x8d,x,1\nada,x,1\n")
    found, left_out = rows_of(path, "user_id")
    assert (found, left_out) == ([("jos\u00e9",), ("ada",)], {WRONG_ENCODING: 2})


@quick
@given(widths=st.lists(st.integers(1, 6), min_size=1, max_size=40))
def test_every_row_of_csv_is_taken_or_counted(tmp_path: Path, widths: list[int]) -> None:
    path = tmp_path / "shop.csv"
    path.write_text("user_id,item_id,ts\n" + "".join(",".join(["x"] * width) + "\n" for width in widths))
    found, left_out = rows_of(path)
    assert len(found) == widths.count(3)
    assert left_out[WRONG_WIDTH] == len(widths) - len(found)


def test_empty_fields_beyond_the_header_are_no_fields(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    path.write_text("user_id,item_id,ts\na,x,1,,\nb,y,2\nc,z,3,,more\n")
    assert rows_of(path) == ([("a", "x", "1"), ("b", "y", "2")], {WRONG_WIDTH: 1})


def test_unclosed_quotation_mark_drops_the_lines_it_covers(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    path.write_text('user_id,item_id,ts\na,"12 inch,1\nb,tea,2\nc,"cup",3\nd,pot,4\n')
    found, left_out = rows_of(path)
    assert found == [("d", "pot", "4")]
    assert left_out == {WRONG_QUOTES: 3}


def test_line_breaks_in_quoted_descriptions_of_a_large_file_are_part_of_them(tmp_path: Path) -> None:
    path, rows = (
        tmp_path / "shop.csv",
        [[f"u{row}", f"first line\nsecond line of {row} " + "x" * 200] for row in range(25_000)],
    )
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["user_id", "description"], *rows])
    assert path.stat().st_size > 5 << 20
    assert [list(row) for row in rows_of(path)[0]] == rows


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("hint", "delimiter"),
    [
        ("sep=;", ";"),
        ('"sep=;"', ";"),
        ('"SEP=,"', ","),
        ("sep=,", ","),
        ("sep=\t", "\t"),
        (r"sep=\t", "\t"),
        ('"sep=\t"', "\t"),
        ("sep=;;;", ";"),
        ('"sep=,",,', ","),
        ("sep=^", "^"),
        ("sep=", ";"),
        ("sep=,", ";"),
    ],
)
def test_excel_delimiter_hint_is_not_a_header(tmp_path: Path, hint: str, delimiter: str, end: str) -> None:
    path = tmp_path / "shop.csv"
    with path.open("w", newline="") as file:
        file.write(f"\ufeff{hint}{end}")
        csv.writer(file, delimiter=delimiter, lineterminator=end).writerows(
            [["user_id", "item_id", "ts"], ["a", "x", "1"]]
        )
    assert rows_of(path) == ([("a", "x", "1")], {})


def test_excel_delimiter_hint_resolves_an_ambiguous_header(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    path.write_text('"sep=;"\nuser_id;name, or so, of it;ts\na;x,y;1\n')
    assert rows_of(path) == ([("a", "x,y", "1")], {})
    path.write_text("sepal,petal\n1,2\n")
    assert open_table(path).names == ["sepal", "petal"]


@quick
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {}, optional={name: st.none() | ANY | st.integers(-(2**63), 2**64) | st.booleans() for name in "abc"}
        ),
        min_size=1,
        max_size=8,
    ).filter(lambda rows: any(rows)),
    as_list=st.booleans(),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_json_is_read_as_it_was_written(
    tmp_path: Path, rows: list[dict[str, Any]], as_list: bool, encoding: str
) -> None:
    path = tmp_path / "shop.json"
    text = json.dumps(rows, indent=1) if as_list else "\n".join(map(json.dumps, rows))
    path.write_bytes(text.encode(encoding))
    names = sorted({name for row in rows for name in row})
    expected = [tuple(str(v).lower() if isinstance(v := row.get(n), bool) else v for n in names) for row in rows]
    assert rows_of(path, *names) == (expected, {})


def test_nan_written_by_python_is_a_missing_value(tmp_path: Path) -> None:
    path = tmp_path / "shop.jsonl"
    path.write_text("".join(f'{{"user_id":{user},"item_id":"x","ts":{MARCH}}}\n' for user in ("NaN", "7")))
    assert read(path, VIEWS).dropped == {"no user": 1}
    assert [key for key, _ in interactions_of(path, SHOP)] == [None, b"7"]


def test_pipes_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(FileError, match="is not a regular file"):
            open_table(path)


def test_json_lines_that_are_not_rows_are_counted_by_reason(tmp_path: Path) -> None:
    path = tmp_path / "shop.jsonl"
    path.write_text('{"a": 1}\n[1]\n\nnonsense\n{"a": [1, 2]}\n{"a": {"b": 1}}\n{"a": "x"}\n')
    assert rows_of(path, "a") == ([(1,), ("x",)], {NO_OBJECT: 2, NESTED: 2})


PARQUET: dict[str, tuple[Any, list[Any]]] = {
    "binary": (pa.array(["é".encode(), None], pa.binary()), ["é", None]),
    "dictionary": (pa.array(["x", None]).dictionary_encode(), ["x", None]),
    "large_string": (pa.array(["x", None], pa.large_string()), ["x", None]),
    "int8": (pa.array([7, None], pa.int8()), [7, None]),
    "uint64": (pa.array([2**63, None], pa.uint64()), [2**63, None]),
    "float32": (pa.array([2.55, None], pa.float32()), [2.55, None]),
    "decimal": (pa.array(["2.50", None]).cast(pa.decimal128(9, 2)), ["2.50", None]),
    "bool": (pa.array([True, None]), ["true", None]),
    "date": (pa.array([datetime(2024, 3, 1).date(), None], pa.date32()), [MARCH, None]),
    "naive": (pa.array([datetime(2024, 3, 1), None], pa.timestamp("ns")), [MARCH, None]),
    "zoned": (pa.array([datetime(2024, 3, 1, tzinfo=UTC), None], pa.timestamp("s", "Asia/Tokyo")), [MARCH, None]),
    "before 1970": (pa.array([-1, None], pa.int64()).cast(pa.timestamp("us")), [-1, None]),
    "nothing": (pa.nulls(2), [None, None]),
}


@pytest.mark.parametrize(("values", "expected"), PARQUET.values(), ids=PARQUET)
def test_parquet_of_any_type_is_read(tmp_path: Path, values: Any, expected: list[Any]) -> None:
    pq.write_table(pa.table({"a": values, "unused list": pa.array([[1], None])}), tmp_path / "x.PARQUET")
    assert rows_of(tmp_path / "x.PARQUET", "a") == ([(value,) for value in expected], {})


def call_uuid(path: Path, column: str) -> None:
    """Give a column of 16 bytes the logical type UUID (14 of the union that is field 10 of its SchemaElement), as
    Spark, DuckDB and Arrow from release 18 on write it."""
    content, name = path.read_bytes(), bytes([0x18, len(column)]) + column.encode()
    size = int.from_bytes(content[-8:-4], "little")
    footer = content[-8 - size : -8]
    assert footer.count(name + b"\0") == 1
    footer = footer.replace(name + b"\0", name + b"\x6c\xec\0\0" + b"\0")
    path.write_bytes(content[: -8 - size] + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    assert pq.ParquetFile(path).schema.column(0).logical_type.type == "UUID"


def test_uuid_columns_work_as_users_next_to_nested_unused_columns(tmp_path: Path) -> None:
    users, path = [uuid.uuid4() for _ in range(3)], tmp_path / "shop.parquet"
    columns = {"item_id": ["x", "y", "x"], "ts": [MARCH] * 3, "tags": [["a"], [], None], "more": [{"k": 1}] * 3}
    ids = pa.array([user.bytes for user in users], pa.binary(16))
    pq.write_table(pa.table({"user_id": ids, **columns}), path, store_schema=False)
    call_uuid(path, "user_id")
    assert [key for key, _ in interactions_of(path, SHOP)] == [str(user).encode() for user in users]
    assert (len(read(path, VIEWS)), read(path, VIEWS).dropped) == (3, {})


@pytest.mark.parametrize("values", [[[1]], [{"k": 1}], [timedelta(1)]], ids=["list", "struct", "duration"])
def test_column_with_nested_values_is_named_in_the_error(tmp_path: Path, values: list[Any]) -> None:
    path = tmp_path / "shop.parquet"
    pq.write_table(pa.table({"user_id": values, "item_id": ["x"], "ts": [MARCH]}), path)
    with pytest.raises(MappingError, match=r"column user_id of shop\.parquet holds"):
        list(interactions_of(path, SHOP))
    with pytest.raises(ModelError, match=r"column user_id of shop\.parquet holds"):
        read(path, VIEWS)


def test_rows_with_undecodable_bytes_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "shop.parquet"
    pq.write_table(pa.table({"a": pa.array([b"x", b"\xff", None], pa.binary()), "b": [1, 2, 3]}), path)
    assert rows_of(path) == ([("x", 1), (None, 3)], {NO_TEXT: 1})
    pq.write_table(pa.table({"user_id": pa.array([b"\xff", b"a"]), "item_id": ["x"] * 2, "ts": [MARCH] * 2}), path)
    assert (len(read(path, VIEWS)), read(path, VIEWS).dropped) == (1, {NO_TEXT: 1})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"PK\x03\x04rest", "Excel workbook"),
        (b"\x28\xb5\x2f\xfdrest", "zstd"),
        (gzip.compress(b"user_id,item_id\n" * 100)[:-20], "cannot be read"),
        (b"PAR1 and no more", "cannot be read"),
        (b'{\n"user_id": "a"\n}\n', "one object per line, or one array"),
        (b'[{"user_id": "a"},\n{"user_id": "b"', "one object per line, or one array"),
        (b"\x7fELF\x01\x02\x01\x00\x03\x03", "neither CSV nor Parquet"),
    ],
    ids=["empty", "blank", "workbook", "zstd", "cut", "no parquet", "pretty", "cut json", "program"],
)
def test_file_that_is_not_a_table_is_reported_by_its_type(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "my shop é.csv"
    path.write_bytes(content)
    with pytest.raises(MappingError, match=words):
        list(interactions_of(path, SHOP))
    with pytest.raises(ModelError, match=words):
        read(path, VIEWS)


def test_two_columns_of_one_name_are_refused_where_one_of_them_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    path.write_text("user_id,item_id,ts,item_id\na,x,1,y\n")
    assert rows_of(path, "user_id")[0] == [("a",)]
    with pytest.raises(FileError, match="2 columns that are called item_id"):
        rows_of(path, "item_id")
    columns = [pa.array(["a"]), pa.array(["x"]), pa.array([1]), pa.array(["y"])]
    pq.write_table(pa.Table.from_arrays(columns, ["user_id", "item_id", "ts", "item_id"]), path)
    assert rows_of(path, "user_id")[0] == [("a",)]
    with pytest.raises(FileError, match="2 columns that are called item_id"):
        rows_of(path, "item_id")


TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)).map(
    lambda time: time.replace(microsecond=time.microsecond // 1000 * 1000)
)
TOKYO = timezone(timedelta(hours=9))
FORMS: list[Callable[[datetime], str]] = [
    lambda time: time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    lambda time: time.astimezone(TOKYO).isoformat(sep=" ", timespec="microseconds"),
    lambda time: f"{time:%Y-%m-%d %H:%M:%S}.{time.microsecond // 1000:03} UTC",
    lambda time: f"{time:%Y-%m-%d %H:%M:%S},{time.microsecond // 1000:03}",
    lambda time: f"{time.year}/{time.month}/{time.day} {time.hour}:{time:%M:%S}.{time.microsecond // 1000:03}",
    lambda time: f"{time.day}.{time.month}.{time.year} {time.hour}:{time:%M:%S}.{time.microsecond // 1000:03}",
    lambda time: str(round(time.timestamp() * 1000)),
]


@given(given_times=st.lists(st.tuples(TIMES, st.sampled_from(FORMS)), max_size=8))
def test_times_in_mixed_forms_are_all_read(given_times: list[tuple[datetime, Callable[[datetime], str]]]) -> None:
    expected = [round(time.timestamp() * 1000) for time, _ in given_times]
    assert milliseconds_of([form(time) for time, form in given_times]) == expected


@pytest.mark.parametrize(
    "text", ["now", "today", "10:00", "May", "2024-02-30", "3/1/2024", "01-03-2024", "", "1e400", "x"]
)
def test_invalid_times_are_none(text: str) -> None:
    assert milliseconds_of([text]) == [None]


def test_time_without_a_zone_is_utc_regardless_of_previous_rows() -> None:
    assert milliseconds_of(["2024-03-01T00:00:00+05:30", "2024-03-01 0:00"])[1] == MARCH


def test_mail_and_iso_dates_are_times() -> None:
    assert milliseconds_of(["Fri, 01 Mar 2024 00:00:00 GMT", "2024-03-01", "20240301T000000Z"]) == [MARCH, MARCH, None]


MOMENTS = st.datetimes(datetime(2000, 1, 2), datetime(2099, 12, 31), timezones=st.just(UTC))
EXCEL_BEGINS = datetime(1899, 12, 30, tzinfo=UTC)


def in_seconds(time: datetime) -> int:
    return calendar.timegm(time.utctimetuple())


def to_seconds(time: datetime) -> datetime:
    return time.replace(microsecond=0)


def to_ms(time: datetime) -> datetime:
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


COUNTS: dict[str, tuple[str, Callable[[datetime], str], Callable[[datetime], datetime]]] = {
    "s": ("seconds", lambda time: f"{in_seconds(time)}", to_seconds),
    "s with decimals": ("seconds", lambda time: f"{in_seconds(time)}.{time.microsecond:06}", to_ms),
    "s with a comma": ("seconds", lambda time: f"{in_seconds(time)},{time.microsecond:06}", to_ms),
    "s as floats": ("seconds", lambda time: repr(time.timestamp()), to_ms),
    "ms": ("milliseconds", lambda time: f"{in_seconds(time)}{time.microsecond // 1000:03}", to_ms),
    "ms as floats": ("milliseconds", lambda time: f"{in_seconds(time)}{time.microsecond // 1000:03}.75", to_ms),
    "us": ("microseconds", lambda time: f"{in_seconds(time)}{time.microsecond:06}", to_ms),
    "ns": ("nanoseconds", lambda time: f"{in_seconds(time)}{time.microsecond:06}999", to_ms),
    "ns of pandas": ("nanoseconds", lambda time: str(pd.Timestamp(time).value), to_ms),
    "ns of Java": ("nanoseconds", lambda time: f"{in_seconds(time) / 10**9!r}E18", to_seconds),
    "days": ("days since 1899-12-30", lambda time: repr((to_ms(time) - EXCEL_BEGINS) / timedelta(days=1)), to_ms),
    "days of a German Excel": (
        "days since 1899-12-30",
        lambda time: f"{(to_seconds(time) - EXCEL_BEGINS) / timedelta(days=1):.10f}".replace(".", ","),
        to_seconds,
    ),
}
"""How a column of times counts, by datetime and pandas: its unit, how it is written, what can be read of it."""


def write_times(path: Path, values: list[str], form: str) -> None:
    """A table with these times, one user and one item; in JSON and Parquet they are numbers."""
    if form == "csv":
        lines = [["user_id", "item_id", "ts"], *(["a", "x", value] for value in values)]
        with path.open("w", newline="") as file:
            csv.writer(file, delimiter=";").writerows(lines)
        return
    numbers = [int(value) if value.isdigit() else float(value.replace(",", ".")) for value in values]
    if form == "json":
        path.write_text("".join(f'{{"user_id":"a","item_id":"x","ts":{number!r}}}\n' for number in numbers))
    else:
        columns = {"user_id": ["a"] * len(numbers), "item_id": ["x"] * len(numbers), "ts": pa.array(numbers)}
        pq.write_table(pa.table(columns), path)


def times_sent(path: Path, mapping: Mapping = SHOP) -> list[Any]:
    return [msgspec.json.decode(payload)["ts"] for _, payload in interactions_of(path, mapping)]


@pytest.mark.parametrize("count", COUNTS)
@settings(quick, max_examples=examples(20))
@given(times=st.lists(MOMENTS, min_size=1, max_size=6), form=st.sampled_from(["csv", "json", "parquet"]))
@example(times=[datetime(2024, 3, 1, 10, 0, 0, 123_000, UTC)], form="csv")
@example(times=[datetime(2099, 12, 31, 23, 59, 59, 999_000, UTC), datetime(2000, 1, 2, tzinfo=UTC)], form="json")
def test_numeric_times_are_read_in_the_unit_their_column_proves(
    tmp_path: Path, times: list[datetime], count: str, form: str
) -> None:
    path, (unit, write, readable) = tmp_path / "shop", COUNTS[count]
    write_times(path, list(map(write, times)), form)
    expected = [(readable(time) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1) for time in times]
    data = read(path, VIEWS)
    assert (data.ts_ms.tolist(), data.dropped) == (expected, {})
    assert times_sent(path) == expected
    for notes in (data.notes, reading_of(path, SHOP).notes):
        assert len(notes) == 1 and f"times of ts are numbers: read as {unit}" in notes[0]


UNITS = {"s": "s", "ms": "ms", "us": "us", "ns of pandas": "ns"}


@quick
@given(times=st.lists(MOMENTS, min_size=1, max_size=6), count=st.sampled_from(sorted(UNITS)))
def test_numeric_times_equal_pandas_with_the_same_unit(tmp_path: Path, times: list[datetime], count: str) -> None:
    path, values = tmp_path / "shop.csv", [COUNTS[count][1](time) for time in times]
    write_times(path, values, "csv")
    by_pandas = pd.to_datetime(pd.Series(values).astype("int64"), unit=UNITS[count], utc=True).astype("int64") // 10**6
    assert read(path, VIEWS).ts_ms.tolist() == by_pandas.tolist()


@quick
@given(
    times=st.lists(MOMENTS, min_size=2, max_size=6),
    counts=st.lists(st.sampled_from(["s", "ms", "us", "ns", "days"]), min_size=2, max_size=2, unique=True),
    form=st.sampled_from(["csv", "json"]),
    data=st.data(),
)
def test_column_in_two_units_is_refused_before_sending(
    tmp_path: Path, times: list[datetime], counts: list[str], form: str, data: st.DataObject
) -> None:
    path, (first, second) = tmp_path / "shop", counts
    values = [COUNTS[first][1](time) for time in times[1:]] + [COUNTS[second][1](times[0])]
    write_times(path, data.draw(st.permutations(values)), form)
    words = [COUNTS[each][0] for each in counts]
    for reader in (lambda: read(path, VIEWS), lambda: next(interactions_of(path, SHOP))):
        with pytest.raises((ModelError, MappingError)) as refused:
            reader()
        assert all(word in str(refused.value) for word in ("column ts of shop", "write all of them in one", *words))


def test_the_rows_of_a_stream_are_read_by_the_same_rule() -> None:
    def events(*times: Any) -> list[dict[str, Any]]:
        return [{"user_id": "a", "item_id": "x", "ts": time} for time in times]

    assert from_rows(events(MARCH // 1000, "2024-03-01"), VIEWS).ts_ms.tolist() == [MARCH, MARCH]
    assert from_frame(pd.DataFrame(events(MARCH // 1000)), VIEWS).ts_ms.tolist() == [MARCH]
    with pytest.raises(ModelError, match="column ts of the input are in more than one unit"):
        from_rows(events(MARCH // 1000, MARCH), VIEWS)


def test_numbers_without_proved_unit_are_no_times_and_dates_stay_dates(tmp_path: Path) -> None:
    path, remarks = tmp_path / "shop.csv", Counter[str]()
    path.write_text('user_id,item_id,ts\na,x,20240301100000\na,x,2024-03-01\na,x,0\na,x,"45,000"\n')
    assert (read(path, VIEWS).ts_ms.tolist(), read(path, VIEWS).dropped) == ([MARCH], {NO_TIME: 3})
    sent = [msgspec.json.decode(payload)["ts"] for _, payload in interactions_of(path, SHOP, remarks)]
    assert (sent, remarks) == (["20240301100000", MARCH, "0", "45,000"], {UNREAD_TIME: 3})
    path.write_text(f"user_id,item_id,ts\na,x,{MARCH // 1000}\na,x,2024-03-01\na,x,0\na,x,1.70925E+09\n")
    assert (read(path, VIEWS).ts_ms.tolist(), read(path, VIEWS).dropped) == ([MARCH, MARCH], {NO_TIME: 2})
    assert times_sent(path) == [MARCH, MARCH, 0, "1.70925E+09"]


def test_numbers_in_the_given_date_form_prove_no_unit(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    path.write_text(f"user_id,item_id,ts\na,x,0103202400\na,x,{MARCH}\n")
    columns = Columns(every="view", time_form="%d%m%Y%H")
    assert read(path, columns).ts_ms.tolist() == [MARCH, MARCH]
    path.write_text(f"user_id,item_id,ts\na,x,1003202400\na,x,{MARCH}\n")
    assert (read(path, columns).ts_ms.tolist(), read(path, columns).notes) == (
        [MARCH + 9 * 86_400_000, MARCH],
        ("times of ts are numbers: read as milliseconds since the epoch",),
    )


def test_times_of_parquet_are_what_their_type_says(tmp_path: Path) -> None:
    path, early = tmp_path / "shop.parquet", datetime(1970, 1, 21, tzinfo=UTC)
    times = pa.array([datetime(2024, 3, 1, tzinfo=UTC), early], pa.timestamp("ms", "UTC")).dictionary_encode()
    pq.write_table(pa.table({"user_id": ["a"] * 2, "item_id": ["x"] * 2, "ts": times}), path)
    assert times_sent(path) == [MARCH, 20 * 86_400_000]
    assert (read(path, VIEWS).ts_ms.tolist(), read(path, VIEWS).notes) == ([MARCH], ())


@pytest.mark.parametrize("number", [10**30, 10**400, "9" * 70, "1e400", -(10**30)], ids=lambda each: str(each)[:5])
def test_out_of_range_numbers_are_no_times(number: Any) -> None:
    assert milliseconds_of([number]) == [None]


@given(st.decimals(-(10**9), 10**9, places=2), st.booleans())
def test_numbers_of_excel_are_read_with_either_decimal_mark(value: Any, comma: bool) -> None:
    text = f"{value:,.2f}"
    if comma:
        text = text.translate(str.maketrans(",.", ".,"))
    assert number_of(text, "," if comma else ".") == float(value)
    assert number_of(text.replace("." if comma else ",", "\u00a0"), "," if comma else ".") == float(value)


SHOP_OF_NUMBERS = Mapping(type_constant="purchase", quantity="quantity", value="value")


def numbers_sent(path: Path, numbers: list[tuple[str, str]], delimiter: str) -> tuple[list[Any], Counter[str]]:
    """(quantity, value) as sent by a replay, and its remarks."""
    lines = [["user_id", "item_id", "ts", "quantity", "value"], *(["a", "x", str(MARCH), *each] for each in numbers)]
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows(lines)
    path.write_text(text.getvalue())
    remarks = Counter[str]()
    sent = [msgspec.json.decode(payload) for _, payload in interactions_of(path, SHOP_OF_NUMBERS, remarks)]
    return [(row.get("quantity"), row.get("value")) for row in sent], remarks


def values_sent(path: Path, values: list[str], delimiter: str) -> tuple[list[Any], Counter[str]]:
    sent, remarks = numbers_sent(path, [("1", value) for value in values], delimiter)
    return [value for _, value in sent], remarks


@quick
@given(
    amounts=st.lists(st.decimals(-(10**7), 10**7, places=2) | st.integers(-(10**7), 10**7), min_size=1, max_size=8),
    comma=st.booleans(),
    delimiter=st.sampled_from(",;\t|"),
)
@example([1234, 12], False, "\t")
def test_column_values_do_not_depend_on_the_delimiter(
    tmp_path: Path, amounts: list[Any], comma: bool, delimiter: str
) -> None:
    texts = [f"{amount:,}" for amount in amounts] + ["12.50"]
    if comma:
        texts = [text.translate(str.maketrans(",.", ".,")) for text in texts]
    sent, remarks = values_sent(tmp_path / "shop", texts, delimiter)
    assert sent == [*(float(amount) for amount in amounts), 12.5]
    assert not remarks


@pytest.mark.parametrize(
    ("delimiter", "values", "expected"),
    [
        ("\t", ["1,234", "12.50"], [1234, 12.5]),
        (";", ["1.234", "1.234,50"], [1234, 1234.5]),
        (";", ["1,234", "12.50"], [1234, 12.5]),
        (",", ["1.234", "2,5"], [1234, 2.5]),
        (";", ["1.234", "0.125"], [1.234, 0.125]),
        (";", ["1,234", "1,234,567"], [1234, 1234567]),
        ("\t", ["1,234", "1.234.567"], [1.234, 1234567]),
    ],
)
def test_one_proof_decides_the_meaning_of_commas(
    tmp_path: Path, delimiter: str, values: list[str], expected: list[float]
) -> None:
    for order in (1, -1):
        sent, remarks = values_sent(tmp_path / "shop", values[::order], delimiter)
        assert (sent, remarks) == (expected[::order], {})


def test_column_without_proof_follows_the_other_columns(tmp_path: Path) -> None:
    sent, remarks = numbers_sent(tmp_path / "shop", [("1,234", "12.50"), ("1,000", "1,000")], ";")
    assert (sent, remarks) == ([(1234, 12.5), (1000, 1000)], {})


@pytest.mark.parametrize(
    ("delimiter", "word", "expected"), [(";", "comma", 1.234), ("\t", "point", 1234), (",", "point", 1234)]
)
def test_ambiguous_numbers_are_reported(tmp_path: Path, delimiter: str, word: str, expected: float) -> None:
    sent, remarks = values_sent(tmp_path / "shop", ["1,234", "7", "1,234"], delimiter)
    assert sent == [expected, 7, expected]
    ((sentence, count),) = remarks.items()
    assert count == 2
    assert f"numbers of value that can be read in two ways, such as 1,234, are read with a decimal {word}" in sentence


def test_ambiguous_number_in_column_with_both_marks_is_sent_unchanged_and_reported(tmp_path: Path) -> None:
    sent, remarks = values_sent(tmp_path / "shop", ["2,50", "12.50", "1,234", "1.234", "1.234,5", "9"], ";")
    assert sent == [2.5, 12.5, "1,234", "1.234", 1234.5, 9]
    assert remarks == {UNCLEAR_NUMBER: 2}


def test_typed_parquet_numbers_are_unambiguous(tmp_path: Path) -> None:
    path, remarks = tmp_path / "shop.parquet", Counter[str]()
    value = pa.array(["1.234"]).cast(pa.decimal128(9, 3))
    pq.write_table(pa.table({"user_id": ["a"], "item_id": ["x"], "ts": [MARCH], "quantity": [1], "value": value}), path)
    (sent,) = (msgspec.json.decode(payload) for _, payload in interactions_of(path, SHOP_OF_NUMBERS, remarks))
    assert (sent["value"], remarks) == (1.234, {})


@given(st.integers(-(10**7), 10**7), st.sampled_from(".,"))
def test_positive_quantity_is_positive_in_both_readings(value: int, separator: str) -> None:
    text = f"{value:,}".replace(",", separator)
    signs = {float(str(number_of(text, mark))) > 0 for mark in (".", ",")}
    assert signs == {value > 0}


@pytest.mark.parametrize("rounded", ["4.00638E+12", "4,00638E+12", "4e+15"])
@pytest.mark.parametrize("column", ["user_id", "item_id", "session"])
def test_ids_rounded_by_excel_drop_their_rows_and_are_reported(tmp_path: Path, rounded: str, column: str) -> None:
    path, remarks = tmp_path / "shop.csv", Counter[str]()
    good = {"user_id": "a", "item_id": "2E10", "ts": str(MARCH), "session": "s", "name": "Tea"}
    rows = [good, {**good, column: rounded}, {**good, column: rounded}]
    pd.DataFrame(rows).to_csv(path, index=False, sep=";")
    mapping = Mapping(type_constant="click", session="session", name="name")
    assert [key for key, _ in interactions_of(path, mapping, remarks)] == [b"a"]
    assert remarks == {LOST_DIGITS: 2}
    assert (users_of(path, mapping), names_of(path, mapping)) == (["a"], {"2E10": "Tea"})
    if column != "session":
        data = read(path, VIEWS)
        assert (data.item_ids, len(data), data.dropped) == (["2E10"], 1, {LOST_DIGITS: 2})


def test_imprecise_float_ids_drop_their_rows(tmp_path: Path) -> None:
    path, remarks = tmp_path / "shop.parquet", Counter[str]()
    items = [7.0, float(2**53 + 1), float(2**53), None]
    pq.write_table(pa.table({"user_id": ["a"] * 4, "item_id": pa.array(items), "ts": [MARCH] * 4}), path)
    assert len(list(interactions_of(path, SHOP, remarks))) == 2
    assert remarks == {LOST_DIGITS: 2}
    assert (read(path, VIEWS).item_ids, read(path, VIEWS).dropped) == (["7"], {LOST_DIGITS: 2, "no item": 1})


@pytest.mark.parametrize(("separator", "decimal"), [(",", "."), (";", ",")])
@pytest.mark.parametrize("column", ["user_id", "item_id", "session"])
def test_integer_ids_stored_as_floats_are_equal_from_csv_and_parquet(
    tmp_path: Path, column: str, separator: str, decimal: str
) -> None:
    frame = pd.DataFrame({name: ["a"] * 4 for name in ("user_id", "item_id", "session")} | {"ts": [MARCH] * 4})
    frame[column] = [12345, None, 7, 0]
    frame.to_csv(tmp_path / "shop.csv", index=False, sep=separator, decimal=decimal)
    frame.to_parquet(tmp_path / "shop.parquet")
    mapping = Mapping(type_constant="click", session="session")
    sent, users, items = [], [], []
    for name in ("shop.csv", "shop.parquet"):
        sent.append(list(interactions_of(tmp_path / name, mapping)))
        users.append(users_of(tmp_path / name, mapping))
        items.append((read(tmp_path / name, VIEWS).item_ids, len(read(tmp_path / name, VIEWS))))
    assert sent[0] == sent[1] and users[0] == users[1] and items[0] == items[1]
    assert b"12345.0" not in sent[0][0][1] and b"12345,0" not in sent[0][0][1] and b"12345" in sent[0][0][1]
    assert any("without the point" in note for note in reading_of(tmp_path / "shop.csv", mapping).notes)


def test_decimal_id_among_integers_drops_its_row(tmp_path: Path) -> None:
    path, remarks = tmp_path / "shop.csv", Counter[str]()
    lines = [f"{user},x,{MARCH}\n" for user in ("5", "5.0", "7.0", "ada")]
    path.write_text("user_id,item_id,ts\n" + "".join(lines))
    assert [key for key, _ in interactions_of(path, SHOP, remarks)] == [b"5", b"ada"]
    assert (remarks, users_of(path, SHOP)) == ({TWO_WRITINGS: 2}, ["5", "ada"])
    assert (len(read(path, VIEWS)), read(path, VIEWS).dropped) == (2, {TWO_WRITINGS: 2})


def test_imprecise_float_id_drops_its_row_in_csv_too(tmp_path: Path) -> None:
    path, remarks = tmp_path / "shop.csv", Counter[str]()
    path.write_text(f"user_id,item_id,ts\n9007199254740992.0,x,{MARCH}\n8.0,x,{MARCH}\n")
    assert [key for key, _ in interactions_of(path, SHOP, remarks)] == [b"8"]
    assert remarks == {LOST_DIGITS: 1} == read(path, VIEWS).dropped


@pytest.mark.parametrize("ids", [["1.0", "2.5"], ["1.000", "2.0"], ["1.0.0", "v2.0"]])
def test_ids_with_points_of_their_own_stay_as_they_are(tmp_path: Path, ids: list[str]) -> None:
    path = tmp_path / "shop.csv"
    path.write_text("user_id,item_id,ts\n" + "".join(f"{user},{user},{MARCH}\n" for user in ids))
    assert users_of(path, SHOP) == ids == read(path, VIEWS).item_ids


@pytest.mark.parametrize("column", ["user_id", "item_id"])
@pytest.mark.parametrize("as_list", [False, True])
def test_truncated_character_drops_its_row(tmp_path: Path, column: str, as_list: bool) -> None:
    path, remarks = tmp_path / "shop.jsonl", Counter[str]()
    good = {"user_id": "\U0001f600", "item_id": "x", "ts": MARCH}
    rows = [good, {**good, column: "x\ud800"}, {**good, "\udfff": 1}]
    path.write_text(json.dumps(rows) if as_list else "\n".join(map(json.dumps, rows)))
    assert [key for key, _ in interactions_of(path, SHOP, remarks)] == ["\U0001f600".encode()] * 2
    assert remarks == {HALF_CHARACTER: 1}
    assert (len(read(path, VIEWS)), read(path, VIEWS).dropped) == (2, {HALF_CHARACTER: 1})
    assert users_of(path, SHOP) == ["\U0001f600"]
    assert "\udfff" not in open_table(path).names


@pytest.mark.parametrize(
    "header",
    ["[user_id],[item_id],[ts]", "[user_id];item_id;ts", "`user_id`\t`item_id`\t`ts`", "'user_id','item_id',ts"],
)
def test_bracketed_sql_column_names_are_read_from_csv(tmp_path: Path, header: str) -> None:
    path = tmp_path / "shop"
    delimiter = next(each for each in ",;\t" if each in header)
    path.write_text(f"{header}\na{delimiter}x{delimiter}{MARCH}\n")
    assert rows_of(path, "user_id", "item_id", "ts") == ([("a", "x", str(MARCH))], {})
    assert (len(read(path, VIEWS)), read(path, VIEWS).dropped) == (1, {})


def test_a_bracket_around_one_name_is_a_header_and_around_json_is_json(tmp_path: Path) -> None:
    path = tmp_path / "shop"
    path.write_text("[user_id]\na\n")
    assert rows_of(path, "user_id") == ([("a",)], {})
    path.write_text('[1]\n{"user_id": "a"}\n')
    assert rows_of(path, "user_id") == ([("a",)], {NO_OBJECT: 1})


def mixed(path: Path, rows: int = 40) -> None:
    forms = "2024-03-01T{:02}:00:00.000Z", "2024-03-01T{:02}:00:01Z", "2024-03-01 {}:00"
    lines = [f"u{row},x,{forms[row % 3].format(row % 24)}\n" for row in range(rows)]
    path.write_text("user_id,item_id,ts\n" + "".join(lines))


def test_all_rows_of_a_file_with_mixed_times_are_trained_on_and_sent(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    mixed(path)
    data = read(path, VIEWS)
    sent = [msgspec.json.decode(payload)["ts"] for _, payload in interactions_of(path, SHOP)]
    assert (len(data), data.dropped, sent) == (40, {}, data.ts_ms.tolist())


def test_ambiguous_dates_are_counted_and_read_with_a_given_form(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    path.write_text("user_id,item_id,ts\na,x,01/03/2024 0:00\nb,x,2024-03-01\n")
    assert read(path, VIEWS).dropped == {TWO_READINGS: 1}
    remarks = Counter[str]()
    assert len(list(interactions_of(path, SHOP, remarks))) == 2
    assert remarks == {TWO_READINGS: 1}
    assert read(path, Columns(every="view", time_form="%d/%m/%Y %H:%M")).ts_ms.tolist() == [MARCH, MARCH]
    with pytest.raises(ModelError, match="not a time format"):
        read(path, Columns(every="view", time_form="%Q"))


@pytest.mark.parametrize(
    ("dates", "days"),
    [
        (["01/03/2024", "29/11/2026"], ["2024-03-01", "2026-11-29"]),
        (["03/01/2024", "11/29/2026"], ["2024-03-01", "2026-11-29"]),
        (["1-3-2024 0:00", "29-11-2026 00:00:00"], ["2024-03-01", "2026-11-29"]),
        (["29/11/2026", "30/11/2026"], ["2026-11-29", "2026-11-30"]),
    ],
)
def test_one_date_proves_the_day_month_order_of_its_column(tmp_path: Path, dates: list[str], days: list[str]) -> None:
    path, remarks = tmp_path / "shop.csv", Counter[str]()
    path.write_text("user_id,item_id,ts\n" + "".join(f"a,x,{date}\n" for date in dates))
    expected = milliseconds_of(days)
    sent = [msgspec.json.decode(payload)["ts"] for _, payload in interactions_of(path, SHOP, remarks)]
    assert (sent, remarks) == (expected, {})
    data = read(path, VIEWS)
    assert (data.ts_ms.tolist(), data.dropped) == (expected, {})
    assert any("first" in note for note in data.notes) and any("first" in note for note in reading_of(path, SHOP).notes)
    assert (
        from_rows([{"pseudonym": "a", "item_id": "x", "type": "view", "ts": date} for date in dates]).ts_ms.tolist()
        == expected
    )


def test_column_with_both_date_orders_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    path.write_text("user_id,item_id,ts\na,x,29/11/2026\na,x,11/29/2026\n")
    with pytest.raises(MappingError, match="day first, as 29/11/2026, and the month first, as 11/29/2026"):
        reading_of(path, SHOP)
    with pytest.raises(ModelError, match="day first"):
        read(path, VIEWS)
    assert read(path, Columns(every="view", time_form="%d/%m/%Y")).dropped == {TWO_READINGS: 1}


def test_unreadable_value_in_a_column_with_proof_is_not_ambiguous(tmp_path: Path) -> None:
    path, remarks = tmp_path / "shop.csv", Counter[str]()
    path.write_text("user_id,item_id,ts\na,x,29/11/2026\na,x,29/30/2026\n")
    assert len(list(interactions_of(path, SHOP, remarks))) == 2
    assert (remarks, read(path, VIEWS).dropped) == ({UNREAD_TIME: 1}, {NO_TIME: 1})


def test_an_excel_file_with_semicolons_and_decimal_commas_is_sent_and_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "Überblick März.CSV"
    text = "Kunde;Artikel;Zeit;Menge;Preis\r\nJosé;Käse;1.3.2024 00:00;2;1.234,50\r\nAda;Tee;01.03.2024;-1;3,5\r\n"
    path.write_bytes(text.encode("cp1252"))
    mapping = Mapping(
        user="Kunde", item="Artikel", time="Zeit", type_constant="purchase", quantity="Menge", value="Preis"
    )
    first, second = (msgspec.json.decode(payload) for _, payload in interactions_of(path, mapping))
    assert (first["user_id"], first["item_id"], first["ts"], first["value"]) == ("José", "Käse", MARCH, 1234.5)
    assert (second["quantity"], second["value"], second["event_id"]) == (-1, 3.5, "Überblick März:1")
    data = read(path, Columns("Kunde", "Artikel", "Zeit", every="purchase", quantity="Menge"))
    assert (data.item_ids, data.dropped) == (["Käse"], {"quantity not above zero": 1})
    assert any("Windows-1252" in line for line in data.report_lines())


def test_ids_in_json_are_the_same_whether_written_as_numbers_or_text(tmp_path: Path) -> None:
    path = tmp_path / "shop.jsonl"
    path.write_text("".join(f'{{"user_id":{user},"item_id":"x","ts":{MARCH}}}\n' for user in ("7", '"7"', "7.0")))
    assert len(set(read(path, VIEWS).users)) == 1
    assert {key for key, _ in interactions_of(path, SHOP)} == {b"7"}


def test_invalid_item_id_drops_its_row_and_not_the_model(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    path.write_text('user_id,item_id,ts\na,"two\nlines",2024-03-01\na,x,2024-03-01\n')
    data = read(path, VIEWS)
    assert (data.item_ids, sum(data.dropped.values())) == (["x"], 1)


def test_event_ids_of_a_file_with_a_long_name_fit(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 200 + ".csv")
    path.write_text(f"user_id,item_id,ts\na,x,{MARCH}\n")
    (event,) = (msgspec.json.decode(payload) for _, payload in interactions_of(path, SHOP))
    assert len(event["event_id"]) <= 64


def test_training_on_a_file_says_every_row_that_it_leaves_out(tmp_path: Path, capsys) -> None:
    path = tmp_path / "my shop.csv"
    steps = "".join(f"u{user},item-{step},{MARCH + step * 60_000}\n" for user in range(40) for step in range(4))
    path.write_text(f"user_id,item_id,ts\n{steps}a,x\na,x,soon\n,x,{MARCH}\n")
    assert run(["model", "train", str(path), "--out", str(tmp_path / "model"), "--every", "view"]) == 0
    said = capsys.readouterr().err.splitlines()
    for line in (f"  dropped 1: {WRONG_WIDTH}", f"  dropped 1: {NO_TIME}", "  dropped 1: no user"):
        assert said.count(line) == 1


@pytest.mark.parametrize("rows", ["", "a,x\n", "a,x,soon\n", ",x,2024-03-01\n"])
def test_file_without_usable_rows_says_why_there_is_no_model(tmp_path: Path, rows: str, capsys) -> None:
    path = tmp_path / "shop.csv"
    path.write_text("user_id,item_id,ts\n" + rows)
    assert run(["model", "train", str(path), "--out", str(tmp_path / "model"), "--every", "view"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert "freshet: not done: " in said[-1]
    assert not rows or any(" 1: " in line for line in said)


def test_default_user_column_depends_on_columns_not_on_the_file_extension(tmp_path: Path, capsys) -> None:
    path = tmp_path / "export"
    rows = [
        {"pseudonym": f"p{u}", "item_id": f"i{s}", "type": "view", "ts": MARCH + s} for u in range(40) for s in range(4)
    ]
    pd.DataFrame(rows).to_csv(path, index=False)
    assert run(["model", "train", str(path), "--out", str(tmp_path / "model")]) == 0
    assert "  160 interactions, 4 items" in capsys.readouterr().err.splitlines()


def test_the_examples_hold() -> None:
    for module in (cells, files, text_files, times):
        assert doctest.testmod(module).failed == 0


def test_missing_values_of_pandas_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    pd.DataFrame({"user_id": [1.0, np.nan], "item_id": ["x", "y"], "ts": [MARCH, MARCH]}).to_csv(path, index=False)
    assert read(path, VIEWS).dropped == {"no user": 1}


CELLS = (
    st.none() | st.integers() | st.floats() | st.sampled_from([2**60, 2.0**60, 1, 1.0, "2,50", "1,234", "4.0E+12", "x"])
)


@given(given_cells=st.lists(CELLS, max_size=8), mark=st.sampled_from([".", ",", "?"]))
@example([2**60, 2.0**60], ".")
@example([1, 1.0], ".")
def test_cells_read_in_bulk_equal_cells_read_singly(given_cells: list[cells.Cell], mark: cells.DecimalMark) -> None:
    alone = [number_of(cell, mark) for cell in given_cells]
    assert list(map(repr, numbers_of(given_cells, mark))) == list(map(repr, alone))
    lost = [row for row, cell in enumerate(given_cells) if has_lost_digits(cell)]
    assert rows_with_lost_digits(given_cells) == lost


def test_a_date_that_stands_for_none_is_no_time() -> None:
    dates = ["2024-03-01", "9999-12-31", "2567-03-01"]
    rows = [{"pseudonym": "a", "item_id": "x", "type": "view", "ts": date} for date in dates]
    found = from_rows(rows)
    assert len(found) == 1 and found.dropped == {NO_TIME: 2}
