"""A job that loads the same classes as our jobs, for record_classes.py: Kafka input and output, keyed state."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from pyflink.common import Types, WatermarkStrategy
from pyflink.common.serialization import SimpleStringSchema
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.datastream.connectors.kafka import (
    KafkaOffsetsInitializer,
    KafkaRecordSerializationSchema,
    KafkaSink,
    KafkaSource,
)
from pyflink.datastream.functions import KeyedProcessFunction, RuntimeContext
from pyflink.datastream.state import MapState, MapStateDescriptor


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
    source = KafkaSource.builder().set_bootstrap_servers(servers).set_topics(topic_in)
    source.set_starting_offsets(KafkaOffsetsInitializer.earliest()).set_value_only_deserializer(SimpleStringSchema())
    texts = environment.from_source(source.build(), WatermarkStrategy.no_watermarks(), "numbers")
    counts = texts.key_by(lambda text: text, Types.STRING()).process(Count(), Types.STRING()).uid("count")
    schema = KafkaRecordSerializationSchema.builder().set_topic(topic_out)
    schema = schema.set_value_serialization_schema(SimpleStringSchema()).build()
    counts.sink_to(KafkaSink.builder().set_bootstrap_servers(servers).set_record_serializer(schema).build())
    environment.execute("record classes")


if __name__ == "__main__":
    main(*sys.argv[1:4])
