"""Clients validate what they send: they refuse, with a reason, what the job would reject."""

import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from kafka.errors import KafkaTimeoutError

from adapters.kafka import sender as kafka_sender
from adapters.secrets.key_rings import new_key_ring
from adapters.waiting import until
from schemas.consents import ConsentChange
from schemas.errors import InvalidConsent, InvalidEvent, NotAcknowledged
from schemas.events import Interaction
from schemas.wire.codecs import json_codec
from schemas.wire.consent_records import NAMED_MAX, consents_in
from serving.consents import Consents, read_consent_or_withdrawal
from serving.events import checked_event

pytestmark = pytest.mark.privacy

NOW_MS = time.time_ns() // 1_000_000
DAY_MS = 86_400_000
NOWHERE = "redis://127.0.0.1:1"


@pytest.fixture(scope="module")
def consents() -> Consents:
    kafka = {"bootstrap_servers": "127.0.0.1:1", "bootstrap_timeout_ms": 1, "max_block_ms": 1}
    return Consents(NOWHERE, kafka, new_key_ring(), tombstone_ms=1, clock_ms=lambda: NOW_MS)


@pytest.mark.parametrize(
    ("fields", "reason", "complaint"),
    [
        ({"user_id": ""}, "missing_user", "user_id"),
        ({"user_id": "u\x009"}, "control_character", "user_id"),
        ({"user_id": "\ud800"}, "bad_encoding", "Unicode"),
        ({"level": "full", "ts": NOW_MS + 3_650 * DAY_MS}, "time_in_future", "grant"),
    ],
)
def test_consents_the_job_would_reject_are_not_acknowledged(
    consents: Consents, fields: dict[str, Any], reason: str, complaint: str
) -> None:
    change = ConsentChange(**{"user_id": "ada", "level": "none", "ts": NOW_MS, **fields})
    with pytest.raises(InvalidConsent, match=complaint) as refused:
        consents.record(change)
    assert refused.value.reason == reason


WRONG = [
    ({"ts": NOW_MS // 1_000}, "out_of_range", r"\$\.ts"),
    ({"ts": None}, "wrong_type", r"\$\.ts"),
    ({"method": "x" * 1_000}, "out_of_range", r"\$\.method"),
    ({"notice_version": 7}, "wrong_type", r"\$\.notice_version"),
    ({"granted": ["sell"]}, "out_of_range", "granted"),
    ({"gpp": "x" * 600_000}, "too_large", "524288 bytes"),
]


@pytest.mark.parametrize(("fields", "reason", "complaint"), WRONG)
@pytest.mark.parametrize(
    ("said", "meant"), [({"level": "none"}, True), ({"level": "full", "erase": True}, True), ({"level": "full"}, False)]
)
@pytest.mark.promise("broken-consent-withdraws")
def test_invalid_consent_naming_its_user_is_a_withdrawal_as_in_the_job(
    fields: dict[str, Any], reason: str, complaint: str, said: dict[str, Any], meant: bool
) -> None:
    raw = msgspec.json.encode({"user_id": "ada", "ts": NOW_MS, **said, **fields})
    told = read_consent_or_withdrawal(raw, NOW_MS + 1)
    assert [told.change] == [said.change for said in consents_in(json_codec(), b"ada", raw, NOW_MS + 1)]
    assert told.change.erase is ("erase" in said)
    assert told.invalid is not None and told.meant is meant
    assert told.invalid.reason == reason and re.search(complaint, str(told.invalid))
    assert not {"sell", "xxx", str(NOW_MS // 1_000)} & set(str(told.invalid).split()), "no value is repeated"


WHOLE = b'{"user_id":"ada","level":"%b","ts":' + b"%d}" % NOW_MS
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "byte order mark": lambda raw: b"\xef\xbb\xbf" + raw,
    "byte order mark, cut off": lambda raw: b"\xef\xbb\xbf" + raw[:-1],
    "cut off": lambda raw: raw[:-1],
    "cut off in the middle": lambda raw: raw[:-12],
    "framed": lambda raw: b"\0\0\0\0\1" + raw,
    "UTF-16": lambda raw: raw.decode().encode("utf-16"),
    "an array of one": lambda raw: b"[" + raw + b"]",
    "JSON in a text": lambda raw: msgspec.json.encode(raw.decode()),
    "its level twice": lambda raw: raw[:-1] + b',"level":"full"}',
    "its user twice": lambda raw: raw[:-1] + b',"user_id":"ada"}',
    "an unknown field twice": lambda raw: raw[:-1] + b',"x":1,"x":2}',
    "its level in capitals, too": lambda raw: raw[:-1] + b',"LEVEL":"none"}',
    "denied in camel case": lambda raw: raw[:-1] + b',"Denied":["train"]}',
    "a wrong level twice": lambda raw: raw[:-1] + b',"level":"some"}',
    "deep": lambda raw: raw[:-1] + b',"x":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
}


@pytest.mark.parametrize("level", [b"none", b"full"])
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.promise("broken-consent-withdraws")
def test_damaged_json_withdraws_the_same_users_as_the_job(damage: str, level: bytes) -> None:
    raw = DAMAGES[damage](WHOLE % level)
    told = read_consent_or_withdrawal(raw, NOW_MS)
    assert [told.change] == [said.change for said in consents_in(json_codec(), None, raw, NOW_MS)]
    assert (told.change.user_id, told.change.level, told.meant) == ("ada", "none", False)


@pytest.mark.parametrize("rest", [b'"level":"full"', b'"level":"some"', b'"level":"none"', b'"lev'])
def test_both_users_of_one_change_withdraw(rest: bytes) -> None:
    raw = b'{"user_id":"ada","user_id":"bob",%b,"ts":%d}' % (rest, NOW_MS)
    told = read_consent_or_withdrawal(raw, NOW_MS)
    assert [told.change, *told.others] == [said.change for said in consents_in(json_codec(), None, raw, NOW_MS)]
    assert [change.user_id for change in (told.change, *told.others)] == ["ada", "bob"]
    assert not told.meant


@pytest.mark.parametrize("form", [b'{"user_id":"ada%d"}', b'"user_id":"ada%d"'])
def test_record_that_names_too_many_users_is_refused_whole(form: bytes) -> None:
    for count in (NAMED_MAX, NAMED_MAX + 1):
        raw = b"[" + b",".join(form % number for number in range(count)) + b"]"
        if count == NAMED_MAX:
            assert len(read_consent_or_withdrawal(raw, NOW_MS).others) == NAMED_MAX - 1
            continue
        with pytest.raises(InvalidConsent, match="too many users: nothing is recorded") as refused:
            read_consent_or_withdrawal(raw, NOW_MS)
        assert refused.value.reason == "too_many_users"


def test_unknown_level_is_an_unintended_withdrawal() -> None:
    told = read_consent_or_withdrawal(b'{"user_id":"ada","level":"nein","ts":%d}' % NOW_MS, NOW_MS)
    assert (told.change.level, told.meant) == ("none", False)


def test_withdrawal_with_unknown_field_holds_and_grant_is_ignored() -> None:
    raw = b'{"user_id":"ada","level":"%b","ts":%d,"colour":"red"}'
    assert read_consent_or_withdrawal(raw % (b"none", NOW_MS), NOW_MS).change.level == "none"
    with pytest.raises(InvalidConsent, match="consents have no such field"):
        read_consent_or_withdrawal(raw % (b"full", NOW_MS), NOW_MS)


@pytest.mark.parametrize("raw", [b"", b"[]", b"nonsense", b'{"level":"none"}', b'{"user_id":"a\\n","level":"none"}'])
def test_consent_without_a_user_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidConsent):
        read_consent_or_withdrawal(raw, NOW_MS)


def test_concurrent_sends_share_the_wait_for_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    tried, asked, may_fail = [], [], threading.Event()

    def away(**options: Any) -> None:
        tried.append(options)
        may_fail.wait(30)
        raise KafkaTimeoutError

    def monotonic() -> float:  # every caller reads it first
        asked.append(now_s := time.monotonic())
        return now_s

    monkeypatch.setattr(kafka_sender, "KafkaProducer", away)
    monkeypatch.setattr(kafka_sender, "time", SimpleNamespace(monotonic=monotonic))
    sender = kafka_sender.LazyProducer({})
    with ThreadPoolExecutor(9) as threads:
        asking = [threads.submit(sender.get) for _ in range(8)]
        until(lambda: len(asked) == 8, "all to have asked", 30)
        may_fail.set()
        assert all(isinstance(one.exception(30), KafkaTimeoutError) for one in asking)
    assert len(tried) == 1
    with pytest.raises(KafkaTimeoutError):
        sender.get()
    assert len(tried) == 2, "who comes later tries again"


def test_withdrawal_with_fast_clock_is_accepted(consents: Consents) -> None:
    with pytest.raises(NotAcknowledged):
        consents.record(ConsentChange("ada", "none", NOW_MS + DAY_MS))


@pytest.mark.parametrize(
    ("fields", "reason", "complaint"),
    [
        ({"ts": NOW_MS // 1_000}, "time_too_old", "milliseconds"),
        ({"ts": NOW_MS * 1_000}, "time_in_future", "milliseconds"),
        ({"ts": NOW_MS + DAY_MS}, "time_in_future", "future"),
        ({"value": float("nan")}, "out_of_range", "value"),
        ({"value": float("inf")}, "out_of_range", "value"),
        ({"query": "\udfff"}, "bad_encoding", "Unicode"),
    ],
)
def test_interactions_the_job_would_reject_are_not_sent(fields: dict[str, Any], reason: str, complaint: str) -> None:
    with pytest.raises(InvalidEvent, match=complaint) as refused:
        checked_event(
            Interaction(
                **{"event_id": "e", "type": "click", "ts": NOW_MS, "user_id": "ada", "item_id": "tea", **fields}
            )
        )
    assert refused.value.reason == reason
