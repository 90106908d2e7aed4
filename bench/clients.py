"""Kafka clients of the benchmarks: kafka-python, tuned, and librdkafka where the harness must use little CPU."""

from collections.abc import Iterable
from typing import Any

import confluent_kafka
import crcmod.predefined  # type: ignore[import-untyped]
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.record import util

from bench.workload import Record


def use_fast_checksum() -> None:
    """Let kafka-python compute CRC-32C in C.

    Without the package `crc32c`, it does so in Python at 0.4 microseconds per byte, more than everything else together.
    """
    util.calc_crc32c.__defaults__ = (crcmod.predefined.mkPredefinedCrcFun("crc-32c"),)


def producer(servers: str, **options: Any) -> Any:
    """A producer that makes large batches and does not wait for other replicas, as there are none."""
    use_fast_checksum()
    defaults = {"linger_ms": 20, "batch_size": 262_144, "metrics_enabled": False}
    return KafkaProducer(bootstrap_servers=servers, **{**defaults, **options})


def send_all(sending: Any, topic: str, records: Iterable[Record]) -> int:
    """Send all of `records` and wait until Kafka has them; returns their number."""
    count = 0
    for key, value in records:
        sending.send(topic, value, key)
        count += 1
    sending.flush()
    return count


def hide(servers: str, topic: str, records: Iterable[Record]) -> Any:
    """Send `records` in an open transaction. Returns its producer; `commit_transaction` makes all visible at once."""
    hidden = producer(servers, transactional_id=f"{topic}-bench", transaction_timeout_ms=600_000)
    hidden.init_transactions()
    hidden.begin_transaction()
    send_all(hidden, topic, records)
    return hidden


def consumer(servers: str, topic: str, **options: Any) -> Any:
    """A consumer of all partitions of `topic` from the start, with large fetches."""
    use_fast_checksum()
    defaults = {
        "auto_offset_reset": "earliest",
        "enable_auto_commit": False,
        "fetch_max_bytes": 64 * 2**20,
        "max_partition_fetch_bytes": 8 * 2**20,
        "metrics_enabled": False,
    }
    reading = KafkaConsumer(bootstrap_servers=servers, **{**defaults, **options})
    reading.assign([TopicPartition(topic, number) for number in sorted(reading.partitions_for_topic(topic))])
    return reading


def light_producer(servers: str, linger_ms: int, **options: Any) -> Any:
    """A producer for load that uses hardly any CPU beside what is measured: librdkafka."""
    return confluent_kafka.Producer({"bootstrap.servers": servers, "linger.ms": linger_ms, "acks": "all", **options})


def light_consumer(servers: str, topic: str) -> Any:
    """A consumer of all partitions of `topic` from their ends on, with minimal delay: librdkafka."""
    options = {"bootstrap.servers": servers, "group.id": "unused", "enable.auto.commit": False, "fetch.wait.max.ms": 50}
    reading = confluent_kafka.Consumer(options)
    partitions = reading.list_topics(topic, timeout=30).topics[topic].partitions
    ends = [confluent_kafka.TopicPartition(topic, number) for number in partitions]
    for end in ends:
        _, end.offset = reading.get_watermark_offsets(end, timeout=30)
    reading.assign(ends)
    return reading
