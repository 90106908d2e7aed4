"""How long records live in a real broker with our topic settings, in seconds instead of days."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Producer
from kafka import KafkaAdminClient, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import NewPartitions, NewTopic

from adapters.kafka.reading import open_consumer, records
from adapters.waiting import until
from deploy.local.java import Java
from deploy.local.kafka import KafkaBroker
from deploy.local.ports import free_port
from deploy.local.processes import ProcessTable
from deploy.local.product import create_local_topics
from freshet.cli.main import run
from jobs.checks import check_topics
from jobs.registration import Registration
from jobs.settings import Settings
from jobs.unread import look_at_unread
from privacy.purge_consents import write_empty_records
from privacy.retention import DEFAULTS
from schemas import topics
from schemas.errors import SettingsError
from schemas.topics import DAY_MS, TOPICS, topic_config
from tests.support.topics import alter

WAIT_S = 60
BOMB_BYTES = 20_000_000
TIMES = {"log.retention.check.interval.ms": "500", "log.cleaner.backoff.ms": "200", "log.initial.task.delay.ms": "0"}
TIMEOUT_MAX_MS = 900_000
"""Kafka's default."""
BROKER = TIMES | {"transaction.max.timeout.ms": str(TIMEOUT_MAX_MS)}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    directory = tmp_path_factory.mktemp("kafka")
    table = ProcessTable(directory)
    (directory / "tmp").mkdir()
    made = KafkaBroker(table, Java(directory / "tmp"), free_port(), free_port(), BROKER)
    made.start()
    try:
        until(made.is_ready, "Kafka", WAIT_S)
        yield made
    finally:
        table.end(table.records(), 5)


@pytest.fixture
def settings(broker: KafkaBroker, request: pytest.FixtureRequest) -> Settings:
    """The settings of a deployment with its own topics."""
    kafka = msgspec.structs.replace(
        DEFAULTS.kafka,
        bootstrap_servers=broker.bootstrap_servers,
        topic_prefix=f"{request.node.originalname}.",
        transaction_timeout_ms=TIMEOUT_MAX_MS,
    )
    create_local_topics(kafka)
    return msgspec.structs.replace(DEFAULTS, kafka=kafka)


def in_seconds(config: dict[str, str]) -> dict[str, str]:
    """One second per day, and one second for everything shorter."""
    times = {name: max(1, int(value) // DAY_MS) * 1_000 for name, value in config.items() if name.endswith(".ms")}
    return config | {name: str(ms) for name, ms in times.items()}


def config_of(name: str, kept_ms: int = topics.CONSENTS_COMPACTION_LAG_MS) -> dict[str, str]:
    [config] = [topic_config(topic, kept_ms) for topic in TOPICS if topic.name == name]
    return config


@pytest.fixture
def send(settings: Settings) -> Iterator[Callable[[str, bytes, bytes | None], None]]:
    """(topic, key, value) → partition 0."""
    producer = KafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers)

    def sent(name: str, key: bytes, value: bytes | None) -> None:
        producer.send(settings.kafka.topic(name), value, key, partition=0).get(WAIT_S)

    yield sent
    producer.close()


def begin(settings: Settings, name: str) -> int:
    """The first remaining offset of partition 0."""
    consumer = open_consumer(settings.kafka)
    try:
        partition = TopicPartition(settings.kafka.topic(name), 0)
        return int(consumer.beginning_offsets([partition])[partition])
    finally:
        consumer.close()


def test_records_of_busy_partition_expire(settings: Settings, send: Any) -> None:
    alter(settings.kafka, topics.INTERACTIONS, in_seconds(config_of(topics.INTERACTIONS)))
    send(topics.INTERACTIONS, b"ada", b"first")

    def first_is_gone() -> bool:
        send(topics.INTERACTIONS, b"bob", b"more")
        return begin(settings, topics.INTERACTIONS) > 0

    until(first_is_gone, "the first record to go", WAIT_S)


def test_purged_id_leaves_idle_partition(settings: Settings, send: Any) -> None:
    alter(settings.kafka, topics.CONSENTS, in_seconds(config_of(topics.CONSENTS)))
    send(topics.CONSENTS, b"ada", b"consent")
    send(topics.CONSENTS, b"ada", None)
    producer = KafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers)

    def ada_is_gone() -> bool:
        for future in write_empty_records(producer, settings.kafka.topic(topics.CONSENTS)):
            future.get(WAIT_S)
        return all(record.key != b"ada" for record in records(settings.kafka, topics.CONSENTS))

    try:
        until(ada_is_gone, "the id and the record without a value to go", WAIT_S)
    finally:
        producer.close()


def test_outdated_topics_are_refused_with_the_correcting_command(
    broker: KafkaBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kafka = msgspec.structs.replace(
        DEFAULTS.kafka,
        bootstrap_servers=broker.bootstrap_servers,
        topic_prefix="old.",
        transaction_timeout_ms=TIMEOUT_MAX_MS,
    )
    old = msgspec.structs.replace(DEFAULTS, kafka=kafka)
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    admin.create_topics([NewTopic(kafka.topic(topic.name), topic.partitions or 2, 1) for topic in TOPICS])
    admin.close()
    with pytest.raises(SettingsError, match=r"old\.consents needs .*segment\.ms ≤ 86400000.*freshet topics .*--alter"):
        check_topics(old)
    path = tmp_path / "freshet.toml"
    path.write_text(
        f'kafka.bootstrap_servers = "{kafka.bootstrap_servers}"\nkafka.topic_prefix = "old."\n'
        'redis.url = "redis://c"\nmodel.directory = "/m"\n'
    )
    assert run(["topics", "--settings", str(path), "--alter"]) == 0
    assert "set segment.ms=86400000 in old.consents" in capsys.readouterr().out
    assert set(check_topics(old)) == {topics.INTERACTIONS, topics.CONSENTS, topics.CONTROL}


def test_consent_in_unread_partition_counts_as_oldest_unread(settings: Settings, send: Any) -> None:
    kafka, topic = settings.kafka, settings.kafka.topic(topics.CONSENTS)
    assert look_at_unread(kafka).age_ms == 0, "there is none"
    send(topics.CONSENTS, b"ada", b"consent")
    until(lambda: look_at_unread(kafka).age_ms > 1_000, "a consent that nobody reads to age", WAIT_S)
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    try:
        admin.alter_group_offsets(kafka.group(), {TopicPartition(topic, 0): OffsetAndMetadata(1, "", -1)})
        assert look_at_unread(kafka).age_ms == 0, "the job has read it"
        admin.create_partitions({topic: NewPartitions(9)})
    finally:
        admin.close()
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
    producer.send(topic, b"consent", b"bob", partition=8).get(WAIT_S)
    producer.close()
    until(lambda: look_at_unread(kafka).age_ms > 1_000, "a consent in a new partition to age", WAIT_S)


@pytest.mark.parametrize("codec", ["gzip", "zstd", "lz4", "snappy"])
def test_broker_refuses_records_too_large_uncompressed(settings: Settings, codec: str) -> None:
    unpacked = {"compression.type": codec, "message.max.bytes": BOMB_BYTES + 1_000, "message.timeout.ms": 30_000}
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers, **unpacked})
    errors: dict[tuple[str, int], str] = {}
    for name in (topic.name for topic in TOPICS if topic.foreign):
        for size in (900_000, BOMB_BYTES):
            place = name, size

            def delivered(error: Any, message: Any, place: tuple[str, int] = place) -> None:
                errors[place] = error.name() if error else ""

            producer.produce(settings.kafka.topic(name), bytes(size), b"key", on_delivery=delivered)
            assert producer.flush(WAIT_S) == 0
            assert errors[place] == ("" if size < topics.MESSAGE_BYTES_MAX else "MSG_SIZE_TOO_LARGE")


def test_transaction_timeout_above_broker_maximum_is_refused(settings: Settings) -> None:
    kafka = msgspec.structs.replace(settings.kafka, transaction_timeout_ms=None)
    week = msgspec.structs.replace(settings, kafka=kafka)
    with pytest.raises(SettingsError, match=r"set transaction\.max\.timeout\.ms=604800000 on every broker"):
        Registration(kafka, week.transaction_timeout_ms())
    with pytest.raises(SettingsError, match=r"have transaction\.max\.timeout\.ms=900000, and .* open for 604800000 ms"):
        check_topics(week)
    with Registration(settings.kafka, settings.transaction_timeout_ms()) as registration:
        assert registration.recorded is None


def test_snapshots_outliving_broker_transactions_are_refused(settings: Settings) -> None:
    kept_ms = 8 * DAY_MS
    for name in (topic.name for topic in TOPICS if topic.compacted):
        alter(settings.kafka, name, config_of(name, kept_ms))
    privacy = msgspec.structs.replace(settings.privacy, snapshots_kept_ms=kept_ms)
    with pytest.raises(SettingsError, match=r"transactional\.id\.expiration\.ms=604800000, and privacy"):
        check_topics(msgspec.structs.replace(settings, privacy=privacy))
