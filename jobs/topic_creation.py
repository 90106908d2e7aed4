"""Creates missing topics, with the clean-up and the retention of `schemas/topics.py` (`freshet topics`).

Existing topics stay as they are. Submission refuses topics that do not keep the promises, and :func:`alter_topics`
corrects them.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from kafka.errors import ClusterAuthorizationFailedError

from adapters.kafka.opening import open_admin
from adapters.kafka.reachability import require_reachable_broker
from adapters.kafka.settings import KafkaSettings
from schemas.errors import SettingsError
from schemas.topics import CONSENTS_COMPACTION_LAG_MS, TOPICS, mismatched_settings, topic_config

PROPAGATION_S: Final = 10.0


def create_topics(
    kafka: KafkaSettings, raw_partitions: int, replicas: int, snapshots_kept_ms: int = CONSENTS_COMPACTION_LAG_MS
) -> list[str]:
    """Create missing topics and return their names. `raw_partitions` is for the topics that are read in parallel."""
    require_reachable_broker(kafka)
    admin = open_admin(kafka)
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
    """Correct settings of existing topics that do not keep the promises; returns the changes by topic."""
    require_reachable_broker(kafka)
    admin = open_admin(kafka)
    try:
        changes = mismatched_topics(admin, kafka, snapshots_kept_ms)
        if changes:
            topic = ConfigResourceType.TOPIC
            admin.alter_configs([ConfigResource(topic, name, configs=changed) for name, changed in changes.items()])
        if left := _still_mismatched(lambda: mismatched_topics(admin, kafka, snapshots_kept_ms)):
            raise SettingsError(
                f"Kafka rejected the settings of {', '.join(left)}: the user of these settings needs AlterConfigs "
                "on topics"
            )
        return changes
    finally:
        admin.close()


def _still_mismatched(mismatched: Callable[[], dict[str, dict[str, str]]]) -> dict[str, dict[str, str]]:
    """The settings that still do not match once the brokers have had time to propagate the change."""
    end_s = time.monotonic() + PROPAGATION_S
    while (left := mismatched()) and time.monotonic() < end_s:
        time.sleep(0.1)
    return left


def mismatched_topics(
    admin: KafkaAdminClient, kafka: KafkaSettings, snapshots_kept_ms: int
) -> dict[str, dict[str, str]]:
    """The settings to change in existing topics, by full name: see :func:`schemas.topics.mismatched_settings`."""
    known = set(admin.list_topics())
    found = {
        name: mismatched_settings(topic_config(topic, snapshots_kept_ms), topic_settings(admin, name))
        for topic in TOPICS
        if (name := kafka.topic(topic.name)) in known
    }
    return {name: changes for name, changes in found.items() if changes}


def broker_settings(admin: KafkaAdminClient) -> dict[str, str]:
    """The settings of a broker; empty if we are not authorised to see them."""
    node = str(admin.describe_cluster()["brokers"][0]["broker_id"])
    resource = ConfigResource(ConfigResourceType.BROKER, node)
    try:
        [of_brokers] = admin.describe_configs([resource], config_filter="all").values()
    except ClusterAuthorizationFailedError:
        return {}
    return {name: str(entry["value"]) for name, entry in of_brokers[node].items()}


def topic_id(described: Mapping[str, Any]) -> str:
    """Kafka's id of a described topic; "" if the broker assigns none (before 2.8)."""
    found = str(described.get("topic_id") or "")
    return found if found.strip("0-") else ""


def topic_settings(admin: KafkaAdminClient, topic: str) -> dict[str, str]:
    """A topic's settings on the broker."""
    resource = ConfigResource(ConfigResourceType.TOPIC, topic)
    [of_topics] = admin.describe_configs([resource], config_filter="all").values()
    return {name: str(entry["value"]) for name, entry in of_topics[topic].items()}
