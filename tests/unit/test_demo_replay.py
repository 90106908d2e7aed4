"""Files become payloads row by row, dirty rows unchanged; consents are sent and applied first."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pandas as pd
import pytest
from kafka.partitioner.default import DefaultPartitioner

from adapters.kafka.settings import KafkaSettings
from adapters.secrets.key_rings import new_key_ring
from deploy.demo.feed import FileFeed
from deploy.demo.producer import KnownKeys
from deploy.demo.receipts import ConsentWaiter, MissingReceiptsError
from deploy.demo.replay import (
    Choice,
    Replay,
    ReplayCounts,
    consents_of,
    level_of,
)
from deploy.demo.table import ONLINE_RETAIL, UNREAD_TIME, Mapping, MappingError, interactions_of, names_of, users_of
from freshet.cli.main import run
from models.cells import LOST_DIGITS
from models.csv_files import WRONG_WIDTH
from schemas.consents import ConsentChange
from schemas.pseudonyms import Pseudonymiser
from schemas.receipts import ConsentReceipt, Receipt
from schemas.rejects import RejectReason
from schemas.wire.codecs import BadRecord, json_codec

NOW = 1_750_000_000_000
PSEUDONYMISER = Pseudonymiser(new_key_ring())
CSV = """who,what,at,kind,count,price
ada,tea,2024-05-01T10:00:00Z,purchase,2,3.5
,cup,2024-05-01T10:00:01Z,click,,
ben,pot,2024-05-01T10:00:02Z,purchase,-1,9
eva,pot,yesterday,click,a few,
"""
SHOP = Mapping(user="who", item="what", time="at", type="kind", quantity="count", value="price")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shop.csv"
    path.write_text(CSV)
    return path


def rows(path: Path, mapping: Mapping) -> list[dict[str, Any]]:
    return [msgspec.json.decode(payload) for _, payload in interactions_of(path, mapping)]


def test_a_row_becomes_an_interaction(file: Path) -> None:
    key, payload = next(interactions_of(file, SHOP))
    event, unknown = json_codec().interaction(payload)
    assert (key, unknown) == (b"ada", False)
    assert (event.event_id, event.type, event.user_id, event.item_id) == ("shop:0", "purchase", "ada", "tea")
    assert (event.ts, event.quantity, event.value) == (1_714_557_600_000, 2, 3.5)


def test_missing_values_are_omitted_and_wrong_ones_kept(file: Path) -> None:
    _, cup, pot, odd = rows(file, SHOP)
    assert set(cup) == {"event_id", "type", "ts", "item_id"}
    assert pot["quantity"] == -1
    assert (odd["ts"], odd["quantity"]) == ("yesterday", "a few")


def test_dirty_rows_are_sent_and_rejected_with_a_reason(file: Path) -> None:
    reasons: list[RejectReason | None] = []
    for _, payload in interactions_of(file, SHOP):
        try:
            json_codec().interaction(payload)
            reasons.append(None)
        except BadRecord as bad:
            reasons.append(bad.reason)
    assert reasons == [None, RejectReason.MISSING_USER, RejectReason.OUT_OF_RANGE, RejectReason.WRONG_TYPE]


def test_a_row_without_a_user_has_no_key(file: Path) -> None:
    assert [key for key, _ in interactions_of(file, SHOP)] == [b"ada", None, b"ben", b"eva"]


def test_prefixes_constants_and_numeric_times_are_applied(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("user_id,item_id,ts\n7,x,1714557600000\n8.0,y,17145\n")
    mapping = Mapping(type_constant="click", user_prefix="u-", event_id_prefix="run1", currency_constant="GBP")
    assert rows(path, mapping)[0] == {
        "event_id": "run1:0",
        "type": "click",
        "ts": 1_714_557_600_000,
        "user_id": "u-7",
        "item_id": "x",
        "currency": "GBP",
    }


def test_dates_with_a_custom_time_format_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("user_id,item_id,ts\na,x,01/05/2024 10:00\n")
    mapping = Mapping(type_constant="click", time_format="%d/%m/%Y %H:%M")
    assert rows(path, mapping)[0]["ts"] == 1_714_557_600_000


def test_parquet_of_online_retail_is_read(tmp_path: Path) -> None:
    path = tmp_path / "online.parquet"
    frame = pd.DataFrame(
        {
            "invoice": ["536365", "C536379"],
            "stock_code": ["85123A", "D"],
            "description": ["HOLDER", None],
            "quantity": pd.array([6, -1], dtype="int32"),
            "invoice_ts": pd.to_datetime(["2010-12-01 08:26", "2010-12-01 09:41"], utc=True),
            "unit_price": pd.array([2.55, 27.5], dtype="float32"),
            "customer_id": pd.array([17850, None], dtype="Int32"),
            "country": ["United Kingdom", "EIRE"],
        }
    )
    frame.to_parquet(path)
    first, second = rows(path, ONLINE_RETAIL)
    assert first == {
        "event_id": "online:0",
        "type": "purchase",
        "ts": 1_291_191_960_000,
        "user_id": "customer-17850",
        "session_id": "536365",
        "item_id": "85123A",
        "value": 2.55,
        "currency": "GBP",
        "quantity": 6,
        "context": {"country": "United Kingdom"},
    }
    assert "user_id" not in second
    assert names_of(path, ONLINE_RETAIL) == {"85123A": "HOLDER"}
    assert users_of(path, ONLINE_RETAIL) == ["customer-17850"]


def test_integers_stored_as_floats_have_no_decimal_point(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pd.DataFrame({"user_id": [7.0, None], "item_id": [1, 2], "ts": [NOW, NOW]}).to_parquet(path)
    assert [key for key, _ in interactions_of(path, Mapping(type_constant="click"))] == [b"7", None]


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        (Mapping(user="who", item="what", time="at"), "--type"),
        (Mapping(user="who", item="what", time="at", type_constant="buy"), "kinds are"),
        (Mapping(user="person", item="what", time="at", type="kind"), "no column person"),
    ],
)
def test_a_wrong_mapping_says_what_to_change(file: Path, mapping: Mapping, words: str) -> None:
    with pytest.raises(MappingError, match=words):
        list(interactions_of(file, mapping))


def test_missing_input_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(MappingError, match="cannot be read"):
        list(interactions_of(tmp_path / "none.parquet", Mapping(type_constant="click")))


def test_consenting_share_is_deterministic(file: Path) -> None:
    levels = [level_of(f"user-{number}", Choice(0.7, "session")) for number in range(2_000)]
    assert 0.65 < levels.count("session") / len(levels) < 0.75
    assert set(levels) == {"session", "none"}
    assert levels == [level_of(f"user-{number}", Choice(0.7, "session")) for number in range(2_000)]


class Recorder:
    """Replaces the producer and the job: records what was sent, and returns the job's receipts."""

    def __init__(self, silent: bool = False) -> None:
        self.consents: list[ConsentChange] = []
        self.sent: list[tuple[bytes | None, bytes]] = []
        self._silent = silent
        self._receipts: list[Receipt] = []

    def send_consent(self, change: ConsentChange) -> None:
        assert not self.sent, "consents come first"
        self.consents.append(change)
        pseudonym = PSEUDONYMISER.user(change.user_id)
        receipt = ConsentReceipt(
            pseudonym, change.level, version=1, consent_at=NOW, partition=0, offset=0, outcome="in_force", at=NOW
        )
        self._receipts.append(receipt)

    def send_raw_interaction(self, key: bytes | None, payload: bytes) -> None:
        assert not self._receipts, "receipts are waited for"
        self.sent.append((key, payload))

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def abandon(self) -> None:
        pass

    def receive(self) -> list[Receipt]:
        receipts, self._receipts = ([], []) if self._silent else (self._receipts, [])
        return receipts


EMPTY_PRODUCT = SimpleNamespace(
    key_ring=Path("ring"), kafka_settings=lambda: KafkaSettings("nowhere:1"), close=lambda: None, abandon=lambda: None
)


def replay(recorder: Recorder, file: Path, stopped: Callable[[], bool] = lambda: False) -> Any:
    waiter = ConsentWaiter(recorder.receive)
    return Replay(recorder, stopped=stopped).run(file, SHOP, Choice(), waiter, PSEUDONYMISER, NOW)  # type: ignore[arg-type]


def test_consents_are_in_force_before_the_first_row_is_sent(file: Path) -> None:
    recorder = Recorder()
    counts = replay(recorder, file)
    assert [change.user_id for change in recorder.consents] == ["ada", "ben", "eva"]
    assert (counts.consents, counts.interactions, counts.without_user) == (3, 4, 1)
    assert recorder.sent == list(interactions_of(file, SHOP))


def test_file_with_times_in_two_units_sends_no_consent(tmp_path: Path) -> None:
    path, recorder = tmp_path / "shop.csv", Recorder()
    path.write_text("who,what,at,kind,count,price\nada,tea,1714557600,click,,\nada,tea,1714557600000,click,,\n")
    with pytest.raises(MappingError, match=r"column at of shop\.csv are in more than one unit: 17145576"):
        replay(recorder, path)
    assert (recorder.consents, recorder.sent) == ([], [])


def test_replay_reports_reading_choices_and_unsent_rows(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    path.write_bytes(CSV.replace("ada", "josé").encode("cp1252") + b"eva,pot\n")
    assert replay(Recorder(), path).remarks == (
        "shop.csv is not UTF-8: read as Windows-1252",
        f"{UNREAD_TIME}: 1",
        f"{WRONG_WIDTH}: 1",
    )


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("", "there are no rows in shop.csv"),
        ("eva,pot\n", f"1: {WRONG_WIDTH}"),
        ("4.00638E+12,tea,1714557600,click,,\n", f"1: {LOST_DIGITS}"),
        ("ada,tea,1714557600,look,,\nada,pot,1714557600,buy,,\n", "2: unknown kind, such as 'look', 'buy' (kinds are"),
    ],
)
def test_replay_without_usable_rows_sends_nothing_and_says_why(
    tmp_path: Path, rows: str, reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, recorder = tmp_path / "shop.csv", Recorder()
    path.write_text("who,what,at,kind,count,price\n" + rows)
    monkeypatch.setattr("deploy.demo.replay.load_endpoints", lambda path: EMPTY_PRODUCT)
    monkeypatch.setattr("deploy.demo.replay.load_key_ring", lambda path: new_key_ring())
    monkeypatch.setattr("deploy.demo.replay.Producer", lambda kafka, bulk: recorder)
    monkeypatch.setattr(
        "deploy.demo.replay.waiting_for_consents", lambda kafka: nullcontext(ConsentWaiter(recorder.receive))
    )
    assert run(["replay", str(path), "--user", "who", "--item", "what", "--time", "at", "--type", "kind"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("freshet: not done: nothing was sent: ") and reason in told
    assert (recorder.consents, recorder.sent) == ([], [])


def test_remarks_are_printed_after_the_picture(file: Path) -> None:
    feed = FileFeed(Recorder(), "ada", file, SHOP, Choice(), None, KafkaSettings("nowhere:1"), PSEUDONYMISER)  # type: ignore[arg-type]
    feed.finish(ReplayCounts(3, 4, 1, 0.5, (f"{WRONG_WIDTH}: 1",)))
    assert feed.remarks == (f"{WRONG_WIDTH}: 1",)
    assert feed.notice == "all 4 rows sent in 0.5 s; 1 remark(s) at the end"


def test_missing_receipts_are_an_error_with_their_count() -> None:
    with pytest.raises(MissingReceiptsError, match="2 of 2"):
        ConsentWaiter(lambda: []).wait({"p1.a", "p1.b"}, timeout_s=0.01)


def test_options_make_a_mapping_and_change_a_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("shop.csv").touch()
    words = ["replay", "shop.csv", "--preset", "online-retail", "--user-prefix", "c", "--value", "price"]
    seen: list[Mapping] = []

    def replay_file(path: Path, endpoints: Path, mapping: Mapping, *more: Any) -> ReplayCounts:
        seen.append(mapping)
        return ReplayCounts(3, 4, 1, 0.5, ("a remark",))

    monkeypatch.setattr("deploy.demo.replay.replay_file", replay_file)
    assert run(words) == 0
    assert capsys.readouterr().out.endswith("and 3 consents in 0.5 s\na remark\n")
    assert seen == [msgspec.structs.replace(ONLINE_RETAIL, user_prefix="c", value="price")]
    assert run(["replay", "shop.csv", "--preset", "no-such"]) == 2
    assert run(["replay", "shop.csv", "--consent-share", "1.1"]) == 64


def test_partitions_equal_those_chosen_by_kafka_clients() -> None:
    class Cluster:
        def topics(self) -> set[str]:
            return {"t"}

        def partitions_for_topic(self, topic: str) -> set[int]:
            return {0, 1, 2, 3}

        available_partitions_for_topic = partitions_for_topic

    for number in range(200):
        arguments = "t", None, f"user-{number}".encode(), None, b"", Cluster()
        assert KnownKeys().partition(*arguments) == DefaultPartitioner().partition(*arguments)
    assert KnownKeys().partition("t", None, None, None, b"", Cluster()) in {0, 1, 2, 3}


def test_no_consent_is_sent_for_invalid_users(tmp_path: Path) -> None:
    """Otherwise the replay would wait for its receipt, and send no row at all."""
    path = tmp_path / "shop.csv"
    path.write_text(CSV + f"{'x' * 300},pot,2024-05-01T10:00:03Z,click,,\na\u202eb,pot,2024-05-01T10:00:04Z,click,,\n")
    consents = consents_of(path, SHOP, Choice(), NOW)
    assert [change.user_id for change in consents] == ["ada", "ben", "eva"]
    assert len(rows(path, SHOP)) == 6, "what the rows are, the job says"
