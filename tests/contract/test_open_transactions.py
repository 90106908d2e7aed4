"""Before a job starts with empty state, what the job before left open ends, and nothing else."""

from collections.abc import Iterator
from typing import Any

import pytest
from kafka import KafkaProducer

from adapters.kafka.reading import records
from adapters.kafka.settings import KafkaSettings
from jobs.open_transactions import EXACTLY_ONCE, end_transactions_left_open, transactional_prefix
from schemas import topics
from tests.support.kafka import running_kafka, with_topics_of_its_own

WEEK_MS = 7 * topics.DAY_MS


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaSettings]:
    with running_kafka(tmp_path_factory.mktemp("kafka") / "kafka") as settings:
        yield settings


def left_open(kafka: KafkaSettings, transactional_id: str, topic: str) -> Any:
    """A producer that has written a record in a transaction, and hangs."""
    producer = KafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers, transactional_id=transactional_id, transaction_timeout_ms=WEEK_MS
    )
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(kafka.topic(topic), b"of the job before").get(30)
    return producer


def test_only_the_sinks_of_this_job_are_ended(broker: KafkaSettings) -> None:
    kafka, other = with_topics_of_its_own(broker), with_topics_of_its_own(broker)
    ids = [f"{transactional_prefix(kafka, topic)}-0-{number}" for topic in EXACTLY_ONCE for number in (7, 9)]
    producers = [left_open(kafka, each, topics.AUDIT) for each in ids]
    kept = [
        left_open(kafka, f"{kafka.group()}-rewrite-events", topics.EVENTS),
        left_open(other, f"{transactional_prefix(other, topics.AUDIT)}-0-7", topics.AUDIT),
    ]
    with KafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as plain:
        plain.send(kafka.topic(topics.AUDIT), b"later", partition=0).get(30)
    assert list(records(kafka, topics.AUDIT)) == [], "readers of committed records wait behind them"
    assert end_transactions_left_open(kafka) == sorted(ids)
    assert [record.value for record in records(kafka, topics.AUDIT)] == [b"later"]
    assert end_transactions_left_open(kafka) == []
    for producer in kept:
        producer.commit_transaction()
    for producer in [*producers, *kept]:
        producer.close(timeout=1)
