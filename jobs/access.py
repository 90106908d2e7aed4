"""All that is held of one person, as one JSON document: rights of access and portability (GDPR, articles 15 and 20)::

    python -m jobs.access --settings freshet.toml --user ID --role "privacy officer" --purpose "request 47" > held.json

`--user -` reads the id from standard input, so that it stands in no history of commands. The job answers with its state
while it runs; Redis and the topics are read as they stand. The reading itself goes into the audit trail. Exports are
files of their own, under names of their own: they are not looked into.
"""

import argparse
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from jobs.asking import Asking
from jobs.clock import clock_ms
from jobs.erasure_search import names_any
from jobs.kafka_reading import records
from jobs.settings import Settings, load_settings
from schemas import topics
from schemas.control import AccessCommand
from schemas.errors import FreshetError, SettingsError
from schemas.pseudonyms import Pseudonymiser, load_key_ring
from schemas.receipts import StateReceipt
from schemas.secret_files import secret
from udfs.store import RedisStore, connect


def held(settings: Settings, user_id: str, role: str, purpose: str) -> dict[str, Any]:
    """Everything that is held of `user_id`, by where it is held; what is not there is null or empty."""
    names = Pseudonymiser(load_key_ring(settings.privacy.key_ring)).all(user_id)
    raw = user_id.encode()
    return {
        "user_id": user_id,
        "pseudonyms": names,
        "collected_at": clock_ms(),
        "profile_and_consent": _state(settings, user_id, role, purpose),
        "redis": _in_redis(settings, names),
        "consent_history": list(_told(settings, topics.CONSENTS, lambda record: record.key == raw)),
        "raw_interactions": list(_told(settings, topics.INTERACTIONS, lambda record: record.key == raw)),
        "clean_events": list(_told(settings, topics.EVENTS, names_any(names))),
        "audit_trail": list(_told(settings, topics.AUDIT, names_any(names))),
    }


def _state(settings: Settings, user_id: str, role: str, purpose: str) -> Any:
    """What the job keeps, or None."""
    with Asking(settings) as asking:
        answer = asking.one(AccessCommand(user_id, uuid.uuid4().hex, role, purpose), StateReceipt)
    return msgspec.json.decode(answer.state)


def _in_redis(settings: Settings, names: list[str]) -> dict[str, Any]:
    """The user's keys as they stand, lists as JSON."""
    client = connect(settings.redis, secret(settings.redis.password_variable))
    try:
        found = RedisStore(client, settings.redis.prefix, 0, settings.tombstone_ms()).held(names)
    finally:
        client.close()
    return {key: _readable(value) for key, value in found.items()}


def _told(settings: Settings, topic: str, concerns: Callable[[Any], bool]) -> Iterator[dict[str, Any]]:
    for record in records(settings, topic):
        if concerns(record):
            place = {"partition": record.partition, "offset": record.offset, "appended_at": record.timestamp}
            yield {**place, "record": _readable(record.value)}


def _readable(value: bytes | None) -> Any:
    """JSON where it is JSON; records of other formats as the hexadecimal digits of their bytes."""
    try:
        return None if value is None else msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {"hex": (value or b"").hex()}


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.access", description="All that is held of one person, as JSON."
    )
    parser.add_argument("--settings", type=Path, required=True, help="the TOML file of the job")
    parser.add_argument("--user", required=True, metavar="ID", help="the user id; - reads it from standard input")
    parser.add_argument("--role", required=True, help="who asks; goes into the audit trail")
    parser.add_argument("--purpose", required=True, help="what for; goes into the audit trail")
    options = parser.parse_args(arguments)
    user_id = sys.stdin.readline().rstrip("\n") if options.user == "-" else options.user
    try:
        if not user_id:
            raise SettingsError("no user id was given")
        document = held(load_settings(options.settings), user_id, options.role, options.purpose)
    except FreshetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(document)) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
