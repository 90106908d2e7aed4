"""The consent changes that stand in `consents`, as whoever wrote them said them. Raw user ids are in them."""

from collections.abc import Iterator
from typing import NamedTuple

from jobs.settings import Settings
from schemas import topics
from schemas.codec_choice import codec_for
from schemas.codecs import BadRecord, Codec
from schemas.consent_records import said_in
from schemas.consents import ConsentChange
from schemas.kafka_reading import records
from schemas.marks import MARK_KEY, MOVE_ON_KEY


class Recorded(NamedTuple):
    """A change and its place: append time in ms, partition, offset. `absent`: the record has no value."""

    change: ConsentChange
    place: tuple[int, int, int]
    absent: bool
    key: bytes | None


def recorded_changes(settings: Settings) -> Iterator[Recorded]:
    """Every change, in the order of each partition. What the job rejects is left out."""
    source = settings.input
    codec = codec_for(source.format, source.framing, source.schema_source)
    for record in records(settings.kafka, topics.CONSENTS):
        change = change_of(codec, record.key, record.value, record.timestamp)
        if change is not None:
            place = record.timestamp, record.partition, record.offset
            yield Recorded(change, place, record.value is None, record.key)


def change_of(codec: Codec, key: bytes | None, value: bytes | None, append_ts: int) -> ConsentChange | None:
    """What a record of `consents` says, as the job reads it; None where it names nobody."""
    if key in (MARK_KEY, MOVE_ON_KEY):
        return None
    try:
        return said_in(codec, key, value, append_ts).change
    except BadRecord:
        return None
