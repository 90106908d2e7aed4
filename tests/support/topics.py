"""Settings of topics, changed on a real broker."""

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from schemas.kafka_settings import KafkaSettings, python_kafka_options
from schemas.topics import TOPICS


def alter(kafka: KafkaSettings, name: str, config: dict[str, str]) -> None:
    """Set `config` in one of our topics."""
    admin = KafkaAdminClient(**python_kafka_options(kafka))
    try:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, kafka.topic(name), configs=config)])
    finally:
        admin.close()


def keep_compressed(kafka: KafkaSettings) -> None:
    """Let the broker store what it gets, as it did in releases before: such batches stay until their retention ends."""
    for topic in TOPICS:
        if topic.foreign:
            alter(kafka, topic.name, {"compression.type": "producer"})
