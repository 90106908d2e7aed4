"""Consents recorded by an officer, through the client library, as frontends do."""

import contextlib

from adapters.kafka.settings import python_kafka_options
from adapters.secrets.key_rings import load_key_ring
from jobs.clock import clock_ms
from jobs.marks import connect_as_tenant
from jobs.settings import Settings
from schemas.consents import ConsentChange
from serving.consents import Consents, RecordedConsent


def record(settings: Settings, change: ConsentChange) -> RecordedConsent:
    """Record `change` as JSON, which every job reads; returns once it is acknowledged.

    Raises what :meth:`serving.consents.Consents.record` raises.
    """
    with contextlib.closing(_consents(settings)) as consents:
        return consents.record(change)


def erase(settings: Settings, user_id: str) -> RecordedConsent:
    """Record the erasure of `user_id` (GDPR, article 17)."""
    return record(settings, ConsentChange(user_id, "none", clock_ms(), erase=True))


def _consents(settings: Settings) -> Consents:
    return Consents(
        connect_as_tenant(settings),
        python_kafka_options(settings.kafka),
        load_key_ring(settings.privacy.key_ring),
        tombstone_ms=settings.tombstone_ms(),
        topic_prefix=settings.kafka.topic_prefix,
    )
