"""Creates the topics that are not there yet, with the clean-up and the retention of `schemas/topics.py`::

    python -m jobs.topics --settings freshet.toml --partitions 12 --replicas 3

What exists is left as it is; the job refuses at submission what does not hold its promises.
"""

import argparse
import sys
from pathlib import Path

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from kafka.errors import KafkaError

from jobs.settings import load_settings
from schemas.errors import FreshetError
from schemas.kafka_settings import KafkaSettings, python_kafka_options
from schemas.topics import TOPICS, topic_config


def create_topics(kafka: KafkaSettings, raw_partitions: int, replicas: int) -> list[str]:
    """Create what is missing; returns the names. `raw_partitions` is for the topics that are read in parallel."""
    admin = KafkaAdminClient(**python_kafka_options(kafka))
    try:
        known = set(admin.list_topics())
        missing = [topic for topic in TOPICS if kafka.topic(topic.name) not in known]
        if missing:
            admin.create_topics(
                [
                    NewTopic(
                        kafka.topic(topic.name),
                        topic.partitions or raw_partitions,
                        replicas,
                        topic_configs=topic_config(topic),
                    )
                    for topic in missing
                ]
            )
        return [kafka.topic(topic.name) for topic in missing]
    finally:
        admin.close()


def topic_settings(admin: KafkaAdminClient, topic: str) -> dict[str, str]:
    """The broker's settings of a topic."""
    resource = ConfigResource(ConfigResourceType.TOPIC, topic)
    [of_topics] = admin.describe_configs([resource], config_filter="all").values()
    return {name: str(entry["value"]) for name, entry in of_topics[topic].items()}


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.topics", description="Create the topics that are not there yet."
    )
    parser.add_argument("--settings", type=Path, required=True, help="the TOML file of the job")
    parser.add_argument("--partitions", type=int, default=4, help="of the topics that are read in parallel (default 4)")
    parser.add_argument("--replicas", type=int, default=3, help="of each (default 3)")
    options = parser.parse_args(arguments)
    try:
        created = create_topics(load_settings(options.settings).kafka, options.partitions, options.replicas)
    except KafkaError as error:
        print(f"error: Kafka refused ({type(error).__name__}): {error}", file=sys.stderr)
        return 1
    except FreshetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(f"created {name}" for name in created) or "all topics are there")
    return 0


if __name__ == "__main__":
    sys.exit(main())
