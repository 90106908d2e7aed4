"""All that is held of one person, as one document: rights of access and portability (GDPR, articles 15 and 20).

The job answers with its state while it runs; Redis and the topics are read as they stand. The reading itself goes into
the audit trail. Exports are files of their own, under names of their own: they are not looked into.
"""

import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from adapters.redis.client import RedisClient, always
from schemas import topics
from schemas.asking import ANSWER_TIMEOUT_S, state_of
from schemas.control import AccessCommand
from schemas.kafka_reading import names_any, records
from schemas.kafka_settings import KafkaSettings
from schemas.store import all_user_keys


def held(
    kafka: KafkaSettings,
    store: RedisClient,
    names: Sequence[str],
    command: AccessCommand,
    timeout_s: float = ANSWER_TIMEOUT_S,
) -> dict[str, Any]:
    """Everything that is held of a user who is known under `names`; what is not there is null or empty.

    `command` says of whom, who asks and what for; the job has `timeout_s` to answer it. Reads whole topics. Raises
    :class:`schemas.errors.FreshetError`.
    """
    raw = command.user_id.encode()
    # Read before the job is asked, which tells the trail of this very reading: soon, at a time that is not known.
    audit_trail = list(_told(kafka, topics.AUDIT, names_any(names)))
    return {
        "user_id": command.user_id,
        "pseudonyms": list(names),
        "profile_and_consent": _state(kafka, command, timeout_s),
        "redis": _in_redis(store, names),
        "consent_history": list(_told(kafka, topics.CONSENTS, lambda record: record.key == raw)),
        "raw_interactions": list(_told(kafka, topics.INTERACTIONS, lambda record: record.key == raw)),
        "clean_events": list(_told(kafka, topics.EVENTS, names_any(names))),
        "audit_trail": audit_trail,
    }


def access_command(user_id: str, role: str, purpose: str) -> AccessCommand:
    """Somebody in `role` asks for all that is held of a user, for `purpose`."""
    return AccessCommand(user_id, uuid.uuid4().hex, role, purpose)


def _state(kafka: KafkaSettings, command: AccessCommand, timeout_s: float) -> Any:
    """What the job keeps, or None."""
    return msgspec.json.decode(state_of(kafka, command, timeout_s).state)


def _in_redis(store: RedisClient, names: Sequence[str]) -> dict[str, Any]:
    """The user's keys as they stand, lists as JSON."""
    keys = [key for name in names for key in all_user_keys(store.prefix, name)]
    values = store.run(always([(key, ("GET", key)) for key in keys]))
    return {key: _readable(value) for key, value in zip(keys, values, strict=True) if value is not None}


def _told(kafka: KafkaSettings, topic: str, concerns: Callable[[Any], bool]) -> Iterator[dict[str, Any]]:
    for record in records(kafka, topic):
        if concerns(record):
            place = {"partition": record.partition, "offset": record.offset, "appended_at": record.timestamp}
            yield {**place, "record": _readable(record.value)}


def _readable(value: bytes | None) -> Any:
    """JSON where it is JSON; records of other formats as the hexadecimal digits of their bytes."""
    try:
        return None if value is None else msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {"hex": (value or b"").hex()}
