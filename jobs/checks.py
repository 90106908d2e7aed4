"""Checks of the Kafka brokers before submission, so that expired data cannot return."""

import logging
from collections.abc import Mapping
from typing import Final

from kafka.errors import KafkaError
from py4j.protocol import Py4JJavaError
from pyflink.java_gateway import get_gateway

from adapters.kafka.opening import open_admin
from adapters.kafka.reachability import require_reachable_broker
from jobs.registration import TIMEOUT_MAX, timeout_too_long
from jobs.settings import Settings
from jobs.topic_creation import broker_settings, mismatched_topics, topic_id
from schemas import topics
from schemas.errors import SettingsError

CODEC_CLASSES: Final = {
    "com.github.luben.zstd.ZstdInputStreamNoFinalizer": "zstd-jni",
    "org.xerial.snappy.SnappyInputStream": "snappy-java",
    "net.jpountz.lz4.LZ4Factory": "lz4-java",
}
"""Codec libraries that the Kafka client in flink-sql-connector-kafka loads from Flink's lib/; flink-dist has all but
zstd."""
CHECK_INTERVAL: Final = "log.retention.check.interval.ms"
EXPIRATION: Final = "transactional.id.expiration.ms"
_RELATIONS: Final = dict.fromkeys(topics.AT_MOST, "≤") | dict.fromkeys(topics.AT_LEAST, "≥")
logger = logging.getLogger(__name__)
RAW: Final = (topics.INTERACTIONS, topics.CONSENTS, topics.CONTROL)


def check_topics(settings: Settings) -> dict[str, str]:
    """Raise :class:`SettingsError` if a topic deletes records too early or too late to keep the promises.

    Returns Kafka's ids of the raw topics by our short names; empty if the broker assigns none (before 2.8).
    """
    kafka, names = settings.kafka, {topic.name: settings.kafka.topic(topic.name) for topic in topics.TOPICS}
    require_reachable_broker(kafka)
    try:
        admin = open_admin(kafka)
        try:
            missing = sorted(set(names.values()) - set(admin.list_topics()))
            changes = {} if missing else mismatched_topics(admin, kafka, settings.privacy.snapshots_kept_ms)
            described = {} if missing else {topic["name"]: topic for topic in admin.describe_topics([*names.values()])}
            broker = broker_settings(admin)
        finally:
            admin.close()
    except (KafkaError, OSError) as error:  # OSError: a TLS file
        raise SettingsError(
            f"the topics could not be inspected ({type(error).__name__}): kafka.bootstrap_servers must answer the "
            "client that submits, and its user needs Describe and DescribeConfigs on topics"
        ) from None
    if missing:
        raise SettingsError(f"topic {', '.join(missing)} does not exist: create it with `freshet topics --settings …`")
    if not broker:
        logger.warning(
            "the brokers' settings are not visible to this user: %s is taken to be an hour at most, and %s no less "
            "than privacy.snapshots_kept_ms",
            CHECK_INTERVAL,
            EXPIRATION,
        )
    kept_ms, timeout_ms = settings.privacy.snapshots_kept_ms, settings.transaction_timeout_ms()
    if complaint := complaint_of_topics(changes) or complaint_of_broker(broker, kept_ms, timeout_ms):
        raise SettingsError(complaint)
    return {name: found for name in RAW if (found := topic_id(described[names[name]]))}


def check_codecs() -> None:
    """Raise :class:`SettingsError` unless Flink's libraries can read every codec that a producer may choose."""
    jvm = get_gateway().jvm
    for name, jar in CODEC_CLASSES.items():
        try:
            jvm.java.lang.Class.forName(name)
        except Py4JJavaError:
            raise SettingsError(
                f"{jar} is not in Flink's lib/: one batch that a producer has compressed so would stop the job for "
                "good. Put the jar beside flink-sql-connector-kafka, on the client, the JobManager and the TaskManagers"
            ) from None


def complaint_of_topics(mismatched: Mapping[str, Mapping[str, str]]) -> str | None:
    """Describe the topic settings that must change, by topic; None if there are none."""
    if not mismatched:
        return None
    wanted = "; ".join(f"{topic} needs {_assigned(changes)}" for topic, changes in mismatched.items())
    return (
        f"{wanted}: with the settings that they have, records are kept longer than was promised, what has ended "
        "could come back, or one record could stop the job for good. `freshet topics --settings … --alter` sets them"
    )


def _assigned(changes: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {_RELATIONS.get(name, '=')} {value}" for name, value in changes.items())


def complaint_of_broker(broker: Mapping[str, str], snapshots_kept_ms: int, transaction_timeout_ms: int) -> str | None:
    """Describe a broker setting that breaks a promise: records live too long, or a snapshot cannot be restored whole.

    A sink that restores a snapshot commits its transactions again. If the brokers have forgotten them, the connector
    reports an unknown failure and the job restarts forever. None if no broken promise is known.
    """
    check_ms = int(broker.get(CHECK_INTERVAL, 0))
    if check_ms > topics.RETENTION_CHECK_MAX_MS:
        return (
            f"the brokers have {CHECK_INTERVAL}={check_ms}, and records are to go {topics.RETENTION_CHECK_MAX_MS} ms "
            "after their retention at the latest: lower it on the brokers"
        )
    if broker.get("log.cleaner.enable", "true") != "true":
        return "the brokers have log.cleaner.enable=false: nothing would ever leave the topic of consents"
    expiration_ms = int(broker.get(EXPIRATION, snapshots_kept_ms))
    if expiration_ms < snapshots_kept_ms:
        return (
            f"the brokers have {EXPIRATION}={expiration_ms}, and privacy.snapshots_kept_ms is {snapshots_kept_ms}: "
            "a job that restores a snapshot whose transactions are forgotten would restart for ever. Raise it on the "
            "brokers, or lower privacy.snapshots_kept_ms"
        )
    timeout_max_ms = int(broker.get(TIMEOUT_MAX, transaction_timeout_ms))
    if timeout_max_ms < transaction_timeout_ms:
        return f"the brokers have {TIMEOUT_MAX}={timeout_max_ms}, {timeout_too_long(transaction_timeout_ms)}"
    return None
