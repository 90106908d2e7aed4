"""A canary: a synthetic user, planted to show that a search would find its target."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import msgspec
from kafka import KafkaProducer

from adapters.kafka.settings import python_kafka_options
from adapters.kafka.settled_topic import Tail
from adapters.secrets.key_rings import load_key_ring
from jobs.clock import clock_ms
from jobs.settings import Settings
from privacy.erased_users import CANARY
from schemas import topics
from schemas.consents import ConsentChange
from schemas.events import Interaction
from schemas.pseudonyms import Pseudonymiser

LIFE_MS: Final = topics.HOUR_MS
"""The canary's consent expires after this time, in case its verification was killed."""


class Canary(NamedTuple):
    """A planted user."""

    user_id: str
    name: str


@contextmanager
def planted(settings: Settings, hashes: Pseudonymiser, timeout_s: float) -> Iterator[Canary]:
    """Plant a canary in state, Redis and the topics; erase it at the end.

    It consents like any client, but not to training, and its only interaction is a search, which changes no popular
    list. Its records are JSON, which every job reads besides its own format. Raises :class:`schemas.errors.JobSilent`
    if the job does not process them.
    """
    user_id = CANARY + secrets.token_hex(8)
    canary = Canary(user_id, hashes.user(user_id))
    receipts, events = Tail(settings.kafka, topics.RECEIPTS), Tail(settings.kafka, topics.EVENTS)
    producer = KafkaProducer(**python_kafka_options(settings.kafka), acks="all", linger_ms=0)
    named = f'"kind":"consent","pseudonym":"{canary.name}"'.encode()
    try:
        try:
            granted = ConsentChange(
                user_id,
                "full",
                clock_ms(),
                ["personalise", "measure"],
                method="canary",
                notice_version="canary",
                expires_at=clock_ms() + LIFE_MS,
            )
            _send(settings, producer, topics.CONSENTS, user_id, granted)
            receipts.wait_for(named, timeout_s=timeout_s)
            search = Interaction(secrets.token_hex(8), "search", clock_ms(), user_id)
            _send(settings, producer, topics.INTERACTIONS, user_id, search)
            if settings.events.publish:
                events.wait_for(canary.name.encode(), timeout_s=timeout_s)
            yield canary
        finally:
            _send(settings, producer, topics.CONSENTS, user_id, ConsentChange(user_id, "none", clock_ms(), erase=True))
        receipts.wait_for(named, b'"erased":true', timeout_s=timeout_s)
    finally:
        producer.close()
        receipts.close()
        events.close()


def prove(settings: Settings, timeout_s: float) -> None:
    """Raise :class:`schemas.errors.JobSilent` unless the job processes a canary's consent, search and erasure."""
    ring = load_key_ring(settings.privacy.key_ring)
    with planted(settings, Pseudonymiser(ring), timeout_s):
        pass


def _send(settings: Settings, producer: Any, topic: str, user_id: str, record: msgspec.Struct) -> None:
    name = settings.kafka.topic(topic)
    producer.send(name, key=user_id.encode(), value=msgspec.json.encode(record)).get(timeout=30)
