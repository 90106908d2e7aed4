"""Every user's consent for a purpose, read from the `consents` topic from its beginning to its current end."""

from collections.abc import Callable, Iterable

from adapters.kafka.reading import records
from adapters.schema_sources import codec_of
from jobs.settings import Settings, load_policy
from privacy.consent_topic import read_record
from privacy.rules.export_eligibility import Standings
from schemas import topics
from schemas.consents import Purpose
from schemas.wire.codecs import Codec
from udfs.ingest import RawRecord, consent_record
from udfs.policy import Policy


def read_standings(
    settings: Settings,
    purpose: Purpose,
    keys_of: Callable[[str], list[str]],
    name_of: Callable[[str], str] | None = None,
) -> Standings:
    """Read the standings. Raw user ids do not leave this function.

    `keys_of` returns the keys to look a user up by, `name_of` their export pseudonym.
    """
    topic, codec = settings.kafka.topic(topics.CONSENTS), codec_of(settings.input)
    stream = (
        RawRecord(topic, record.partition, record.offset, record.timestamp, record.key, record.value)
        for record in records(settings.kafka, topics.CONSENTS)
    )
    return standings_of(stream, purpose, codec, load_policy(settings.privacy.policy), keys_of, name_of)


def standings_of(
    stream: Iterable[RawRecord],
    purpose: Purpose,
    codec: Codec,
    policy: Policy,
    keys_of: Callable[[str], list[str]],
    name_of: Callable[[str], str] | None = None,
) -> Standings:
    """As :func:`read_standings`, from records of `consents`. What the job rejects has no effect here either."""
    standings = Standings(purpose)
    for record in stream:
        place = record.append_ts, record.partition, record.offset
        for said in read_record(codec, record.key, record.value, record.append_ts):
            user_id = said.change.user_id
            keys, name = keys_of(user_id), "" if name_of is None else name_of(user_id)
            standings.note(keys, consent_record(said.change, keys[0], place, policy, said.absent), name)
    return standings
