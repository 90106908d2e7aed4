"""A real Kafka on its own."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from adapters.kafka.settings import KafkaSettings
from adapters.waiting import until
from deploy.local.java import Java
from deploy.local.kafka import KafkaBroker
from deploy.local.ports import free_port
from deploy.local.processes import ProcessTable
from deploy.local.product import create_local_topics

START_TIMEOUT_S = 300


@contextmanager
def running_kafka(directory: Path) -> Iterator[KafkaSettings]:
    """A broker during the block, with its files below `directory`."""
    (directory / "tmp").mkdir(parents=True)
    table = ProcessTable(directory)
    broker = KafkaBroker(table, Java(directory / "tmp"), free_port(), free_port())
    broker.start()
    try:
        until(broker.is_ready, "Kafka", START_TIMEOUT_S)
        yield KafkaSettings(broker.bootstrap_servers)
    finally:
        table.end(table.records(), 5)


def with_topics_of_its_own(kafka: KafkaSettings) -> KafkaSettings:
    """The same Kafka with separate topics."""
    settings = msgspec.structs.replace(kafka, topic_prefix=f"{uuid.uuid4().hex[:8]}.")
    create_local_topics(settings)
    return settings
