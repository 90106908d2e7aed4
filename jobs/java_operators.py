"""Our Java operators: crossing to Python would cost more than their work.

Their sources are in `jobs/java`, their tests in `tests/java`. They reach the cluster in a jar that travels with the job
(:mod:`jobs.operators_jar`): there is none to put into Flink's lib/.
"""

from typing import Any

from pyflink.common import Types
from pyflink.datastream import DataStream, StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway

from jobs.operators_jar import operators_jar
from jobs.settings import BatchSettings


def snapshot_guard(raw: DataStream, pins: str, kept_ms: int, transaction_ms: int) -> DataStream:
    """`raw` as it is, in a job that restores no snapshot with other `pins` and none older than `kept_ms`.

    It warns of one that is older than transactions of the sinks last: something may be lost.
    """
    row_type = raw._j_data_stream.getType()
    return _through(raw, "SnapshotGuard", "snapshot-guard", (pins, kept_ms, transaction_ms), row_type)


def record_batches(raw: DataStream, bounds: BatchSettings) -> DataStream:
    """Batches of the records of `raw`, rows of (topic, partition, offset, append time, key, value), each as bytes."""
    return _through(raw, "RecordBatches", "batch", (bounds.records_max, bounds.bytes_max, bounds.wait_ms))


def split_lines(stream: DataStream, name: str) -> DataStream:
    """A record for each line of the records of `stream`, both bytes."""
    return _through(stream, "RecordLines", name, ())


def _through(
    stream: DataStream, java_class: str, name: str, settings: tuple[int | str, ...], j_type: Any = None
) -> DataStream:
    """`stream` through a chained operator of `java_class`, made with `settings`, that gives `j_type`, or bytes."""
    _take_along(stream.get_execution_environment(), operators_jar().as_uri())
    operator = getattr(get_gateway().jvm.freshet, java_class)(*settings)
    j_bytes = Types.PRIMITIVE_ARRAY(Types.BYTE()).get_java_type_info()
    return DataStream(stream._j_data_stream.transform(name, j_type or j_bytes, operator)).uid(f"{name}-v1")


def _take_along(env: StreamExecutionEnvironment, jar: str) -> None:
    """Send `jar`, a URI, with the job, once, and find its classes here."""
    configuration = env._j_stream_execution_environment.getConfiguration()
    jars = get_gateway().jvm.org.apache.flink.configuration.PipelineOptions.JARS
    if jar not in (configuration.get(jars) or ()):
        env.add_jars(jar)
