"""The history of the `events` topic as JSON-lines on standard output, for training::

    python -m jobs.history --settings freshet.toml | python -m models.train - --out model

Only what was accepted under a consent to `train`, as it stood when the event was accepted; pseudonyms, never user ids.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
from kafka import KafkaConsumer, TopicPartition

from jobs.settings import Settings, load_settings, python_kafka_options
from schemas import topics
from schemas.errors import FreshetError, SettingsError


class _Purposes(msgspec.Struct):
    purposes: list[str]


def history(settings: Settings, purpose: str = "train") -> Iterator[bytes]:
    """The clean events that stand in the topic now and may be used for `purpose`, in the order of each partition."""
    topic = settings.kafka.topic(topics.EVENTS)
    consumer = KafkaConsumer(
        **python_kafka_options(settings.kafka),
        group_id=None,
        enable_auto_commit=False,
        isolation_level="read_committed",
        max_poll_records=10_000,
    )
    try:
        partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
        if not partitions:
            raise SettingsError(f"there is no topic {topic}: check kafka.topic_prefix and kafka.bootstrap_servers")
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends = consumer.end_offsets(partitions)
        decode = msgspec.json.Decoder(_Purposes).decode
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            for records in consumer.poll(timeout_ms=500).values():
                yield from (record.value for record in records if purpose in decode(record.value).purposes)
    finally:
        consumer.close()


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m jobs.history", description="Print the clean events as JSON-lines.")
    parser.add_argument("--settings", type=Path, required=True, help="the TOML file of the job")
    options = parser.parse_args(arguments)
    events = 0
    try:
        for event in history(load_settings(options.settings)):
            sys.stdout.buffer.write(event + b"\n")
            events += 1
    except FreshetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{events} events", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
