"""`freshet map test`, and the account of a topic with records of others."""

import json
from pathlib import Path

import pytest

from freshet.cli.main import run
from freshet.cli.shape import ExitCode
from schemas.consents import Level
from schemas.wire.codec_choice import InputSettings, codec_for
from schemas.wire.map_settings import InputMap
from tests.support.vocabulary import BEGINNING, PSEUDONYMISER
from tests.unit.test_mapping import ORDERED, VIEWED
from udfs.account import Account
from udfs.elements import halves, unpack
from udfs.handover import split
from udfs.ingest import Ingest, RawRecord, TopicNames
from udfs.personalise import Users, apply
from udfs.profile import ProfileBounds
from udfs.state import UserState, encode_state

SETTINGS = """
[kafka]
bootstrap_servers = "nowhere:1"
[redis]
url = "redis://nowhere"
[model]
kind = "online"
"""
MAP = '[input.map]\npreset = "segment"\n'


def tried(folder: Path, text: str, *records: object) -> int:
    (folder / "freshet.toml").write_text(text)
    (folder / "events.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return run(["map", "test", "--settings", str(folder / "freshet.toml"), str(folder / "events.jsonl")])


def test_each_record_is_shown_field_by_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = VIEWED | {"type": "page", "event": None}
    assert tried(tmp_path, SETTINGS + MAP, VIEWED, page, ORDERED) == ExitCode.DONE
    told = capsys.readouterr().out
    assert "record 1: view\n" in told and "    item_id = tea-1\n" in told and "    value = 3.5\n" in told
    assert "record 2: ignored\n" in told
    assert told.count("purchase\n") == 2


def test_rejected_records_and_files_without_interactions_are_findings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tried(tmp_path, SETTINGS + MAP, VIEWED, VIEWED | {"timestamp": "soon"}) == ExitCode.FINDINGS
    assert "record 2: rejected, wrong_type" in capsys.readouterr().out
    assert tried(tmp_path, SETTINGS + MAP, {"type": "page"}) == ExitCode.FINDINGS
    assert tried(tmp_path, SETTINGS, VIEWED) == ExitCode.NOT_DONE
    assert "has no [input.map]" in capsys.readouterr().err


def test_file_that_cannot_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tried(tmp_path, SETTINGS + MAP, VIEWED) == ExitCode.DONE
    words = ["map", "test", "--settings", str(tmp_path / "freshet.toml"), str(tmp_path / "none.jsonl")]
    assert run(words) == ExitCode.NOT_DONE
    assert "none.jsonl cannot be read" in capsys.readouterr().err


def test_wrong_path_is_refused_with_the_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tried(tmp_path, SETTINGS + MAP + 'ts = "a..b"\n', VIEWED) == ExitCode.NOT_DONE
    assert '"a..b" is not a path' in capsys.readouterr().err


def test_account_of_mapped_records_adds_up_to_the_records() -> None:
    codec = codec_for(InputSettings(map=InputMap(preset="segment")), lambda place: None)  # type: ignore[arg-type, return-value]
    ingest = Ingest(TopicNames("i", "c", "k"), codec, PSEUDONYMISER, [100, 101, 102], ())
    bad = {"products": [{"product_id": "tea-1"}, {"name": "no id"}]}
    records = [
        VIEWED,
        VIEWED,
        VIEWED | {"messageId": "2", "userId": "bob"},
        VIEWED | {"type": "page", "event": None},
        ORDERED | {"messageId": "3"},
        ORDERED | {"messageId": "4", "properties": bad},
        VIEWED | {"messageId": "5", "timestamp": "soon"},
        "no object",
    ]
    raws = [
        RawRecord("i", 0, offset, BEGINNING + 2**40 + offset, None, json.dumps(record).encode())
        for offset, record in enumerate(records)
    ]
    elements = [unpack(raw) for _, raw in ingest.pack(raws)]
    at = BEGINNING + 2**40 + 4
    by_time = [part for element in elements for part in split(element, at) if part is not None]
    by_number = [part for element in elements for part in (halves(element) or [element])]
    state = encode_state(UserState(level=Level.FULL, purposes=255))
    for parts in (elements, by_time, by_number):
        account, users = Account(), Users({PSEUDONYMISER.user("ada"): state}.get)
        for part in parts:
            apply(part, users, account, ProfileBounds(), "i")
        assert (account.ignored, account.extra, account.sent) == (1, 2, len(records))
        assert account.rejected == {"missing_item": 1, "wrong_type": 2}
        assert (account.accepted, account.duplicates, account.denied) == (4, 1, 1)
