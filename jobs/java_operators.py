"""Our Java operators: crossing to Python would cost more than the work they do.

Their sources are in `jobs/java`, their tests in `tests/java`. A jar that travels with the job brings them to the
cluster (:mod:`jobs.operators_jar`); nothing has to be added to Flink's lib/.
"""

from typing import Any, Final

from pyflink.common import TypeInformation, Types
from pyflink.datastream import DataStream, KeyedStream, StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway

from jobs.operators_jar import operators_jar
from jobs.settings import BatchSettings

WAIT_MS: Final = {"thread": 1, "process": 20}
"""How long a batch gathers by default: a batch costs the bundle of a worker process, or next to nothing."""
GATHERED_BYTES_MAX: Final = 1 << 18
"""How large gathered elements grow: a few hundred events, with which the cost of an element hardly counts any more."""


def packed_record(env: StreamExecutionEnvironment) -> Any:
    """What a Kafka source makes of a record: all of it, as bytes that :func:`udfs.ingest.unpack_records` reads."""
    _ship_jar(env, operators_jar().as_uri())
    return get_gateway().jvm.freshet.PackedRecord()


def snapshot_guard(raw: DataStream, pins: str, kept_ms: int, transaction_ms: int) -> DataStream:
    """Pass `raw` through, and refuse to restore a snapshot with other `pins` or older than `kept_ms`.

    Warns if the snapshot is older than the life of the sinks' transactions: some output may be lost.
    """
    return _add_operator(raw, "SnapshotGuard", "snapshot-guard", (pins, kept_ms, transaction_ms))


def record_batches(raw: DataStream, bounds: BatchSettings, mode: str) -> DataStream:
    """Gather the packed records of `raw` into batches for operators in this execution mode."""
    wait_ms = WAIT_MS[mode] if bounds.wait_ms is None else bounds.wait_ms
    return _add_operator(raw, "RecordBatches", "batch", (bounds.records_max, bounds.bytes_max, wait_ms))


def gather_elements(keyed: KeyedStream, key_type: TypeInformation) -> KeyedStream:
    """Gather the elements (key, bytes) that reach a subtask, whatever their key, into packed arrays of them.

    :func:`udfs.elements.unpack_gathered` reads what comes out. Its key is that of the first element: the operator that
    follows sets the key of each itself.
    """
    jvm = get_gateway().jvm
    j_keyed, streams = keyed._j_data_stream, jvm.org.apache.flink.streaming.api.datastream
    # A plain stream over the same partitioning: on the keyed one, the operator would get a state backend of its own.
    j_partitioned = streams.DataStream(j_keyed.getExecutionEnvironment(), j_keyed.getTransformation())
    operator = jvm.freshet.GatheredElements(GATHERED_BYTES_MAX)
    j_gathered = j_partitioned.transform("gather", j_keyed.getType(), operator).uid("gather-v1")
    j_key_type = Types.ROW([key_type]).get_java_type_info()
    j_again = streams.DataStreamUtils.reinterpretAsKeyedStream(j_gathered, jvm.KeyByKeySelector(), j_key_type)
    return KeyedStream(j_again, keyed._original_data_type_info, keyed._origin_stream)


def split_lines(stream: DataStream, name: str) -> DataStream:
    """Emit one record for each line of the records of `stream`; both are bytes."""
    return _add_operator(stream, "RecordLines", name, ())


def _add_operator(stream: DataStream, java_class: str, name: str, settings: tuple[int | str, ...]) -> DataStream:
    """Pass `stream` through a chained operator of `java_class`, made with `settings`; both are of bytes."""
    _ship_jar(stream.get_execution_environment(), operators_jar().as_uri())
    operator = getattr(get_gateway().jvm.freshet, java_class)(*settings)
    j_bytes = Types.PRIMITIVE_ARRAY(Types.BYTE()).get_java_type_info()
    return DataStream(stream._j_data_stream.transform(name, j_bytes, operator)).uid(f"{name}-v1")


def _ship_jar(env: StreamExecutionEnvironment, jar: str) -> None:
    """Ship `jar`, a URI, with the job, once, and load its classes here."""
    configuration = env._j_stream_execution_environment.getConfiguration()
    jars = get_gateway().jvm.org.apache.flink.configuration.PipelineOptions.JARS
    if jar not in (configuration.get(jars) or ()):
        env.add_jars(jar)
