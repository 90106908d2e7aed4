"""The parts of a job that depend on Flink and Kafka: source, sinks, keys and execution mode."""

from pyflink.common import Configuration, Types, WatermarkStrategy
from pyflink.common.serialization import ByteArraySchema
from pyflink.datastream import DataStream, StreamExecutionEnvironment
from pyflink.datastream.connectors.base import DeliveryGuarantee
from pyflink.datastream.connectors.kafka import (
    KafkaOffsetsInitializer,
    KafkaRecordSerializationSchema,
    KafkaSink,
    KafkaSource,
)
from pyflink.java_gateway import get_gateway

from jobs.java_operators import packed_record
from jobs.kafka_properties import flink_kafka_properties
from jobs.open_transactions import EXACTLY_ONCE, transactional_prefix
from jobs.settings import Settings

LINGER_MS = {True: 100, False: 20}
"""How long a sink waits for more records to send together. Exactly-once output becomes visible only at the next
checkpoint; receipts of consents have readers that wait."""
DISCOVERY_S = 5
SOURCE_UID = "raw-records-v1"
_READING = {
    "isolation.level": "read_committed",
    # A new partition is read from its beginning, at the latest after this time: it may hold a withdrawal.
    "partition.discovery.interval.ms": str(DISCOVERY_S * 1_000),
    # The broker answers every 10 ms, or once there is enough data. An answer per append would make batches of a few
    # events at low rates, and each batch costs the broker and the job more than its events.
    "fetch.max.wait.ms": "10",
    "fetch.min.bytes": "1048576",
    "max.poll.records": "2000",
}


def raw_records(env: StreamExecutionEnvironment, settings: Settings) -> DataStream:
    """The unchanged records of the raw topics, packed one by one (`jobs/java/freshet/PackedRecord.java`).

    Reads committed records only. Without a savepoint it starts at the earliest record, so that state is complete.
    """
    kafka = settings.kafka
    source = KafkaSource.builder().set_topics(*settings.topic_names())
    source.set_group_id(kafka.group()).set_starting_offsets(KafkaOffsetsInitializer.earliest())
    for name, value in {**_READING, **flink_kafka_properties(kafka)}.items():
        source.set_property(name, value)
    source._j_builder.setDeserializer(packed_record(env))
    kind = Types.PRIMITIVE_ARRAY(Types.BYTE())
    return env.from_source(source.build(), WatermarkStrategy.no_watermarks(), "raw-records", kind).uid(SOURCE_UID)


def sink_to_topic(stream: DataStream, topic: str, settings: Settings, side: str = "") -> None:
    """Write the byte records of `stream` to `topic`; the uid is derived from the topic's short name.

    And from the `side`: a job that takes over must not restore the transactions of the one that still runs.
    """
    kafka, exactly_once = settings.kafka, topic in EXACTLY_ONCE
    record = KafkaRecordSerializationSchema.builder()
    record.set_topic(kafka.topic(topic)).set_value_serialization_schema(ByteArraySchema())
    guarantee = DeliveryGuarantee.EXACTLY_ONCE if exactly_once else DeliveryGuarantee.AT_LEAST_ONCE
    builder = KafkaSink.builder().set_record_serializer(record.build()).set_delivery_guarantee(guarantee)
    batching = {"linger.ms": str(LINGER_MS[exactly_once]), "batch.size": "262144"}
    for name, value in {**flink_kafka_properties(kafka), **batching}.items():
        builder.set_property(name, value)
    builder.set_bootstrap_servers(kafka.bootstrap_servers)
    if exactly_once:
        builder.set_transactional_id_prefix(transactional_prefix(kafka, topic))
        builder.set_property("transaction.timeout.ms", str(settings.transaction_timeout_ms()))
    stream.sink_to(builder.build()).uid("-".join(filter(None, (f"{topic}-v1", side)))).name(topic)


def execution_mode(env: StreamExecutionEnvironment) -> str:
    """Return `thread` or `process`, from the cluster's configuration and the command line together."""
    configuration = env._j_stream_execution_environment.getConfiguration()
    j_options = get_gateway().jvm.org.apache.flink.python.PythonOptions
    return str(configuration.get(j_options.PYTHON_EXECUTION_MODE))


def ignore_unclaimed_state(env: StreamExecutionEnvironment) -> None:
    """Restore a snapshot although some of its state belongs to no operator of this job."""
    configuration = Configuration()
    configuration.set_string("execution.state-recovery.ignore-unclaimed-state", "true")
    env.configure(configuration)


def relax_bundle_timer(env: StreamExecutionEnvironment) -> None:
    """Check less often whether a bundle is due: thread mode has no bundles, but each operator checks all the same.

    At the 10 ms that process mode needs, these checks waste 3 % of a core.
    """
    configuration = Configuration()
    configuration.set_string("python.fn-execution.bundle.time", "1000")
    env.configure(configuration)


def describe_buckets(buckets: int, parallelism: int) -> str:
    """Tell the submitter what the number of buckets means: it limits the parallelism for the life of the state.

    >>> describe_buckets(4, 2)
    'state is kept in 4 buckets: at most 4 subtasks of it ever have work, 2 of them run now'
    >>> describe_buckets(4, 6)
    'state is kept in 4 buckets: at most 4 subtasks of it ever have work, and 2 of the 6 that run now have none'
    """
    said = f"state is kept in {buckets} buckets: at most {buckets} subtasks of it ever have work"
    if parallelism > buckets:
        return f"{said}, and {parallelism - buckets} of the {parallelism} that run now have none"
    return f"{said}, {parallelism} of them run now"


def bucket_keys(buckets: int, max_parallelism: int) -> list[int]:
    """Choose an integer key for each bucket such that the buckets' key groups are evenly spaced.

    Consecutive integers hash unevenly: with 8 of them, one of two subtasks may get all the work.
    """
    jvm = get_gateway().jvm
    assign = jvm.org.apache.flink.runtime.state.KeyGroupRangeAssignment.assignToKeyGroup
    wanted = [(2 * bucket + 1) * max_parallelism // (2 * buckets) for bucket in range(buckets)]
    found: dict[int, int] = {}
    row = get_gateway().new_array(jvm.Object, 1)
    candidate = 0
    while len(found) < buckets:
        row[0] = candidate
        key_group = assign(jvm.org.apache.flink.types.Row.of(row), max_parallelism)
        if key_group in wanted:
            found.setdefault(key_group, candidate)
        candidate += 1
    return [found[key_group] for key_group in wanted]
