"""Creates the topics that are not there yet, with the clean-up and the retention of `schemas/topics.py`.

The command is `freshet topics`. What exists is left as it is; the job refuses at submission what does not hold its
promises, and :func:`alter_topics` corrects it.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from kafka.errors import ClusterAuthorizationFailedError

from adapters.kafka.listening import refuse_if_nobody_listens
from adapters.kafka.settings import KafkaSettings, python_kafka_options
from schemas.errors import SettingsError
from schemas.topics import CONSENTS_COMPACTION_LAG_MS, TOPICS, topic_config, unfit

HEARD_S: Final = 10.0


def create_topics(
    kafka: KafkaSettings, raw_partitions: int, replicas: int, snapshots_kept_ms: int = CONSENTS_COMPACTION_LAG_MS
) -> list[str]:
    """Create what is missing; returns the names. `raw_partitions` is for the topics that are read in parallel."""
    refuse_if_nobody_listens(kafka)
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
                        topic_configs=topic_config(topic, snapshots_kept_ms),
                    )
                    for topic in missing
                ]
            )
        return [kafka.topic(topic.name) for topic in missing]
    finally:
        admin.close()


def alter_topics(kafka: KafkaSettings, snapshots_kept_ms: int) -> dict[str, dict[str, str]]:
    """Set what does not hold the promises in the topics that are there; returns it, by topic."""
    refuse_if_nobody_listens(kafka)
    admin = KafkaAdminClient(**python_kafka_options(kafka))
    try:
        changes = unfit_topics(admin, kafka, snapshots_kept_ms)
        if changes:
            topic = ConfigResourceType.TOPIC
            admin.alter_configs([ConfigResource(topic, name, configs=changed) for name, changed in changes.items()])
        if left := _left_after(lambda: unfit_topics(admin, kafka, snapshots_kept_ms)):
            raise SettingsError(
                f"Kafka rejected the settings of {', '.join(left)}: the user of these settings needs AlterConfigs "
                "on topics"
            )
        return changes
    finally:
        admin.close()


def _left_after(unfit: Callable[[], dict[str, dict[str, str]]]) -> dict[str, dict[str, str]]:
    """What is still unfit when the brokers have had the time to hear of it: they do so a moment later."""
    end_s = time.monotonic() + HEARD_S
    while (left := unfit()) and time.monotonic() < end_s:
        time.sleep(0.1)
    return left


def unfit_topics(admin: KafkaAdminClient, kafka: KafkaSettings, snapshots_kept_ms: int) -> dict[str, dict[str, str]]:
    """What would have to change in the topics that are there, by full name: see :func:`schemas.topics.unfit`."""
    known = set(admin.list_topics())
    found = {
        name: unfit(topic_config(topic, snapshots_kept_ms), topic_settings(admin, name))
        for topic in TOPICS
        if (name := kafka.topic(topic.name)) in known
    }
    return {name: changes for name, changes in found.items() if changes}


def broker_settings(admin: KafkaAdminClient) -> dict[str, str]:
    """The settings of a broker; none where we may not see them."""
    node = str(admin.describe_cluster()["brokers"][0]["broker_id"])
    resource = ConfigResource(ConfigResourceType.BROKER, node)
    try:
        [of_brokers] = admin.describe_configs([resource], config_filter="all").values()
    except ClusterAuthorizationFailedError:
        return {}
    return {name: str(entry["value"]) for name, entry in of_brokers[node].items()}


def topic_id(described: Mapping[str, Any]) -> str:
    """Kafka's id of a topic that was described, "" where the broker gives none (before 2.8)."""
    found = str(described.get("topic_id") or "")
    return found if found.strip("0-") else ""


def topic_settings(admin: KafkaAdminClient, topic: str) -> dict[str, str]:
    """The broker's settings of a topic."""
    resource = ConfigResource(ConfigResourceType.TOPIC, topic)
    [of_topics] = admin.describe_configs([resource], config_filter="all").values()
    return {name: str(entry["value"]) for name, entry in of_topics[topic].items()}
