"""What is checked before a job is submitted, against brokers and snapshot: nothing that has ended may come back."""

from collections.abc import Mapping

from kafka import KafkaAdminClient
from kafka.errors import KafkaError
from py4j.protocol import Py4JJavaError
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway

from jobs.clock import clock_ms
from jobs.settings import Settings
from jobs.topics import topic_settings
from schemas import topics
from schemas.errors import SettingsError
from schemas.kafka_settings import python_kafka_options
from schemas.topics import DAY_MS


def check_topics(settings: Settings) -> None:
    """Raise :class:`SettingsError` where topics would forget too early, or too late, for the promises to hold."""
    names = {name: settings.kafka.topic(name) for name in (topics.INTERACTIONS, topics.CONSENTS)}
    try:
        admin = KafkaAdminClient(**python_kafka_options(settings.kafka))
        try:
            missing = sorted(set(names.values()) - set(admin.list_topics()))
            found = {} if missing else {name: topic_settings(admin, topic) for name, topic in names.items()}
        finally:
            admin.close()
    except KafkaError as error:
        raise SettingsError(
            f"the topics could not be looked at ({type(error).__name__}): kafka.bootstrap_servers must answer the "
            "client that submits, and its user needs Describe and DescribeConfigs on topics"
        ) from None
    if missing:
        raise SettingsError(f"there is no topic {', '.join(missing)}: create the topics of schemas/topics.py first")
    if complaint := complaint_of(settings, found[topics.INTERACTIONS], found[topics.CONSENTS]):
        raise SettingsError(complaint)


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


def check_snapshot(env: StreamExecutionEnvironment, settings: Settings) -> None:
    """Raise :class:`SettingsError` if the job is to start from a snapshot older than `privacy.snapshots_kept_ms`.

    Its age is that of its `_metadata` file. What cannot be found is left to Flink to complain of.
    """
    configuration = env._j_stream_execution_environment.getConfiguration()
    gateway = get_gateway()
    option = gateway.jvm.org.apache.flink.configuration.StateRecoveryOptions.SAVEPOINT_PATH
    path = configuration.get(option)
    if path is None:
        return
    written_ms = _written_ms(str(path))
    if written_ms is None:
        return
    age_ms = clock_ms() - written_ms
    if age_ms > settings.privacy.snapshots_kept_ms:
        raise SettingsError(
            f"the snapshot is {age_ms / DAY_MS:.1f} days old, and privacy.snapshots_kept_ms allows "
            f"{settings.privacy.snapshots_kept_ms / DAY_MS:.1f}: withdrawals and erasures since may be read no more"
        )


def _written_ms(path: str) -> int | None:
    fs = get_gateway().jvm.org.apache.flink.core.fs
    for name in (path, f"{path.rstrip('/')}/_metadata"):
        try:
            status = fs.Path(name).getFileSystem().getFileStatus(fs.Path(name))
        except Py4JJavaError:
            continue
        if not status.isDir():
            return int(status.getModificationTime())
    return None
