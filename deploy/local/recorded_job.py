"""A job that loads the same classes as our jobs, for record_classes.py: Kafka input and output, SQL, keyed state."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from pyflink.common import Types
from pyflink.common.serialization import SimpleStringSchema
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.datastream.connectors.kafka import KafkaRecordSerializationSchema, KafkaSink
from pyflink.datastream.functions import KeyedProcessFunction, RuntimeContext
from pyflink.datastream.state import MapState, MapStateDescriptor
from pyflink.table import StreamTableEnvironment

_SOURCE = """
CREATE TABLE numbers (`value` BYTES, `offset` BIGINT METADATA) WITH (
  'connector' = 'kafka', 'topic' = '{topic}', 'format' = 'raw',
  'scan.startup.mode' = 'earliest-offset', 'properties.bootstrap.servers' = '{servers}')
"""


class Count(KeyedProcessFunction):  # type: ignore[misc]
    """Counts how often each value arrived."""

    def open(self, runtime_context: RuntimeContext) -> None:
        """Open the state."""
        descriptor = MapStateDescriptor("counts-v1", Types.STRING(), Types.PICKLED_BYTE_ARRAY())
        self._counts: MapState = runtime_context.get_map_state(descriptor)

    def process_element(self, value: str, ctx: KeyedProcessFunction.Context) -> Iterator[str]:
        """Count one value."""
        count = int(self._counts.get(value) or 0) + 1
        self._counts.put(value, str(count).encode())
        yield f"{value} {count}"


def main(servers: str, topic_in: str, topic_out: str) -> None:
    """Build and submit."""
    environment = StreamExecutionEnvironment.get_execution_environment()
    tables = StreamTableEnvironment.create(environment)
    tables.execute_sql(_SOURCE.format(topic=topic_in, servers=servers))
    rows = tables.to_data_stream(tables.sql_query("SELECT DECODE(`value`, 'UTF-8') FROM numbers"))
    texts = rows.map(lambda row: row[0], Types.STRING())
    counts = texts.key_by(lambda text: text, Types.STRING()).process(Count(), Types.STRING()).uid("count")
    schema = KafkaRecordSerializationSchema.builder().set_topic(topic_out)
    schema = schema.set_value_serialization_schema(SimpleStringSchema()).build()
    counts.sink_to(KafkaSink.builder().set_bootstrap_servers(servers).set_record_serializer(schema).build())
    environment.execute("record classes")


if __name__ == "__main__":
    main(*sys.argv[1:4])
