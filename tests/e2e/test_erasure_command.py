"""Erasure by command on real parts: events without the user, and a proof that finds leftovers."""

import io
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kafka import KafkaProducer, TopicPartition

from adapters.kafka import settled_topic
from adapters.kafka.settled_topic import settled, settled_ends
from freshet.cli.main import run
from jobs.savepoints import take_savepoint
from jobs.settings import Settings
from jobs.topic_creation import create_topics
from privacy import rewrite_events as rewriting
from privacy.erasure import Where, verify
from privacy.erasure_search import in_files
from privacy.export import export, rewrite
from privacy.purge_consents import purge_consents
from privacy.rewrite_events import EventsRewrite, copied_from, rewrite_events
from schemas import topics
from schemas.errors import JobSilent
from schemas.receipts import ErasureReceipt, decode_receipt
from tests.support.live import Live, until

ITEMS = [f"item-{number:05d}" for number in range(1, 60)]


def quiet(line: str) -> None:
    pass


def shop(live: Live, *users: str, times: int = 6) -> None:
    """Interactions of `users` in turn, until published; over several checkpoints, hence in all partitions."""
    before = {user: len(events_of(live, user)) for user in users}
    for number in range(times):
        for user in users:
            live.interact(user, ITEMS[number])
        if number % 2:
            live.checkpoint()
    until(lambda: all(len(events_of(live, u)) == before[u] + times for u in users), "clean events")


def events_of(live: Live, user: str) -> list[Any]:
    mine = f'"{live.pseudonymiser.user(user)}"'.encode()
    return [record for record in live.records(topics.EVENTS) if mine in record.value]


def erase(live: Live, user: str) -> None:
    live.consent([user], level="none", erase=True)


def looked(live: Live, user: str, **more: Any) -> ErasureReceipt:
    places = {"flink": live.product.endpoints["flink"], **more}
    return verify(live.settings, user, Where(**places), quiet)


def hashes_of(live: Live) -> Counter[str]:
    """How often each event is in `events`, by hash and user."""
    found = (json.loads(record.value) for record in live.records(topics.EVENTS))
    return Counter(event["event"] + event["pseudonym"] for event in found)


def in_order(live: Live) -> bool:
    """Whether the copies in each partition are in the order of their originals."""
    last: dict[int, int] = {}
    for record in live.records(topics.EVENTS):
        offset = copied_from(record.headers)
        if offset is not None:
            if offset <= last.get(record.partition, -1):
                return False
            last[record.partition] = offset
    return True


class Interrupted(Exception):  # noqa: N818 - not an error
    pass


def all_erased(live: Live) -> set[str]:
    """All erased users: other tests on this stack also erase users."""
    told = [json.loads(r.value) for r in live.records(topics.CONSENTS) if r.value]
    return {live.pseudonymiser.user(change["user_id"]) for change in told if change.get("erase")}


@pytest.mark.promise("erasure-rewrite")
def test_interrupted_rewrite_removes_erased_users_and_keeps_others_once(live: Live, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rewriting, "TRANSACTION_RECORDS_MAX", 2)
    live.consent(["abe-of-erasure", "bea-of-erasure", "cai-of-erasure"])
    shop(live, "abe-of-erasure", "bea-of-erasure", "cai-of-erasure")
    erase(live, "abe-of-erasure")
    gone = live.pseudonymiser.user("abe-of-erasure")
    before = hashes_of(live)
    first = EventsRewrite(live.settings)
    steps = {partition: found for partition in first.ends if (found := first.plan(partition))}
    partition, its_steps = next(iter(steps.items()))
    commit = first._commit

    def commit_and_end(*records: Any) -> None:
        commit(*records)
        raise Interrupted

    monkeypatch.setattr(first, "_commit", commit_and_end)
    with pytest.raises(Interrupted):
        first.copy(partition, its_steps)
    first.close()
    shop(live, "bea-of-erasure", times=2)

    second = EventsRewrite(live.settings)
    for partition in second.ends:
        if its_steps := second.plan(partition):
            second.copy(partition, its_steps)
    second.close()
    assert sum(hashes_of(live).values()) > sum(before.values()), "copied, and not yet cut"
    erase(live, "cai-of-erasure")

    said: list[str] = []
    done = rewrite_events(live.settings, said.append)
    told = [line for line in said if line.startswith("partition ")]
    assert len({line.partition(":")[0] for line in told}) == len(told) == done.partitions, "each once"
    left, erased = hashes_of(live), tuple(all_erased(live))
    also_gone = live.pseudonymiser.user("cai-of-erasure")
    assert done.removed > 0 and set(left.values()) == {1}
    assert not [one for one in left if one.endswith((gone, also_gone))]
    removed = set(before) - set(left)
    assert {one for one in before if one.endswith((gone, also_gone))} <= removed
    assert all(one.endswith(erased) for one in removed), "others on this stack may have consented again since"
    assert len(events_of(live, "bea-of-erasure")) == 8 and in_order(live)
    assert rewrite_events(live.settings, quiet) == (0, 0, 0, 0)


def test_events_after_new_consent_survive_the_rewrite(live: Live):
    live.consent(["dov-of-erasure"])
    shop(live, "dov-of-erasure")
    erase(live, "dov-of-erasure")
    live.consent(["dov-of-erasure"])
    shop(live, "dov-of-erasure", times=2)
    assert looked(live, "dov-of-erasure").status == "incomplete"
    rewrite_events(live.settings, quiet)
    assert len(events_of(live, "dov-of-erasure")) == 2
    receipt = looked(live, "dov-of-erasure")
    assert (receipt.status, receipt.found["events"]) == ("returned", 0)


def test_verify_command_proves_erasure_without_showing_the_user_id(
    live: Live, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    live.consent(["eva-of-proof"])
    shop(live, "eva-of-proof")
    live.wait_for_version("eva-of-proof", 2)
    erase(live, "eva-of-proof")
    rewrite_events(live.settings, quiet)
    command = [
        "erase",
        "verify",
        "--settings",
        str(live.product.settings_path),
        "--user",
        "-",
        "--work-dir",
        str(tmp_path),
    ]
    monkeypatch.setattr(sys, "stdin", io.StringIO("eva-of-proof\n"))
    assert run([*command, "--flink", live.product.endpoints["flink"]]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    mine = live.pseudonymiser.user("eva-of-proof")
    assert (told["kind"], told["pseudonym"], told["status"]) == ("erasure", mine, "effective")
    assert told["found"]["interactions"] == 6 and told["found"]["redis.gone"] == 1 and told["found"]["savepoint"] == 0
    assert told["ends_by"]["interactions"] > told["checked_at"] + 2 * topics.DAY_MS
    assert "eva-of-proof" not in out + err and "interactions: 6" in err
    receipts = [decode_receipt(record.value) for record in live.records(topics.RECEIPTS)]
    [written] = [r for r in receipts if isinstance(r, ErasureReceipt) and r.pseudonym == mine]
    assert written.status == "effective"
    assert list(tmp_path.iterdir()) == [], "the savepoint is deleted"
    canaries = [r.key.decode() for r in live.records(topics.CONSENTS) if r.key.startswith(b"freshet-canary-")]
    assert live.states(canaries) == {}
    assert not any(live.redis.exists(*live.keys(canary)[:2]) for canary in canaries)
    assert rewrite_events(live.settings, quiet) == (0, 0, 0, 0), "a canary sets off no rewrite"


@pytest.mark.promise("erasure-rewrite")
def test_verify_finds_and_names_leftovers(live: Live):
    live.consent(["fay-of-erasure"])
    shop(live, "fay-of-erasure", times=2)
    assert in_savepoint(live, "fay-of-erasure") > 0, "the same search finds a user who is there"
    erase(live, "fay-of-erasure")
    name = live.pseudonymiser.user("fay-of-erasure")
    rewrite_events(live.settings, quiet)
    assert looked(live, "fay-of-erasure").status == "effective"
    list_key, _, gone_key = live.keys("fay-of-erasure")
    live.redis.set(list_key, b"{}", ex=300)
    live.redis.set("popular:by-hand", name, ex=300)
    by_hand = json.dumps({"pseudonym": name, "event": "00", "type": "view", "ts": 1, "purposes": []}).encode()
    live.send(topics.EVENTS, [(None, by_hand)])
    receipt = looked(live, "fay-of-erasure")
    assert receipt.status == "incomplete"
    assert receipt.missing == ["redis.list: 1", "redis.elsewhere: 1", "events: 1"]
    live.redis.delete(list_key, "popular:by-hand")
    tombstone = live.redis.get(gone_key)
    live.redis.delete(gone_key)
    rewrite_events(live.settings, quiet)
    assert [reason.partition(":")[0] for reason in looked(live, "fay-of-erasure").missing] == ["redis.gone"]
    live.redis.set(gone_key, tombstone, ex=3600)
    assert looked(live, "fay-of-erasure").status == "effective"


def in_savepoint(live: Live, user: str) -> int:
    folder = take_savepoint(live.product.endpoints["flink"], live.settings.job.name, live.stack.directory, 60)
    return in_files(folder, [live.pseudonymiser.user(user)])[0]


def test_search_without_canary_proves_nothing(live: Live, tmp_path: Path):
    live.consent(["gus-of-erasure", "hal-of-erasure"])
    erase(live, "gus-of-erasure")
    folder = take_savepoint(live.product.endpoints["flink"], live.settings.job.name, tmp_path, 60)
    assert looked(live, "gus-of-erasure", savepoint=folder, flink=None).status == "effective", "others bear witness"
    (tmp_path / "blind").mkdir()
    (tmp_path / "blind" / "_metadata").touch()
    blind = looked(live, "gus-of-erasure", savepoint=tmp_path / "blind", flink=None)
    assert (blind.status, blind.planted) == ("not_proved", False)
    arguments = [
        "--settings",
        str(live.product.settings_path),
        "--user",
        "gus-of-erasure",
        "--savepoint",
        str(tmp_path / "blind"),
    ]
    assert run(["erase", "verify", *arguments]) == 2


def test_erasure_is_complete_without_older_snapshots(live: Live, tmp_path: Path):
    live.consent(["ida-of-erasure"])
    erase(live, "ida-of-erasure")
    snapshot = tmp_path / "chk-7" / "_metadata"
    snapshot.parent.mkdir()
    snapshot.touch()
    older = looked(live, "ida-of-erasure", snapshots=[tmp_path])
    assert older.missing == ["snapshots: 1 may be from before the erasure"]
    assert older.status == "effective"
    later_s = snapshot.stat().st_mtime + topics.HOUR_MS / 1000
    os.utime(snapshot, (later_s, later_s))
    assert looked(live, "ida-of-erasure", snapshots=[tmp_path]).status == "complete"
    assert looked(live, "ida-of-erasure").status == "effective", "snapshots may be kept for days"


def test_verify_names_exports_holding_the_user(live: Live, tmp_path: Path):
    live.consent(["jon-of-erasure"])
    shop(live, "jon-of-erasure", times=2)
    export(live.settings, tmp_path / "export", "measure")
    erase(live, "jon-of-erasure")
    rewrite_events(live.settings, quiet)
    assert looked(live, "jon-of-erasure", exports=[tmp_path / "export"]).missing == ["exports: 2"]
    rewrite(live.settings, tmp_path / "export")
    assert looked(live, "jon-of-erasure", exports=[tmp_path / "export"]).status == "effective"


def test_verify_refuses_user_who_was_never_erased(live: Live, capsys: pytest.CaptureFixture[str]):
    arguments = [
        "--settings",
        str(live.product.settings_path),
        "--user",
        "kim-of-erasure",
        "--flink",
        live.product.endpoints["flink"],
    ]
    assert run(["erase", "verify", *arguments]) == 2
    assert "has no erasure of this user" in capsys.readouterr().err


def test_uncommitted_records_are_awaited(live: Live, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(settled_topic, "STUCK_S", 1.0)
    writer = KafkaProducer(bootstrap_servers=live.settings.kafka.bootstrap_servers, transactional_id="a-slow-writer")
    writer.init_transactions()
    writer.begin_transaction()
    sent = writer.send(live.settings.kafka.topic(topics.EVENTS), b'{"pseudonym":"p1.nobody"}', partition=0)
    place = sent.get(30)
    partition = TopicPartition(place.topic, 0)
    try:
        ends = {partition: settled_ends(live.settings.kafka, topics.EVENTS)[partition]}
        assert ends[partition] > place.offset
        with pytest.raises(JobSilent, match="has been open"):
            list(settled(live.settings.kafka, ends))
    finally:
        writer.commit_transaction()
        writer.close()
    monkeypatch.undo()
    assert place.offset in [record.offset for record in settled(live.settings.kafka, ends)]


def test_reading_continues_after_deleted_beginning(live: Live):
    live.consent(["lea-of-erasure", "moe-of-erasure"])
    shop(live, "lea-of-erasure", "moe-of-erasure", times=2)
    erase(live, "lea-of-erasure")
    rewrite_events(live.settings, quiet)
    ends = settled_ends(live.settings.kafka, topics.EVENTS)
    stand = Counter(record.partition for record in live.records(topics.EVENTS))
    for partition, end in ends.items():
        read = list(settled(live.settings.kafka, {partition: end}, begin=0))
        assert len(read) == stand[partition.partition]


def with_topics_of_its_own(live: Live) -> Settings:
    settings = live.settings
    settings = msgspec.structs.replace(settings, kafka=msgspec.structs.replace(settings.kafka, topic_prefix="purged."))
    create_topics(settings.kafka, raw_partitions=2, replicas=1)
    return settings


def test_purge_removes_users_with_expired_tombstones(live: Live):
    settings = with_topics_of_its_own(live)
    erasure = {"level": "none", "ts": topics.DAY_MS * 20_000, "erase": True}
    says = {"uma": erasure, "vic": erasure | {"erase": False}, "wil": erasure}
    producer = live.producer()
    consents, events = settings.kafka.topic(topics.CONSENTS), settings.kafka.topic(topics.EVENTS)
    for user in says:
        clean = json.dumps({"pseudonym": live.pseudonymiser.user(user), "event": "00", "purposes": ["train"]})
        producer.send(events, clean.encode(), partition=0)
    for user, said in says.items():
        record = json.dumps({"user_id": user, **said}).encode()
        key = b"not-wil" if user == "wil" else user.encode()
        at = producer.send(consents, record, key, partition=1).get(30).timestamp
    told: list[str] = []
    assert purge_consents(settings, told.append, at) == 0, "as long as a tombstone stands"
    assert purge_consents(settings, told.append, at + settings.tombstone_ms() + 1) == 1
    assert "users kept: 1" in told[-1] and "uma" not in "".join(told)
    left = {
        record.key: record.value for record in settled(settings.kafka, settled_ends(settings.kafka, topics.CONSENTS))
    }
    assert left[b"uma"] is None and left[b"vic"] is not None and left[b"not-wil"] is not None
    stay = [json.loads(record.value) for record in settled(settings.kafka, settled_ends(settings.kafka, topics.EVENTS))]
    assert [event["pseudonym"] for event in stay] == [live.pseudonymiser.user("vic")]
    assert purge_consents(settings, told.append, at + settings.tombstone_ms() + 1) == 0, "twice is as good as once"
