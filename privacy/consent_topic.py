"""The consent changes in `consents`, as recorded. They contain raw user ids."""

from collections.abc import Iterator
from typing import NamedTuple

from adapters.kafka.reading import records
from adapters.schema_sources import codec_of
from jobs.settings import Settings
from schemas import topics
from schemas.consents import ConsentChange
from schemas.marks import MARK_KEY, MOVE_ON_KEY
from schemas.wire.codecs import BadRecord, Codec
from schemas.wire.consent_records import UserDecision, consents_in


class Recorded(NamedTuple):
    """A change and its place: append time in ms, partition, offset. `absent`: the record has no value.

    An unreadable record may yield changes of two users.
    """

    change: ConsentChange
    place: tuple[int, int, int]
    absent: bool
    key: bytes | None


def recorded_changes(settings: Settings) -> Iterator[Recorded]:
    """Every change, in the order of each partition, without what the job rejects."""
    codec = codec_of(settings.input)
    for record in records(settings.kafka, topics.CONSENTS):
        place = record.timestamp, record.partition, record.offset
        for said in read_record(codec, record.key, record.value, record.timestamp):
            yield Recorded(said.change, place, said.absent, record.key)


def read_record(codec: Codec, key: bytes | None, value: bytes | None, append_ts: int) -> list[UserDecision]:
    """The changes in a record of `consents`, as the job reads it; none if it names no user."""
    if key in (MARK_KEY, MOVE_ON_KEY):
        return []
    try:
        return consents_in(codec, key, value, append_ts)
    except BadRecord:
        return []
