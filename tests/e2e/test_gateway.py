"""The gateway on the whole journey: posted events change the list, and withdrawn consent ends it."""

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from adapters.kafka.settings import python_kafka_options
from schemas import topics
from schemas.catalogue import CatalogueItem
from schemas.errors import InvalidEvent
from schemas.events import Interaction
from schemas.receipts import ConsentReceipt, decode_receipt
from serving.events import EventProducer
from tests.support.gateway import RunningGateway
from tests.support.live import Live, until

ITEMS = [f"item-{number:05d}" for number in range(1, 60)]


@pytest.fixture(scope="module")
def gateway(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    gateway = RunningGateway(
        tmp_path_factory.mktemp("gateway"),
        live.product.endpoints["redis"],
        live.settings.kafka.bootstrap_servers,
        "[audit]\nshare = 1.0\nevery_s = 0.2\n",
        default=str(live.settings.tenant),
    )
    yield gateway
    assert gateway.close() == 0


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def an_event(user: str, item: str, number: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "event_id": f"{user}-{item}-{number}", "type": "click", "ts": now_ms(), "user_id": user, "item_id": item, **more
    }  # fmt: skip


def consent(live: Live, gateway: RunningGateway, user: str, level: str = "full", **more: Any) -> None:
    """Record a consent over HTTP, and wait until it is in force."""
    change = {"user_id": user, "level": level, "ts": now_ms(), **more}
    answer = gateway.ask("POST", "/v1/consent", "producer", json=change)
    assert answer.status_code == 200
    place = answer.json()["partition"], answer.json()["offset"]
    until(lambda: place in receipts(live), "the receipt of a consent")


def receipts(live: Live) -> set[tuple[int, int]]:
    found = (decode_receipt(record.value) for record in live.records(topics.RECEIPTS))
    return {(one.partition, one.offset) for one in found if isinstance(one, ConsentReceipt)}


def collected(gateway: RunningGateway, user: str) -> dict[str, Any]:
    """All data about a user, once it has been collected."""
    asked = gateway.ask("GET", f"/v1/users/{user}/data?purpose=request+47", "privacy")
    assert asked.status_code == 202

    def answer() -> Any:
        found = gateway.ask("GET", asked.headers["location"], "privacy")
        assert found.status_code in (200, 202), found.text
        return found.json() if found.status_code == 200 else None

    held: dict[str, Any] = until(answer, "what is held", pause_s=0.5)
    return held


def reason(gateway: RunningGateway, user: str) -> str:
    return gateway.get(f"/v1/recommendations/{user}").json()["reason"]


def test_posted_events_produce_a_list_until_withdrawal(live: Live, gateway: RunningGateway) -> None:
    consent(live, gateway, "gil-of-gateway")
    assert reason(gateway, "gil-of-gateway") == "popular"
    posted = gateway.ask("POST", "/v1/events", "producer", json=an_event("gil-of-gateway", ITEMS[0]))
    assert (posted.status_code, posted.json()["status"]) == (202, "accepted")
    until(lambda: reason(gateway, "gil-of-gateway") == "personalised", "a list")
    none = {"user_id": "gil-of-gateway", "level": "none", "ts": now_ms()}
    assert gateway.ask("POST", "/v1/consent", "privacy", json=none).status_code == 200
    assert reason(gateway, "gil-of-gateway") == "popular", "at once"
    late = {"user_id": "gil-of-gateway", "level": "full", "ts": now_ms() - 60_000}
    refused = gateway.ask("POST", "/v1/consent", "producer", json=late)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:freshet:problem:older-than-withdrawal")


def test_broken_consent_withdraws_and_sender_gets_the_reason(live: Live, gateway: RunningGateway) -> None:
    for user, level, status in (("ike-of-gateway", "none", 200), ("jan-of-gateway", "full", 400)):
        consent(live, gateway, user)
        gateway.ask("POST", "/v1/events", "producer", json=an_event(user, ITEMS[0]))
        until(lambda user=user: reason(gateway, user) == "personalised", "a list")
        broken = {"user_id": user, "level": level, "ts": now_ms(), "notice_version": 7}
        answer = gateway.ask("POST", "/v1/consent", "privacy", json=broken)
        told = answer.json()
        assert (answer.status_code, told["reason"]) == (status, "wrong_type")
        assert told.get("counted_as") == ("withdrawal" if status == 200 else None)
        assert reason(gateway, user) == "popular", "at once"


def test_events_of_a_batch_are_validated_one_by_one(live: Live, gateway: RunningGateway) -> None:
    consent(live, gateway, "hux-of-gateway")
    batch = [an_event("hux-of-gateway", ITEMS[place], place) for place in range(3)]
    batch[1]["item_id"] = None
    answer = gateway.ask("POST", "/v1/events", "producer", json=batch)
    told = answer.json()
    assert (answer.status_code, told["accepted"], told["rejected"]) == (202, 2, 1)
    assert [one["status"] for one in told["results"]] == ["accepted", "rejected", "accepted"]
    assert told["results"][1]["reason"] == "missing_item"
    live.wait_for_version("hux-of-gateway", 3)
    stored = [record for record in live.records(topics.INTERACTIONS) if record.key == b"hux-of-gateway"]
    assert len({record.partition for record in stored}) == 1, "keyed by user"
    assert {(r.partition, r.offset) for r in stored} == {
        (one["partition"], one["offset"]) for one in told["results"] if one["status"] == "accepted"
    }


def test_erasure_and_access_over_http(live: Live, gateway: RunningGateway) -> None:
    consent(live, gateway, "ivy-of-gateway")
    gateway.ask("POST", "/v1/events", "producer", json=an_event("ivy-of-gateway", ITEMS[1]))
    until(lambda: reason(gateway, "ivy-of-gateway") == "personalised", "a list")
    refused = gateway.ask("GET", "/v1/users/ivy-of-gateway/data", "privacy")
    assert refused.status_code == 400, "nobody reads it without saying what for"
    held = collected(gateway, "ivy-of-gateway")
    assert held["profile_and_consent"]["profile"]["recents"] and len(held["raw_interactions"]) == 1
    assert [record["record"]["level"] for record in held["consent_history"]] == ["full"]
    for topic in ("consents", "interactions"):
        assert len(held["partitions"][topic]["read"]) < held["partitions"][topic]["of"], "not the whole topic"
    asked = gateway.ask("GET", "/v1/users/ivy-of-gateway/data?purpose=request+48", "privacy").headers["location"]
    until(lambda: gateway.ask("GET", asked, "privacy").status_code == 200, "what is held", pause_s=0.5)
    assert gateway.ask("DELETE", "/v1/users/ivy-of-gateway", "privacy").status_code == 200
    gone = gateway.ask("GET", asked, "privacy")
    assert (gone.status_code, gone.json()["type"]) == (410, "urn:freshet:problem:not-collected"), "erased is erased"
    assert reason(gateway, "ivy-of-gateway") == "popular"
    until(lambda: not live.states(["ivy-of-gateway"]), "an erased state")


@pytest.mark.parametrize("user", ["👩‍👩‍👧‍👦-of-gateway", "می‌روم-of-gateway", "no\u00a0break-of-gateway"])
def test_user_ids_of_any_script_work_end_to_end(live: Live, gateway: RunningGateway, user: str) -> None:
    """In HTTP bodies and paths, in keys of Kafka and Redis, in the audit trail, and in documents for access."""
    consent(live, gateway, user)
    posted = gateway.ask("POST", "/v1/events", "producer", json=an_event(user, ITEMS[0]))
    assert (posted.status_code, posted.json()["status"]) == (202, "accepted")
    path = quote(user, safe="")
    until(lambda: reason(gateway, path) == "personalised", "a list")
    held = collected(gateway, path)
    assert [one["record"]["user_id"] for one in held["raw_interactions"]] == [user]
    name = live.pseudonymiser.user(user).encode()
    until(lambda: (live.checkpoint(), any(name in r.value for r in live.records(topics.AUDIT)))[1], "the audit trail")
    assert gateway.ask("DELETE", f"/v1/users/{path}", "privacy").status_code == 200
    assert reason(gateway, path) == "popular"
    until(lambda: not live.states([user]), "an erased state")


def test_filters_follow_the_catalogue(live: Live, gateway: RunningGateway) -> None:
    consent(live, gateway, "mia-of-gateway")
    gateway.ask("POST", "/v1/events", "producer", json=an_event("mia-of-gateway", ITEMS[4]))
    until(lambda: reason(gateway, "mia-of-gateway") == "personalised", "a list")

    def shown(query: str) -> list[str]:
        answer = gateway.get(f"/v1/recommendations/mia-of-gateway?{query}")
        return [item["id"] for item in answer.json()["items"]]

    first, second, *rest = shown("n=100")
    told = [CatalogueItem(first, "a", "tea"), CatalogueItem(second, "b", "tea")]
    live.send(topics.CATALOGUE, [(item.item_id.encode(), msgspec.json.encode(item)) for item in told])
    until(lambda: shown("n=100&category=tea") == [first, second], "what the catalogue says")
    assert shown("n=100") == [first, second, *rest], "items missing from the catalogue are available"
    assert shown(f"n=100&category=tea&exclude={second}&exclude={first}") == [], "only what was asked for"
    withdrawn = msgspec.json.encode(CatalogueItem(first, "a", "tea", available=False))
    live.send(topics.CATALOGUE, [(first.encode(), withdrawn)])
    until(lambda: shown("n=100") == [second, *rest], "a list without the withdrawn item")
    assert shown("n=100&category=tea") == [second] and shown("n=1") == [second], "filtered first, then cut"
    live.send(topics.CATALOGUE, [(item.item_id.encode(), None) for item in told])
    until(lambda: shown("n=100") == [first, second, *rest], "what is in no catalogue any more")


def test_gateway_reads_are_audited_by_role_and_purpose(live: Live, gateway: RunningGateway) -> None:
    consent(live, gateway, "jed-of-gateway")
    gateway.ask("POST", "/v1/events", "producer", json=an_event("jed-of-gateway", ITEMS[2]))
    until(lambda: reason(gateway, "jed-of-gateway") == "personalised", "a list")
    name = live.pseudonymiser.user("jed-of-gateway")

    def told() -> bool:
        live.checkpoint()
        trail = [record.value for record in live.records(topics.AUDIT)]
        return any(b'"kind":"access"' in v and name.encode() in v and b'"frontend"' in v for v in trail)

    until(told, "the read in the audit trail")


def test_transactional_producer_is_all_or_nothing(live: Live) -> None:
    kafka = python_kafka_options(live.settings.kafka)
    event = Interaction("kay-1", "click", now_ms(), "kay-of-gateway", item_id=ITEMS[3])
    wrong = Interaction("kay-2", "click", now_ms(), "kay-of-gateway")
    with EventProducer(kafka, topic_prefix=live.settings.kafka.topic_prefix, transactional_id="kay") as events:
        with pytest.raises(InvalidEvent, match="item_id"):
            events.record_all([event, wrong])
        [first, second] = events.record_all([event, event])
        assert second.offset > first.offset
    with EventProducer(kafka, topic_prefix=live.settings.kafka.topic_prefix) as events:
        sent = events.send(event)
    assert sent.result(30).partition == first.partition, "sent when the producer was closed"
    mine = [record for record in live.records(topics.INTERACTIONS) if record.key == b"kay-of-gateway"]
    assert len(mine) == 3


def test_uncommitted_transaction_is_not_read(live: Live) -> None:
    kafka = python_kafka_options(live.settings.kafka)
    producer = EventProducer(kafka, topic_prefix=live.settings.kafka.topic_prefix, transactional_id="lee")
    event = Interaction("lee-1", "click", now_ms(), "lee-of-gateway", item_id=ITEMS[4])
    inner = producer._producer.get()
    inner.begin_transaction()
    at = inner.send(live.settings.kafka.topic(topics.INTERACTIONS), b"{}", b"lee-of-gateway").get(30)
    inner.abort_transaction()
    producer.record_all([event])
    producer.close()
    mine = [record for record in live.records(topics.INTERACTIONS) if record.key == b"lee-of-gateway"]
    assert len(mine) == 1 and mine[0].offset > at.offset
