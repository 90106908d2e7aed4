"""The consent changes that are in `consents`, as whoever wrote them said them. Raw user ids are in them."""

from collections.abc import Iterator
from typing import NamedTuple

from adapters.kafka.reading import records
from adapters.schema_sources import codec_of
from jobs.settings import Settings
from schemas import topics
from schemas.consents import ConsentChange
from schemas.marks import MARK_KEY, MOVE_ON_KEY
from schemas.wire.codecs import BadRecord, Codec
from schemas.wire.consent_records import Said, consents_in


class Recorded(NamedTuple):
    """A change and its place: append time in ms, partition, offset. `absent`: the record has no value.

    A record that cannot be read may be a change of two users.
    """

    change: ConsentChange
    place: tuple[int, int, int]
    absent: bool
    key: bytes | None


def recorded_changes(settings: Settings) -> Iterator[Recorded]:
    """Every change, in the order of each partition. What the job rejects is left out."""
    codec = codec_of(settings.input)
    for record in records(settings.kafka, topics.CONSENTS):
        place = record.timestamp, record.partition, record.offset
        for said in read_record(codec, record.key, record.value, record.timestamp):
            yield Recorded(said.change, place, said.absent, record.key)


def read_record(codec: Codec, key: bytes | None, value: bytes | None, append_ts: int) -> list[Said]:
    """What a record of `consents` says of each user, as the job reads it; nothing where it names nobody."""
    if key in (MARK_KEY, MOVE_ON_KEY):
        return []
    try:
        return consents_in(codec, key, value, append_ts)
    except BadRecord:
        return []
