"""Every Python reader reads what other producers may write: each codec, transactions, headers, no key.

Batches in formats before version 2 are not tested: brokers since Kafka 4.0 neither accept nor return them.
"""

from collections.abc import Callable, Iterator

import msgspec
import pytest
from confluent_kafka import Producer
from kafka import KafkaAdminClient
from kafka.admin import NewPartitions

from adapters.kafka.reading import records
from adapters.kafka.settings import KafkaSettings
from adapters.kafka.settled_topic import Tail, settled, settled_ends
from adapters.waiting import until
from schemas import topics
from schemas.catalogue import CatalogueItem
from serving.catalogue import Catalogue
from tests.support.kafka import running_kafka, with_topics_of_its_own
from tests.support.topics import keep_compressed

COMPACTED = {topic.name for topic in topics.TOPICS if topic.compacted}
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
LONG = dict.fromkeys(CODECS, 3000000) | {"none": 900_000}
"""Bytes: compressed, larger than what some decoders give at once, and still within the broker's limit of a megabyte."""


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaSettings]:
    with running_kafka(tmp_path_factory.mktemp("kafka")) as settings:
        yield settings


@pytest.fixture
def fresh(kafka: KafkaSettings) -> KafkaSettings:
    """Topics for this test only."""
    settings = with_topics_of_its_own(kafka)
    keep_compressed(settings)
    return settings


def producer(kafka: KafkaSettings, codec: str, **more: str | int) -> Producer:
    """A producer of librdkafka, which no reader here uses."""
    options = {"bootstrap.servers": kafka.bootstrap_servers, "compression.type": codec, "linger.ms": 50}
    return Producer({**options, "message.max.bytes": 10_000_000, **more})


def until_taken(sender: Producer, topic: str, value: bytes, key: bytes) -> None:
    """Retry until the broker accepts it: the setting that allows such a record takes effect with a delay."""

    def is_taken() -> bool:
        refused: list[object] = []
        sender.produce(topic, value, key, on_delivery=lambda error, _: refused.append(error))
        return sender.flush(30) == 0 and refused == [None]

    until(is_taken, "the broker to take a long record", 30)


def write_everything(kafka: KafkaSettings, name: str, codec: str, value: Callable[[str], bytes]) -> None:
    """Plain batches with headers, without key or value; a committed and an aborted transaction."""
    topic = kafka.topic(name)
    plain = producer(kafka, codec)
    plain.produce(topic, value("plain"), b"plain", headers=[("h", b"1"), ("h", None)])
    if name not in COMPACTED:  # of a compacted topic, the broker refuses a batch with such a record
        plain.produce(topic, value("no-key"), None)
    plain.produce(topic, None, b"gone")
    assert plain.flush(30) == 0
    until_taken(plain, topic, value("zeros") + b" " * LONG[codec], b"zeros")
    for outcome in ("aborted", "committed"):
        transactional = producer(kafka, codec, **{"transactional.id": f"{kafka.topic_prefix}{outcome}"})
        transactional.init_transactions(30)
        transactional.begin_transaction()
        transactional.produce(topic, value(outcome), outcome.encode())
        assert transactional.flush(30) == 0
        if outcome == "aborted":
            transactional.abort_transaction(30)
        else:
            transactional.commit_transaction(30)


WRITTEN = {(b"plain", True), (None, True), (b"gone", False), (b"zeros", True), (b"committed", True)}


def read_as_of_now(kafka: KafkaSettings, name: str) -> set[tuple[bytes | None, bool]]:
    return {(record.key, record.value is not None) for record in records(kafka, name)}


def read_settled(kafka: KafkaSettings, name: str) -> set[tuple[bytes | None, bool]]:
    return {(record.key, record.value is not None) for record in settled(kafka, settled_ends(kafka, name))}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("read", [read_as_of_now, read_settled])
def test_topics_are_read_with_any_compression(fresh: KafkaSettings, codec: str, read) -> None:
    for name in (topics.INTERACTIONS, topics.CONSENTS):
        write_everything(fresh, name, codec, lambda text: b'{"n":"%b"}' % text.encode())
        assert read(fresh, name) == WRITTEN - ({(None, True)} if name in COMPACTED else set())


@pytest.mark.parametrize("codec", CODECS)
def test_answers_are_read_with_any_compression(fresh: KafkaSettings, codec: str) -> None:
    tail = Tail(fresh, topics.RECEIPTS)
    try:
        sender = producer(fresh, codec)
        sender.produce(fresh.topic(topics.RECEIPTS), b'{"request":"r"}' + b" " * LONG[codec])
        assert sender.flush(30) == 0
        tail.wait_for(b'"request":"r"', timeout_s=30)
    finally:
        tail.close()


@pytest.mark.parametrize("codec", CODECS)
def test_catalogue_reads_committed_records_with_any_compression(fresh: KafkaSettings, codec: str) -> None:
    def item(name: str) -> bytes:
        return msgspec.json.encode(CatalogueItem(name, name))

    write_everything(fresh, topics.CATALOGUE, codec, item)
    catalogue = Catalogue({"bootstrap_servers": fresh.bootstrap_servers}, topic_prefix=fresh.topic_prefix)
    try:
        until(catalogue.ready.is_set, "the catalogue", 30)
        assert set(catalogue) == {"plain", "zeros", "committed"}
    finally:
        catalogue.close()


def test_catalogue_follows_added_partitions(fresh: KafkaSettings) -> None:
    catalogue = Catalogue({"bootstrap_servers": fresh.bootstrap_servers}, topic_prefix=fresh.topic_prefix)
    admin = KafkaAdminClient(bootstrap_servers=fresh.bootstrap_servers)
    try:
        until(catalogue.ready.is_set, "the catalogue", 30)
        topic = fresh.topic(topics.CATALOGUE)
        admin.create_partitions({topic: NewPartitions(3)})
        sender = producer(fresh, "none")
        sender.produce(topic, msgspec.json.encode(CatalogueItem("late", "late")), b"late", partition=2)
        assert sender.flush(30) == 0
        until(lambda: "late" in catalogue, "an item in a partition that was added", 30)
    finally:
        admin.close()
        catalogue.close()
