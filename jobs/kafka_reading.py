"""Reading a topic as it stands: from its beginning to where it ends now."""

from collections.abc import Iterator
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from jobs.settings import Settings, python_kafka_options
from schemas.errors import SettingsError


def records(settings: Settings, name: str) -> Iterator[Any]:
    """Every committed record that stands in the topic `name` now, in the order of each partition.

    Raises :class:`SettingsError` where there is no such topic.
    """
    topic = settings.kafka.topic(name)
    consumer = KafkaConsumer(
        **python_kafka_options(settings.kafka),
        group_id=None,
        enable_auto_commit=False,
        isolation_level="read_committed",
        max_poll_records=10_000,
    )
    try:
        partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
        if not partitions:
            raise SettingsError(f"there is no topic {topic}: check kafka.topic_prefix and kafka.bootstrap_servers")
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends = consumer.end_offsets(partitions)
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            for batch in consumer.poll(timeout_ms=500).values():
                yield from batch
    finally:
        consumer.close()
