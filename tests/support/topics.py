"""Changes topic settings on a real broker."""

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from adapters.kafka.settings import KafkaSettings, python_kafka_options
from adapters.waiting import until
from jobs.topic_creation import topic_settings
from schemas.topics import TOPICS

SEEN_S = 30


def alter(kafka: KafkaSettings, name: str, config: dict[str, str]) -> None:
    """Set `config` in one of our topics."""
    admin = KafkaAdminClient(**python_kafka_options(kafka))
    try:
        topic = kafka.topic(name)
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=config)])
        until(lambda: config.items() <= topic_settings(admin, topic).items(), f"settings of {name}", SEEN_S)
    finally:
        admin.close()


def keep_compressed(kafka: KafkaSettings) -> None:
    """Let the broker store batches as received, as in earlier releases: such batches stay until they expire."""
    for topic in TOPICS:
        if topic.foreign:
            alter(kafka, topic.name, {"compression.type": "producer"})
