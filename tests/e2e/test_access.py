"""The right of access: one document with all data of a person, and an audit record of the read."""

import io
import json

import pytest

from adapters.redis.client import connect
from adapters.schema_sources import codec_of
from freshet.cli.main import run
from privacy.erasure_search import by_topic, in_topics
from schemas import topics
from serving.held_data import Collector, access_command
from tests.support.live import Live, until


def held(live: Live, capsys, user: str) -> dict:
    capsys.readouterr()
    settings = str(live.product.settings_path)
    words = ["access", "--settings", settings, "--user", user, "--role", "officer", "--purpose", "request 1"]
    assert run(words) == 0
    return json.loads(capsys.readouterr().out)


def test_access_returns_all_data_of_one_person_only(live: Live, capsys):
    live.consent(["xena", "yuri"])
    for user in ("xena", "yuri"):
        live.interact(user, "item-00007", session_id=f"session-of-{user}")
        live.wait_for_version(user, 2)
    live.checkpoint()
    mine = live.pseudonymiser.user("xena")
    for name in (topics.EVENTS, topics.AUDIT):
        until(
            lambda name=name: any(mine.encode() in record.value for record in live.records(name)), f"a record in {name}"
        )
    document = held(live, capsys, "xena")
    assert document["pseudonyms"] == [mine]
    assert [item for item, _, _ in document["profile_and_consent"]["profile"]["recents"]] == ["item-00007"]
    assert [entry["record"]["level"] for entry in document["consent_history"]] == ["full"]
    assert [entry["record"]["item_id"] for entry in document["raw_interactions"]] == ["item-00007"]
    assert [entry["record"]["item_id"] for entry in document["clean_events"]] == ["item-00007"]
    assert [entry["record"]["kind"] for entry in document["audit_trail"]] == ["consent"]
    assert document["redis"][live.keys("xena")[0]]["reason"] == "personalised"
    text = json.dumps(document)
    assert "yuri" not in text and live.pseudonymiser.user("yuri") not in text


def test_access_is_recorded_in_the_audit_trail(live: Live, capsys):
    live.consent(["zoe"])
    held(live, capsys, "zoe")
    live.checkpoint()

    def reading():
        mine = live.pseudonymiser.user("zoe").encode()
        return [json.loads(r.value) for r in live.records(topics.AUDIT) if b'"access"' in r.value and mine in r.value]

    [entry] = until(reading, "the reading in the trail")
    assert (entry["role"], entry["purpose"], entry["what"]) == ("officer", "request 1", "profile")


def test_access_of_unknown_user_is_empty(live: Live, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("a-stranger\n"))
    document = held(live, capsys, "-")
    assert document["user_id"] == "a-stranger"
    assert [document[part] for part in ("profile_and_consent", "redis", "consent_history", "clean_events")] == [
        None,
        {},
        [],
        [],
    ]


def send_to_each_partition(live: Live, topic: str, key: bytes | None, values: list[bytes]) -> None:
    producer, name = live.producer(), live.settings.kafka.topic(topic)
    for partition, value in enumerate(values):
        producer.send(name, value, key, partition=partition).get(30)
    producer.close()


def held_by_a_gateway(live: Live, user: str) -> dict:
    client = connect(live.settings.redis)
    try:
        collector = Collector(live.settings.kafka, client, codec_of(live.settings.input), everywhere=False)
        return collector.collect([live.pseudonymiser.user(user)], access_command(user, "officer", "request 2"))
    finally:
        client.close()


def items(document: dict) -> set[str]:
    return {entry["record"]["item_id"] for entry in document["raw_interactions"]}


@pytest.mark.privacy
@pytest.mark.parametrize("key", [None, b'"wren"', b"\0\0\0\0\7\x08wren"])
@pytest.mark.promise("access-finds-all")
def test_access_finds_records_under_other_keys_like_erasure_proof(live: Live, capsys, key):
    """The command reads all partitions, the gateway those to which usual producers write the user's records."""
    user, of_key = "wren", "none" if key is None else key.hex()
    live.consent([user])
    count = held(live, capsys, user)["partitions"]["interactions"]["of"]
    sent = [f"item-{partition:05d}-{of_key}" for partition in range(count)]
    before = in_topics(live.settings, by_topic(codec_of(live.settings.input), user, [], None))
    send_to_each_partition(live, topics.INTERACTIONS, key, [live.event(user, item) for item in sent])
    of_others = live.event("vera", "of-vera", query=f'"{user}"')
    send_to_each_partition(live, topics.INTERACTIONS, b"vera", [of_others])
    after = in_topics(live.settings, by_topic(codec_of(live.settings.input), user, [], None))
    assert after[0][topics.INTERACTIONS].records - before[0][topics.INTERACTIONS].records == count
    document = held(live, capsys, user)
    assert set(sent) <= items(document) and "vera" not in json.dumps(document["raw_interactions"])
    assert len(document["raw_interactions"]) == after[0][topics.INTERACTIONS].records
    bounded = held_by_a_gateway(live, user)
    read = bounded["partitions"]["interactions"]["read"]
    assert len(read) < count and set(sent) & items(bounded) == {sent[partition] for partition in read}


@pytest.mark.privacy
@pytest.mark.promise("access-finds-all")
def test_foreign_record_under_users_key_is_listed_by_position_only(live: Live, capsys):
    live.consent(["ursa"])
    live.send(topics.INTERACTIONS, [(b"ursa", live.event("thea", "item-00001")), (b"ursa", b"{")])
    told = held(live, capsys, "ursa")["raw_interactions"]
    assert ["withheld" in one["record"] for one in told] == [True, False] and "thea" not in json.dumps(told)
    assert items(held(live, capsys, "thea")) == {"item-00001"}
