"""Where the chains of the audit trail end that a job continues which has taken over from another."""

from collections.abc import Iterable

import msgspec
from kafka import TopicPartition

from adapters.kafka.reading import open_consumer, partitions_of
from adapters.kafka.settings import KafkaSettings
from jobs.registration import recent_heads
from schemas import topics
from schemas.audit import AuditPlace
from schemas.handover import Handover
from schemas.topics import HOUR_MS
from udfs.audit_chain import ChainHead

_decode = msgspec.json.Decoder(AuditPlace).decode


def last_records(kafka: KafkaSettings, handover: Handover) -> dict[int, ChainHead]:
    """The end of each bucket's chain before the first record of the job `handover.to`.

    From the records since that job was submitted; of buckets that have recorded nothing since, from recent heads.
    """
    ends: dict[int, ChainHead] = {}
    for head in recent_heads(kafka):
        if head.epoch < handover.to:
            _note(ends, head.bucket, ChainHead(head.epoch, head.seq, head.hash))
    for value in _since(kafka, handover.to - HOUR_MS):
        try:
            place = _decode(value or b"")
        except (ValueError, RecursionError):
            continue
        if place.epoch < handover.to:
            _note(ends, place.bucket, ChainHead(place.epoch, place.seq, place.hash))
    return ends


def _note(ends: dict[int, ChainHead], bucket: int, head: ChainHead) -> None:
    known = ends.get(bucket)
    if known is None or (head.epoch, head.seq) > (known.epoch, known.seq):
        ends[bucket] = head


def _since(kafka: KafkaSettings, since_ms: int) -> Iterable[bytes | None]:
    """The committed records of `audit` appended from `since_ms` on."""
    consumer = open_consumer(kafka)
    try:
        partitions = partitions_of(consumer, kafka.topic(topics.AUDIT))
        ends = consumer.end_offsets(partitions)
        starts = consumer.offsets_for_times(dict.fromkeys(partitions, since_ms))
        behind: dict[TopicPartition, int] = {one: found.offset for one, found in starts.items() if found is not None}
        consumer.assign([*behind])
        for partition, offset in behind.items():
            consumer.seek(partition, offset)
        while any(consumer.position(partition) < ends[partition] for partition in behind):
            for records in consumer.poll(timeout_ms=500).values():
                yield from (record.value for record in records)
    finally:
        consumer.close()
