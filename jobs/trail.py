"""Identifies the audit trail that a job writes and a command reads; signatures are bound to this id.

A signing key may serve several deployments, and topics are copied, deleted and created again under their old names. So
signatures name the topic by the id that Kafka assigned at its creation, which no other topic ever has.
"""

from kafka.errors import KafkaError

from adapters.kafka.opening import open_admin
from adapters.kafka.reachability import require_reachable_broker
from adapters.kafka.settings import KafkaSettings
from jobs.topic_creation import topic_id
from schemas import topics
from schemas.errors import SettingsError


def trail_id(kafka: KafkaSettings) -> str:
    """Kafka's id of the topic `audit`; the topic's name if brokers assign no ids (before 2.8).

    Raises :class:`SettingsError` if the topic does not exist, or this user may not describe it.
    """
    name = kafka.topic(topics.AUDIT)
    require_reachable_broker(kafka)
    try:
        admin = open_admin(kafka)
        try:
            described = admin.describe_topics([name]) if name in admin.list_topics() else []
        finally:
            admin.close()
    except KafkaError as error:
        raise SettingsError(
            f"topic {name} could not be inspected ({type(error).__name__}): kafka.bootstrap_servers must answer, and "
            "the user of these settings needs Describe on it"
        ) from None
    if not described:
        raise SettingsError(f"topic {name} does not exist: create it with `freshet topics --settings …`")
    return topic_id(described[0]) or name
