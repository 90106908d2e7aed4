"""A tenant of the gateway, with its own keys, lists and topics; tenants share nothing."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from adapters.kafka.reading import OnPoll
from adapters.kafka.settings import python_kafka_options
from adapters.redis.client import RedisClient
from adapters.schema_sources import codec_of
from adapters.secrets.key_rings import load_key_ring
from schemas.control import AccessCommand
from schemas.pseudonyms import Pseudonymiser
from schemas.store import mark_of
from serving.accesses import AccessLog
from serving.async_reader import AsyncReader
from serving.catalogue import Catalogue
from serving.consents import Consents
from serving.events import EventProducer
from serving.gateway.gateway_settings import GatewaySettings
from serving.gateway.problems import Problem
from serving.held_data import Collector, is_erased_since
from serving.kept_answers import KeptAnswers

ANSWER_LASTS_LONGER_S: Final = 60.0
"""Added to the longest collection: a request that is not answered by then never will be."""
FENCE_TIMEOUT_MS: Final = 1_000
"""A withdrawal may wait longer for Redis than a list."""


class Tenant(msgspec.Struct, frozen=True):
    """What serves the requests of one tenant.

    `note_read` is called with the user and role of each read. `models` is when a list of each model (its name as JSON)
    was last served here, in ms since the epoch. `names` returns the pseudonyms of a user, the current one first, and
    `request_name` the keyed hash of a request id, for the log. `held` collects all data held about one, blocking, up to
    a number of bytes. `answers` keeps it for the requester, and `is_erased_since` (a time in ms) says when it must no
    longer be returned. `closing` closes everything but the reader, which the loop closes; each call may wait for Kafka.
    """

    name: str
    reader: AsyncReader
    catalogue: Catalogue
    note_read: Callable[[str, str], None]
    events: EventProducer
    consents: Consents
    models: dict[bytes, int]
    names: Callable[[str], list[str]]
    request_name: Callable[[bytes], str]
    held: Callable[[AccessCommand, int, OnPoll], dict[str, Any]]
    answers: KeptAnswers
    is_erased_since: Callable[[str, int], bool]
    closing: list[Callable[[], None]]


def make_tenant(name: str, settings: GatewaySettings) -> Tenant:
    """Create a tenant; only its catalogue connects already. Raises :class:`SettingsError`."""
    of = settings.tenant(name)
    ring = load_key_ring(of.key_ring)
    kafka: dict[str, Any] = python_kafka_options(settings.kafka)
    password = settings.redis_password()
    catalogue = Catalogue(kafka, topic_prefix=of.topic_prefix)
    audit = settings.audit
    accesses = AccessLog(
        kafka,
        role="frontend",
        purpose=audit.purpose,
        share=audit.share,
        topic_prefix=of.topic_prefix,
        every_s=audit.every_s,
    )
    events = EventProducer(kafka, topic_prefix=of.topic_prefix, input=of.input)
    prefix = of.redis_prefix
    quick, tenant = msgspec.structs.replace(settings.redis, timeout_ms=FENCE_TIMEOUT_MS), mark_of(ring, of.topic_prefix)
    store = RedisClient(quick, password, prefix=prefix, tenant=tenant)
    life_ms = of.tombstone_life_ms()
    consents = Consents(store, kafka, ring, tombstone_ms=life_ms, topic_prefix=of.topic_prefix, input=of.input)
    pseudonymiser = Pseudonymiser(ring)
    names = pseudonymiser.all

    def request_name(request: bytes) -> str:
        return pseudonymiser.request(request.decode(errors="replace")).hex()

    of_tenant = msgspec.structs.replace(settings.kafka, topic_prefix=of.topic_prefix)

    def collect_personal_data(command: AccessCommand, bytes_max: int, on_poll: OnPoll) -> dict[str, Any]:
        codec = codec_of(of.input)  # per thread: it caches schemas
        collector = Collector(of_tenant, store, codec, everywhere=False, bytes_max=bytes_max, on_poll=on_poll)
        return collector.collect(names(command.user_id), command)

    def erased_since(user_id: str, at_ms: int) -> bool:
        return is_erased_since(store, names(user_id), at_ms)

    answers = KeptAnswers(of_tenant, settings.access.deadline_ms / 1000 + ANSWER_LASTS_LONGER_S)

    reader = AsyncReader(settings.redis, ring, prefix, password=password, catalogue=catalogue)
    closing = [catalogue.close, accesses.close, events.close, consents.close, answers.close]
    return Tenant(
        name,
        reader,
        catalogue,
        accesses.note,
        events,
        consents,
        {},
        names,
        request_name,
        collect_personal_data,
        answers,
        erased_since,
        closing,
    )


def tenant_of(tenants: Mapping[str, Tenant], name: str) -> Tenant:
    """The tenant that the credentials name. Raises :class:`Problem` (403)."""
    found = tenants.get(name)
    if found is None:
        raise Problem(403, "unknown-tenant", "this gateway does not serve the tenant of these credentials")
    return found
