"""The job reads what other producers write to its raw topics: codecs, transactions, headers, tombstones."""

import json
import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from jobs.topic_creation import alter_topics
from schemas import topics
from tests.support.live import Live
from tests.support.topics import keep_compressed

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


def producer(live: Live, codec: str, **more: str) -> Producer:
    return Producer({"bootstrap.servers": live.settings.kafka.bootstrap_servers, "compression.type": codec, **more})


def consent(user: str) -> bytes:
    return json.dumps({"user_id": user, "level": "full", "ts": time.time_ns() // 1_000_000}).encode()


@pytest.fixture(scope="module", autouse=True)
def compressed(live: Live) -> Iterator[None]:
    """Keeps batches compressed, as earlier releases did; other tests share the running job."""
    keep_compressed(live.settings.kafka)
    yield
    alter_topics(live.settings.kafka, live.settings.privacy.snapshots_kept_ms)


@pytest.mark.parametrize("codec", CODECS)
def test_consents_and_interactions_work_with_any_compression(live: Live, codec: str):
    committed, plain, aborted = (f"{name}-{codec}" for name in ("committed", "plain", "aborted"))
    consents, interactions = (live.settings.kafka.topic(name) for name in (topics.CONSENTS, topics.INTERACTIONS))
    for user in (aborted, committed):
        transactional = producer(live, codec, **{"transactional.id": user})
        transactional.init_transactions(30)
        transactional.begin_transaction()
        transactional.produce(consents, consent(user), user.encode())
        assert transactional.flush(30) == 0
        if user == aborted:
            transactional.abort_transaction(30)
        else:
            transactional.commit_transaction(30)
    sender = producer(live, codec)
    sender.produce(consents, None, f"nobody-{codec}".encode(), headers=[("trace", b"1"), ("empty", None)])
    sender.produce(consents, consent(plain), plain.encode(), headers=[("trace", b"1")])
    assert sender.flush(30) == 0
    for user in (plain, committed):
        live.wait_for_consent(user)
    for user in (plain, committed, aborted):
        sender.produce(interactions, live.event(user, "item-00003") + b" " * 10_000, None, headers=[("trace", None)])
    assert sender.flush(30) == 0
    for user in (plain, committed):
        assert live.wait_for_version(user, 2).reason == "personalised"
    assert live.list_of(aborted) is None
