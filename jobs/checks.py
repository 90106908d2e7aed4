"""What is checked against the brokers before a job is submitted: nothing that has ended may come back."""

from collections.abc import Mapping
from typing import Final

from kafka import KafkaAdminClient
from kafka.errors import KafkaError
from py4j.protocol import Py4JJavaError
from pyflink.java_gateway import get_gateway

from jobs.settings import Settings
from jobs.topics import topic_settings
from schemas import topics
from schemas.errors import SettingsError
from schemas.kafka_settings import python_kafka_options
from schemas.topics import DAY_MS

CODEC_CLASSES: Final = {
    "com.github.luben.zstd.ZstdInputStreamNoFinalizer": "zstd-jni",
    "org.xerial.snappy.SnappyInputStream": "snappy-java",
    "net.jpountz.lz4.LZ4Factory": "lz4-java",
}
"""What the Kafka client in flink-sql-connector-kafka takes from its surroundings; all but zstd are in flink-dist."""
RAW: Final = (topics.INTERACTIONS, topics.CONSENTS, topics.CONTROL)


def check_topics(settings: Settings) -> dict[str, str]:
    """Raise :class:`SettingsError` where topics would forget too early, or too late, for the promises to hold.

    Returns Kafka's ids of the raw topics, by our short names; empty where the broker has none (before 2.8).
    """
    names = {topic.name: settings.kafka.topic(topic.name) for topic in topics.TOPICS}
    try:
        admin = KafkaAdminClient(**python_kafka_options(settings.kafka))
        try:
            missing = sorted(set(names.values()) - set(admin.list_topics()))
            found = {} if missing else {name: topic_settings(admin, names[name]) for name in RAW}
            described = {} if missing else {topic["name"]: topic for topic in admin.describe_topics([*names.values()])}
        finally:
            admin.close()
    except KafkaError as error:
        raise SettingsError(
            f"the topics could not be looked at ({type(error).__name__}): kafka.bootstrap_servers must answer the "
            "client that submits, and its user needs Describe and DescribeConfigs on topics"
        ) from None
    if missing:
        raise SettingsError(f"there is no topic {', '.join(missing)}: create it with `python -m jobs.topics`")
    if complaint := complaint_of(settings, found[topics.INTERACTIONS], found[topics.CONSENTS]):
        raise SettingsError(complaint)
    ids = {name: str(described[names[name]].get("topic_id") or "") for name in RAW}
    return {name: topic_id for name, topic_id in ids.items() if topic_id.strip("0-")}


def check_codecs() -> None:
    """Raise :class:`SettingsError` where Flink's libraries cannot read every codec that a producer may choose."""
    jvm = get_gateway().jvm
    for name, jar in CODEC_CLASSES.items():
        try:
            jvm.java.lang.Class.forName(name)
        except Py4JJavaError:
            raise SettingsError(
                f"{jar} is not in Flink's lib/: one batch that a producer has compressed so would stop the job for "
                "good. Put the jar beside flink-sql-connector-kafka, on the client, the JobManager and the TaskManagers"
            ) from None


def complaint_of(settings: Settings, interactions: Mapping[str, str], consents: Mapping[str, str]) -> str | None:
    """What is wrong with the broker's settings of the two raw topics, or None."""
    kept_ms, name = settings.privacy.snapshots_kept_ms, settings.kafka.topic(topics.CONSENTS)
    for topic, config in ((settings.kafka.topic(topics.INTERACTIONS), interactions), (name, consents)):
        if config.get("message.timestamp.type") != "LogAppendTime":
            return f"topic {topic} needs message.timestamp.type=LogAppendTime: the order of consents depends on it"
    if "compact" in consents.get("cleanup.policy", ""):
        for setting in ("min.compaction.lag.ms", "delete.retention.ms"):
            if int(consents.get(setting, 0)) < kept_ms:
                return (
                    f"topic {name} has {setting}={consents.get(setting, 0)}, less than privacy.snapshots_kept_ms="
                    f"{kept_ms}: a restored job would not read a withdrawal that compaction has dropped"
                )
    retention_ms = int(interactions.get("retention.ms", -1))
    if retention_ms < 0 or retention_ms + DAY_MS > settings.tombstone_ms():
        return (
            f"topic {settings.kafka.topic(topics.INTERACTIONS)} has retention.ms={retention_ms}: privacy.tombstone_ms "
            "must be a day longer, or interactions of erased users could be read when their tombstones are gone"
        )
    return None
