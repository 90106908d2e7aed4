"""Opens clients of Kafka for commands: an error names the address, and says whether Kafka did not answer or refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaAdminClient, KafkaProducer
from kafka.errors import KafkaError

from adapters.kafka.settings import KafkaSettings, python_kafka_options
from schemas.errors import KafkaUnreachable


def open_admin(kafka: KafkaSettings) -> Any:
    """An admin client; raises :class:`KafkaUnreachable` if Kafka does not answer."""
    with answering(kafka):
        return KafkaAdminClient(**python_kafka_options(kafka))


def open_producer(kafka: KafkaSettings, **options: Any) -> Any:
    """A producer that waits for all replicas; raises :class:`KafkaUnreachable` if Kafka does not answer."""
    with answering(kafka):
        return KafkaProducer(**python_kafka_options(kafka), acks="all", **options)


@contextmanager
def answering(kafka: KafkaSettings) -> Iterator[None]:
    """Raise :class:`KafkaUnreachable` for an error of Kafka's client in the block, which opens a client."""
    try:
        yield
    except KafkaError as error:
        raise KafkaUnreachable(
            f"Kafka at {kafka.bootstrap_servers} does not answer ({type(error).__name__}): "
            "check kafka.bootstrap_servers and the security settings beside it"
        ) from None
