"""The parts of a job that depend on Flink and Kafka: source, sinks, keys and execution mode."""

from pyflink.common import Configuration
from pyflink.common.serialization import ByteArraySchema
from pyflink.datastream import DataStream, StreamExecutionEnvironment
from pyflink.datastream.connectors.base import DeliveryGuarantee
from pyflink.datastream.connectors.kafka import KafkaRecordSerializationSchema, KafkaSink
from pyflink.java_gateway import get_gateway
from pyflink.table import StreamTableEnvironment, Table
from pyflink.table.expressions import col

from jobs.kafka_properties import flink_kafka_properties
from jobs.settings import Settings

LINGER_MS = {True: 100, False: 20}
"""How long a sink waits for more records to send together. Exactly-once output becomes visible only at the next
checkpoint; receipts of consents have readers that wait."""
DISCOVERY_S = 5
SOURCE_UID = "raw-records-v1"
RAW_COLUMNS = ("topic", "partition", "offset", "append_time", "key", "value")


def raw_records(t_env: StreamTableEnvironment, settings: Settings) -> DataStream:
    """The unchanged records of the raw topics: topic, partition, offset, append time, key, value.

    Reads committed records only. Without a savepoint it starts at the earliest record, so that state is complete.
    """
    kafka = settings.kafka
    options = {
        "connector": "kafka",
        "topic": ";".join(settings.topic_names()),
        "key.format": "raw",
        "key.fields": "key",
        "value.format": "raw",
        "value.fields-include": "EXCEPT_KEY",
        "scan.startup.mode": "earliest-offset",
        # A new partition is read from its beginning, at the latest after this time: it may hold a withdrawal.
        "scan.topic-partition-discovery.interval": f"{DISCOVERY_S} s",
        "properties.group.id": kafka.group(),
        "properties.isolation.level": "read_committed",
        # The broker answers every 10 ms, or once there is enough data. An answer per append would make batches of a few
        # events at low rates, and each batch costs the broker and the job more than its events.
        "properties.fetch.max.wait.ms": "10",
        "properties.fetch.min.bytes": "1048576",
        "properties.max.poll.records": "2000",
        **{f"properties.{name}": value for name, value in flink_kafka_properties(kafka).items()},
    }
    with_clause = ", ".join(f"{_sql(name)} = {_sql(value)}" for name, value in options.items())
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE raw_records ("
        "`key` BYTES, `value` BYTES, "
        "`topic` STRING METADATA VIRTUAL, `partition` INT METADATA VIRTUAL, `offset` BIGINT METADATA VIRTUAL, "
        "`append_time` TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL"
        f") WITH ({with_clause})"
    )
    return to_stream(t_env, t_env.from_path("raw_records"))


def _sql(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def to_stream(t_env: StreamTableEnvironment, raw: Table) -> DataStream:
    """Return the columns :data:`RAW_COLUMNS` of `raw` as the planner's own rows, which only Java operators can read.

    Sets our own uid on the Kafka source, because the planner's uid changes with the query.
    """
    table = raw.select(*(col(name) for name in RAW_COLUMNS))
    row_data = get_gateway().jvm.Class.forName("org.apache.flink.table.data.RowData")
    row_type = table._j_table.getResolvedSchema().toPhysicalRowDataType().bridgedTo(row_data)
    stream = DataStream(t_env._j_tenv.toDataStream(table._j_table, row_type))
    for predecessor in stream._j_data_stream.getTransformation().getTransitivePredecessors():
        if predecessor.getClass().getSimpleName() == "SourceTransformation":
            predecessor.setUid(SOURCE_UID)
    return stream


def sink_to_topic(stream: DataStream, topic: str, settings: Settings, exactly_once: bool) -> None:
    """Write the byte records of `stream` to `topic`; the uid is derived from the topic's short name."""
    kafka = settings.kafka
    record = KafkaRecordSerializationSchema.builder()
    record.set_topic(kafka.topic(topic)).set_value_serialization_schema(ByteArraySchema())
    guarantee = DeliveryGuarantee.EXACTLY_ONCE if exactly_once else DeliveryGuarantee.AT_LEAST_ONCE
    builder = KafkaSink.builder().set_record_serializer(record.build()).set_delivery_guarantee(guarantee)
    batching = {"linger.ms": str(LINGER_MS[exactly_once]), "batch.size": "262144"}
    for name, value in {**flink_kafka_properties(kafka), **batching}.items():
        builder.set_property(name, value)
    builder.set_bootstrap_servers(kafka.bootstrap_servers)
    if exactly_once:
        builder.set_transactional_id_prefix(f"{kafka.group()}-{topic}")
        builder.set_property("transaction.timeout.ms", str(settings.transaction_timeout_ms()))
    stream.sink_to(builder.build()).uid(f"{topic}-v1").name(topic)


def execution_mode(env: StreamExecutionEnvironment) -> str:
    """Return `thread` or `process`, from the cluster's configuration and the command line together."""
    configuration = env._j_stream_execution_environment.getConfiguration()
    j_options = get_gateway().jvm.org.apache.flink.python.PythonOptions
    return str(configuration.get(j_options.PYTHON_EXECUTION_MODE))


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
