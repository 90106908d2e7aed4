"""Our Java operators: crossing to Python would cost more than their work.

Their sources in `jobs/java` travel with the job and are compiled where it runs, as Flink does it with what it generates
for SQL: there is no jar to build, and none to put into a cluster.
"""

import pkgutil
from typing import Any

from pyflink.common import Types
from pyflink.datastream import DataStream
from pyflink.java_gateway import get_gateway

from jobs.settings import BatchSettings


def snapshot_guard(raw: DataStream, pins: str, kept_ms: int, transaction_ms: int) -> DataStream:
    """`raw` as it is, in a job that restores no snapshot with other `pins` and none older than `kept_ms`.

    It warns of one that is older than transactions of the sinks last: something may be lost.
    """
    row_type = raw._j_data_stream.getType()
    return _through(raw, "SnapshotGuard", "snapshot-guard", (pins, str(kept_ms), str(transaction_ms)), row_type)


def record_batches(raw: DataStream, bounds: BatchSettings) -> DataStream:
    """Batches of the records of `raw`, rows of (topic, partition, offset, append time, key, value), each as bytes."""
    return _through(raw, "RecordBatches", "batch", (bounds.records_max, bounds.bytes_max, bounds.wait_ms))


def split_lines(stream: DataStream, name: str) -> DataStream:
    """A record for each line of the records of `stream`, both bytes."""
    return _through(stream, "RecordLines", name, ())


def _through(
    stream: DataStream, java_class: str, name: str, settings: tuple[int | str, ...], j_type: Any = None
) -> DataStream:
    """`stream` through a chained operator of `java_class`, which takes `settings` and gives `j_type`, or bytes."""
    gateway, j_stream = get_gateway(), stream._j_data_stream
    flink = gateway.jvm.org.apache.flink
    source = pkgutil.get_data("jobs", f"java/{java_class}.java") or b""
    j_settings = gateway.new_array(gateway.jvm.Object, len(settings))
    for place, setting in enumerate(settings):
        j_settings[place] = setting
    runtime, configuration = flink.table.runtime, flink.configuration.Configuration()
    generated = runtime.generated.GeneratedOperator(java_class, source.decode(), j_settings, configuration)
    operator = flink.streaming.api.transformations.OneInputTransformation(
        j_stream.getTransformation(),
        name,
        runtime.operators.CodeGenOperatorFactory(generated),
        j_type or Types.PRIMITIVE_ARRAY(Types.BYTE()).get_java_type_info(),
        j_stream.getParallelism(),
        False,
    )
    operator.setUid(f"{name}-v1")
    environment = j_stream.getExecutionEnvironment()
    environment.addOperator(operator)
    return DataStream(flink.streaming.api.datastream.DataStream(environment, operator))
