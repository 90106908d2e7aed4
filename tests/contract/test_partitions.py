"""The partitions to which other producers write a user's records, and that a search reads them."""

from collections.abc import Iterator

import pytest
from confluent_kafka import Producer
from kafka import KafkaProducer

from adapters.kafka.partitions import likely_partitions
from adapters.kafka.reading import TopicAsOfNow
from adapters.kafka.settings import KafkaSettings
from schemas import topics
from schemas.progress import on_progress
from tests.support.kafka import running_kafka, with_topics_of_its_own

USERS = [f"user-{number}" for number in range(200)] + ["", "ä", "a b", "x" * 256]
LIBRDKAFKA = ("consistent", "consistent_random", "murmur2", "murmur2_random", "fnv1a", "fnv1a_random")


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaSettings]:
    with running_kafka(tmp_path_factory.mktemp("kafka")) as settings:
        yield settings


def stood_in(kafka: KafkaSettings) -> dict[bytes, int]:
    """The partition of each key; asserts that there are several."""
    reading = TopicAsOfNow(kafka, topics.INTERACTIONS)
    found = {record.key: record.partition for record in reading}
    assert set(found.values()) == set(range(reading.count)) and reading.count > 1
    return found


def test_reading_reports_progress_until_its_end(kafka: KafkaSettings) -> None:
    fresh = with_topics_of_its_own(kafka)
    producer = KafkaProducer(bootstrap_servers=fresh.bootstrap_servers)
    for number in range(5_000):
        producer.send(fresh.topic(topics.INTERACTIONS), b"x" * 1_000, b"user-%d" % number)
    producer.close()
    told: list[tuple[str, float]] = []
    before = on_progress.set(lambda work, done: told.append((work, done)))
    try:
        assert len(list(TopicAsOfNow(fresh, topics.INTERACTIONS))) == 5_000
    finally:
        on_progress.reset(before)
    parts = [done for _, done in told]
    assert {work for work, _ in told} == {f"reading {fresh.topic(topics.INTERACTIONS)}"}
    assert parts == sorted(parts) and parts[0] == 0 and parts[-1] == 1 and len(parts) > 2


@pytest.mark.parametrize("partitioner", LIBRDKAFKA)
def test_likely_partitions_include_librdkafka_default(kafka: KafkaSettings, partitioner: str) -> None:
    fresh = with_topics_of_its_own(kafka)
    producer = Producer({"bootstrap.servers": fresh.bootstrap_servers, "partitioner": partitioner})
    keys = [user.encode() for user in USERS if user]
    for key in keys:
        producer.produce(fresh.topic(topics.INTERACTIONS), b"{}", key)
    assert producer.flush(30) == 0
    found = stood_in(fresh)
    assert [key for key in keys if found[key] not in likely_partitions(key, 4)] == []


def test_likely_partitions_include_kafka_python_default(kafka: KafkaSettings) -> None:
    fresh = with_topics_of_its_own(kafka)
    producer = KafkaProducer(bootstrap_servers=fresh.bootstrap_servers)
    keys = [user.encode() for user in USERS if user]
    for key in keys:
        producer.send(fresh.topic(topics.INTERACTIONS), b"{}", key)
    producer.close()
    found = stood_in(fresh)
    assert [key for key in keys if found[key] not in likely_partitions(key, 4)] == []
