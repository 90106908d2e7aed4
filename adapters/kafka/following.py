"""Follows a topic from given offsets on, which the caller keeps."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from kafka import TopicPartition

from adapters.kafka.reading import open_consumer, partitions_of
from adapters.kafka.settings import KafkaSettings

POLL_MS: Final = 200


class TopicFollower:
    """The committed records of the topic `name`, in order within each partition, at most `records_max` at once.

    `offsets` are the next ones to read, by partition; a partition without one is read from its beginning, and so is one
    whose offset does not exist any more. `topic` is its full name. Raises as
    :func:`adapters.kafka.reading.partitions_of`. Close it.
    """

    def __init__(self, kafka: KafkaSettings, name: str, offsets: Mapping[str, int], records_max: int) -> None:
        self.topic, self._records_max = kafka.topic(name), records_max
        self._consumer = open_consumer(kafka)
        self._partitions: list[TopicPartition] = []
        try:
            self._assign(offsets)
        except BaseException:
            self._consumer.close()
            raise

    def poll(self, timeout_ms: int) -> list[Any]:
        """The next records; none if there are none within `timeout_ms`."""
        self._assign({})
        batches = self._consumer.poll(timeout_ms=timeout_ms, max_records=self._records_max)
        return [record for batch in batches.values() for record in batch]

    def up_to_now(self) -> Iterator[list[Any]]:
        """Batches of records, until everything that is in the topic now has been read."""
        self._assign({})
        ends = self._consumer.end_offsets(self._partitions)
        while any(self._consumer.position(partition) < end for partition, end in ends.items()):
            if batch := self.poll(POLL_MS):
                yield batch

    def left(self) -> int:
        """How many offsets are still to be read."""
        ends = self._consumer.end_offsets(self._partitions)
        return sum(max(0, end - self._consumer.position(partition)) for partition, end in ends.items())

    def offsets(self) -> dict[str, int]:
        """The next offset of each partition, after everything that was returned."""
        return {str(one.partition): self._consumer.position(one) for one in self._partitions}

    def close(self) -> None:
        """Close the consumer; idempotent."""
        self._consumer.close()

    def _assign(self, offsets: Mapping[str, int]) -> None:
        """Take on the partitions that were added to the topic."""
        found = partitions_of(self._consumer, self.topic)
        if found == self._partitions:
            return
        places = {one: self._consumer.position(one) for one in self._partitions}
        self._consumer.assign(found)
        for one in found:
            if (place := places.get(one, offsets.get(str(one.partition)))) is None:
                self._consumer.seek_to_beginning(one)
            else:
                self._consumer.seek(one, place)
        self._partitions = found
