"""What frontends send is judged before it is sent: whatever the job would not take is refused, and says why."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from kafka.errors import KafkaTimeoutError

from deploy.local.waiting import until
from schemas.consents import ConsentChange
from schemas.errors import InvalidConsent, InvalidEvent, NotAcknowledged
from schemas.events import Interaction
from schemas.pseudonyms import new_key_ring
from serving import kafka_sender
from serving.consents import Consents
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
        ({"ts": NOW_MS // 1_000}, "out_of_range", r"\$\.ts"),
        ({"ts": NOW_MS // 1_000, "erase": True}, "out_of_range", r"\$\.ts"),
        ({"method": "x" * 1_000}, "out_of_range", r"\$\.method"),
        ({"level": "nein"}, "out_of_range", r"\$\.level"),
        ({"gpp": "x" * 600_000}, "too_large", "524288 bytes"),
        ({"user_id": ""}, "missing_user", "user_id"),
        ({"user_id": "u\x009"}, "control_character", "user_id"),
        ({"user_id": "\ud800"}, "bad_encoding", "Unicode"),
        ({"level": "full", "ts": NOW_MS + 3_650 * DAY_MS}, "time_in_future", "grant"),
    ],
)
def test_no_consent_is_acknowledged_that_the_job_would_not_take(
    consents: Consents, fields: dict[str, Any], reason: str, complaint: str
) -> None:
    change = ConsentChange(**{"user_id": "ada", "level": "none", "ts": NOW_MS, **fields})
    with pytest.raises(InvalidConsent, match=complaint) as refused:
        consents.record(change)
    assert refused.value.reason == reason
    assert not {"nein", "xxx", str(NOW_MS // 1_000)} & set(str(refused.value).split()), "no value is repeated"


def test_many_wait_together_for_a_kafka_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    tried, asked, may_fail = [], [], threading.Event()

    def away(**options: Any) -> None:
        tried.append(options)
        may_fail.wait(30)
        raise KafkaTimeoutError

    def monotonic() -> float:  # looked at by whoever asks, first of all
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


def test_a_withdrawal_by_a_clock_that_runs_ahead_is_not_refused(consents: Consents) -> None:
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
def test_no_interaction_is_sent_that_the_job_would_not_take(
    fields: dict[str, Any], reason: str, complaint: str
) -> None:
    with pytest.raises(InvalidEvent, match=complaint) as refused:
        checked_event(
            Interaction(
                **{"event_id": "e", "type": "click", "ts": NOW_MS, "user_id": "ada", "item_id": "tea", **fields}
            )
        )
    assert refused.value.reason == reason
