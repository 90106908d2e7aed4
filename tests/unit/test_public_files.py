"""Files as public data sets have them: each is read as it is, and alike by training, evaluation and replay."""

import gzip
import json
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from deploy.demo.table import Mapping, MappingError, expect_usable, interactions_of, reading_of
from freshet.cli.main import run
from models.csv_files import Layout
from models.files import open_table
from models.interactions import Columns, read
from models.row_rules import RowRules
from models.times import unit_proved_by
from schemas.errors import FileError, ModelError
from tests.support.documented_walk import EVALUATED
from tests.support.examples import examples


class Row(NamedTuple):
    user: str
    item: str
    at_s: int
    rating: int = 5
    kind: str = "view"


def iso(row: Row) -> str:
    return datetime.fromtimestamp(row.at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def lines(rows: Sequence[Row], line: Callable[[Row], str], header: str | None = None) -> bytes:
    return "".join(f"{text}\n" for text in ([header] if header else []) + list(map(line, rows))).encode()


def parquet(rows: Sequence[Row]) -> bytes:
    times = pd.to_datetime([row.at_s for row in rows], unit="s")
    columns = {"who": [row.user for row in rows], "what": [row.item for row in rows], "when": times}
    return pd.DataFrame(columns).to_parquet()


class Shape(NamedTuple):
    """How a public data set writes interactions: its file, and its columns for the user, the item and the time."""

    file: str
    write: Callable[[Sequence[Row]], bytes]
    user: str
    item: str
    time: str
    note: str = ""


SHAPES: Final = {
    "MovieLens 100K": Shape(
        "u.data",
        lambda rows: lines(rows, lambda row: f"{row.user}\t{row.item}\t{row.rating}\t{row.at_s}"),
        *("1", "2", "4"),
        "u.data has no header: 4 columns, separated by 'tab', numbered 1, 2, 3, 4",
    ),
    "MovieLens 1M": Shape(
        "ratings.dat",
        lambda rows: lines(rows, lambda row: f"{row.user}::{row.item}::{row.rating}::{row.at_s}"),
        *("1", "2", "4"),
        "ratings.dat has no header: 4 columns, separated by '::', numbered 1, 2, 3, 4",
    ),
    "MovieLens 1M, packed": Shape(
        "ratings.dat.gz",
        lambda rows: gzip.compress(
            lines(rows, lambda row: f"{row.user}::{row.item}::{row.rating}::{row.at_s}"), mtime=0
        ),
        *("1", "2", "4"),
        "ratings.dat.gz has no header: 4 columns, separated by '::', numbered 1, 2, 3, 4",
    ),
    "MovieLens 25M": Shape(
        "ratings.csv",
        lambda rows: lines(
            rows,
            lambda row: f"{row.user},{row.item},{row.rating}.0,{row.at_s}",
            "userId,movieId,rating,timestamp",
        ),
        *("userId", "movieId", "timestamp"),
    ),
    "Yoochoose": Shape(
        "yoochoose-clicks.dat",
        lambda rows: lines(rows, lambda row: f"{row.user},{iso(row)},{row.item},0"),
        *("1", "3", "2"),
        "yoochoose-clicks.dat has no header: 4 columns, separated by ',', numbered 1, 2, 3, 4",
    ),
    "RecBole": Shape(
        "ml-100k.inter",
        lambda rows: lines(
            rows,
            lambda row: f"{row.user}\t{row.item}\t{row.rating}\t{row.at_s}",
            "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        ),
        *("user_id", "item_id", "timestamp"),
    ),
    "Retailrocket": Shape(
        "events.csv",
        lambda rows: lines(
            rows,
            lambda row: f"{row.at_s * 1000},{row.user},view,{row.item},",
            "timestamp,visitorid,event,itemid,transactionid",
        ),
        *("visitorid", "itemid", "timestamp"),
    ),
    "Amazon reviews": Shape(
        "ratings_Books.csv",
        lambda rows: lines(rows, lambda row: f"{row.user},{row.item},{row.rating}.0,{row.at_s}"),
        *("1", "2", "4"),
        "ratings_Books.csv has no header: 4 columns, separated by ',', numbered 1, 2, 3, 4",
    ),
    "Epinions": Shape(
        "ratings.txt",
        lambda rows: lines(rows, lambda row: f"{row.user} {row.item} {row.rating} {row.at_s}"),
        *("1", "2", "4"),
        "ratings.txt has no header: 4 columns, separated by 'space', numbered 1, 2, 3, 4",
    ),
    "microseconds": Shape(
        "log.tsv",
        lambda rows: lines(rows, lambda row: f"{row.user}\t{row.item}\t{row.at_s * 1_000_000}", "u\ti\tt"),
        *("u", "i", "t"),
    ),
    "JSON lines": Shape(
        "log.jsonl.gz",
        lambda rows: gzip.compress(
            lines(
                rows,
                lambda row: json.dumps({"reviewerID": row.user, "asin": row.item, "helpful": [0, 1], "at": iso(row)}),
            ),
            mtime=0,
        ),
        *("reviewerID", "asin", "at"),
    ),
    "Parquet": Shape("log.parquet", parquet, *("who", "what", "when")),
}
SECONDS: Final = st.integers(315_532_800, 4_102_444_799)
"""1980 to 2099."""
IDS: Final = st.integers(0, 9_999).map(str) | st.text("ABXYZ0189", min_size=3, max_size=10).map("B".__add__)
ROWS: Final = st.lists(st.builds(Row, IDS, IDS, SECONDS, st.integers(1, 5)), min_size=1, max_size=8)
quick = settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def trained_on(path: Path, columns: Columns, users: Sequence[str]) -> Counter[tuple[str, str, int]]:
    """What training reads, as (user, item, ms); its codes of users follow the order of their ids."""
    data, ids = read(path, columns), sorted(set(users))
    rows = zip(data.users, data.items, data.ts_ms, strict=True)
    return Counter((ids[user], data.item_ids[item], int(ms)) for user, item, ms in rows)


def sent_from(path: Path, mapping: Mapping) -> list[dict[str, Any]]:
    return [msgspec.json.decode(payload) for _, payload in interactions_of(path, mapping)]


@pytest.mark.parametrize("name", SHAPES)
@quick
@given(rows=ROWS)
@example(rows=[Row("196", "242", 881_250_949, 3), Row("186", "302", 891_717_742, 3)])
def test_file_of_any_shape_reads_back_the_same_interactions(tmp_path: Path, name: str, rows: list[Row]) -> None:
    shape = SHAPES[name]
    path = tmp_path / shape.file
    path.write_bytes(shape.write(rows))
    expected = [(row.user, row.item, row.at_s * 1000) for row in rows]
    columns = Columns(shape.user, shape.item, shape.time, every="view")
    assert trained_on(path, columns, [row.user for row in rows]) == Counter(expected)
    mapping = Mapping(user=shape.user, item=shape.item, time=shape.time, type_constant="view")
    sent = [(event["user_id"], event["item_id"], event["ts"]) for event in sent_from(path, mapping)]
    assert sent == expected


@pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if shape.note])
def test_file_without_a_header_says_how_it_is_read(tmp_path: Path, name: str) -> None:
    shape = SHAPES[name]
    path = tmp_path / shape.file
    path.write_bytes(shape.write([Row("196", "242", 881_250_949)]))
    assert shape.note in read(path, Columns(shape.user, shape.item, shape.time, every="view")).notes
    mapping = Mapping(user=shape.user, item=shape.item, time=shape.time, type_constant="view")
    assert shape.note in reading_of(path, mapping).notes


def movielens(folder: Path, *rows: str) -> Path:
    path = folder / "ratings.dat"
    path.write_text("".join(f"{row}\n" for row in rows))
    return path


FOUR: Final = ("1::1193::5::978300760", "1::661::3::978302109", "2::914::4::978301968", "3::48::x::978298413")
NAMED: Final = Layout(names=("user_id", "item_id", "rating", "ts"))


def test_columns_of_a_file_without_a_header_can_be_named(tmp_path: Path) -> None:
    path = movielens(tmp_path, *FOUR)
    assert read(path, Columns(every="rating", layout=NAMED)).item_ids == ["1193", "48", "661", "914"]
    mapping = Mapping(type_constant="rating", column_names="user_id,item_id,rating,ts")
    assert [event["item_id"] for event in sent_from(path, mapping)] == ["1193", "661", "914", "48"]


def test_names_and_separator_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = movielens(tmp_path, *FOUR)
    with pytest.raises(FileError, match="has 4 columns separated by '::', and --column-names gives 2 names"):
        open_table(path, Layout(names=("user", "item")))
    for names in ("a,a", "a,,b", ""):
        with pytest.raises(FileError, match="--column-names must be different names"):
            Layout.parse(None, names)
    with pytest.raises(FileError, match="--separator must be text"):
        Layout.parse('"', None)
    table = tmp_path / "log.jsonl"
    table.write_text('{"user_id":"a"}\n')
    with pytest.raises(FileError, match="names its columns itself"):
        open_table(table, NAMED)


def test_separator_is_that_of_the_user_if_given(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text("user_id^item_id^ts, in s\na^x,1,2,3^978300760\n")
    columns = Columns(time="ts, in s", every="view", layout=Layout.parse("^", None))
    assert read(path, columns).item_ids == ["x,1,2,3"]


def test_missing_column_of_a_file_without_a_header_says_how_to_name_it(tmp_path: Path) -> None:
    path, how = movielens(tmp_path, *FOUR), "has no header, and its columns are 1, 2, 3, 4: use these, or name them"
    with pytest.raises(ModelError, match=how):
        read(path, Columns(every="view"))
    with pytest.raises(MappingError, match=how):
        reading_of(path, Mapping(type_constant="view"))


@pytest.mark.parametrize("header", ["0,1,2,3", "user,2024,2025,2026", "user_id,item_id,rating,ts", "a b c,d,e,f"])
def test_header_is_not_taken_for_data(tmp_path: Path, header: str) -> None:
    path = tmp_path / "shop.csv"
    path.write_text(f"{header}\n1,2,3,978300760\n")
    assert open_table(path).names == header.split(",")


def test_rows_below_the_least_value_are_dropped_and_counted(tmp_path: Path) -> None:
    path, rules = movielens(tmp_path, *FOUR), RowRules.parse(None, "rating=4")
    data = read(path, Columns(every="view", layout=NAMED, rules=rules))
    assert (data.item_ids, data.dropped) == (["1193", "914"], {"rating below 4, or not a number": 2})
    remarks = Counter[str]()
    mapping = Mapping(type_constant="view", column_names="user_id,item_id,rating,ts", at_least="rating=4")
    assert len(list(interactions_of(path, mapping, remarks))) == 2
    assert remarks["rating below 4, or not a number: not sent"] == 2


def test_least_value_is_compared_in_the_notation_of_its_column(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    path.write_text("user_id;item_id;price;ts\na;x;1.234;978300760\na;y;2,5;978300761\na;z;1.234,5;978300762\n")
    rules = RowRules.parse(None, "price=1000")
    assert read(path, Columns(every="view", rules=rules)).item_ids == ["x", "z"]
    sent = sent_from(path, Mapping(type_constant="view", at_least="price=1000"))
    assert [event["item_id"] for event in sent] == ["x", "z"]


def test_names_of_kinds_are_mapped_alike_for_training_and_replay(tmp_path: Path) -> None:
    path, kinds = tmp_path / "events.csv", "addtocart=add_to_cart,transaction=purchase"
    rows = [(978_300_760_000 + row, kind) for row, kind in enumerate(["view", "addtocart", "transaction", "other"])]
    path.write_text("timestamp,visitorid,event,itemid\n" + "".join(f"{ts},7,{kind},42\n" for ts, kind in rows))
    data = read(path, Columns("visitorid", "itemid", "timestamp", "event", rules=RowRules.parse(kinds, None)))
    assert (len(data), data.dropped) == (3, {"unknown kind": 1})
    remarks = Counter[str]()
    mapping = Mapping(user="visitorid", item="itemid", time="timestamp", type="event", kinds=kinds)
    sent = [msgspec.json.decode(payload)["type"] for _, payload in interactions_of(path, mapping, remarks)]
    assert sent == ["view", "add_to_cart", "purchase", "other"]
    assert remarks == {"an unknown kind: sent as it is, and the job rejects it": 1}


@pytest.mark.parametrize(
    ("kinds", "at_least"),
    [("buy", None), ("buy=sale", None), ("=view", None), ("", None), (None, "rating"), (None, "=4"), (None, "r=nan")],
)
def test_rule_that_cannot_be_read_is_refused(kinds: str | None, at_least: str | None) -> None:
    with pytest.raises(FileError, match=r"--kinds must be|--at-least must be"):
        RowRules.parse(kinds, at_least)


UNUSABLE: Final = [
    ("a,x,look,978300760\na,x,buy,978300760\na,x,add,978300760\na,x,eye,978300760\n", r"'look', 'buy', 'add' \(kinds"),
    ("a,x,view,1st\na,x,view,2nd\na,x,view,3rd\na,x,view,4th\n", "such as '1st', '2nd', '3rd'"),
    (",x,view,978300760\n", "1: no user"),
    ("a,,view,978300760\n", "1: no item"),
    ("", "there are no"),
]


@pytest.mark.parametrize(("rows", "shown"), UNUSABLE)
def test_file_without_usable_rows_is_refused_with_values_seen_and_wanted(tmp_path: Path, rows: str, shown: str) -> None:
    path = tmp_path / "shop.csv"
    path.write_text(f"user_id,item_id,type,ts\n{rows}")
    with pytest.raises(ModelError, match=shown):
        read(path, Columns())
    mapping = Mapping(type="type")
    with pytest.raises(MappingError, match=f"^nothing was sent: .*{shown}"):
        expect_usable(path, mapping, reading_of(path, mapping))


def test_one_usable_row_is_enough_to_replay(tmp_path: Path) -> None:
    path, mapping = tmp_path / "shop.csv", Mapping(type="type")
    path.write_text("user_id,item_id,type,ts\na,x,look,978300760\n,x,view,978300760\na,x,view,978300760\n")
    expect_usable(path, mapping, reading_of(path, mapping))


def test_replay_of_times_that_the_job_rejects_is_refused(tmp_path: Path) -> None:
    path = movielens(tmp_path, "196::242::3::881250949")
    mapping = Mapping(user="1", item="2", time="4", type_constant="view")
    with pytest.raises(MappingError, match=r"1: a time before 2000 or after 9999, which the job rejects.*'881250949'"):
        expect_usable(path, mapping, reading_of(path, mapping))


def test_error_about_unusable_rows_shows_no_user(tmp_path: Path) -> None:
    path, mapping = tmp_path / "shop.csv", Mapping(type="type")
    path.write_text("user_id,item_id,type,ts\nsecret\x7fname,x,view,978300760\nada,x,look,978300760\n")
    with pytest.raises(MappingError) as told:
        expect_usable(path, mapping, reading_of(path, mapping))
    assert "secret" not in str(told.value) and "ada" not in str(told.value)


def test_command_evaluates_a_public_file_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        f"{user}::{user % 5 + step}::{step + 1}::{881_250_949 + 60 * step}" for user in range(20) for step in range(5)
    ]
    path = movielens(tmp_path, *rows)
    options = ["--user", "1", "--item", "2", "--time", "4", "--every", "rating", "--at-least", "3=2"]
    assert run(["model", "evaluate", str(path), *options]) == 0
    said = capsys.readouterr().err.splitlines()
    assert "  80 interactions, 8 items" in said and "  from 1997-12-04 to 1997-12-04" in said
    assert "  dropped 20: 3 below 2, or not a number" in said
    assert "  times of 4 are numbers: read as seconds since the epoch" in said


@pytest.mark.parametrize("line", EVALUATED)
def test_documented_evaluation_of_a_public_file_runs(
    tmp_path: Path, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(line)[1:]
    rows = [
        Row(str(user), str(user % 5 + step), 978_300_760 + 60 * step + user, step + 1)
        for user in range(20)
        for step in range(5)
    ]
    [shape] = [shape for shape in SHAPES.values() if shape.file == words[2]]
    (tmp_path / shape.file).write_bytes(shape.write(rows))
    monkeypatch.chdir(tmp_path)
    assert run(words) == 0
    told = capsys.readouterr()
    assert "online model" in told.out.partition("\nnew items, ")[2]
    assert f"{40 if '--at-least' in words else 100} interactions" in told.err


@given(seconds=SECONDS, power=st.integers(0, 3))
def test_time_since_1980_proves_its_unit_and_no_other(seconds: int, power: int) -> None:
    unit = unit_proved_by(seconds * 1000**power)
    assert unit is not None and unit.milliseconds(seconds * 1000**power) == seconds * 1000


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_command_refuses_a_layout_for_what_has_none(tmp_path: Path, command: str, capsys) -> None:
    out = ["--out", str(tmp_path / "model")] if command == "train" else []
    assert run(["model", command, "-", "--separator", "tab", *out]) == 2
    assert "leave out --separator and --column-names" in capsys.readouterr().err
