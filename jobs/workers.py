"""Opens what the operators need, in the worker and from the settings, so that no secret enters the job graph."""

import functools
import gc
from collections.abc import Callable
from typing import Final, TypeVar, cast

from adapters.log_output import log_from_worker
from adapters.redis.store import RedisStore
from adapters.schema_sources import codec_of, source_at
from adapters.secrets.key_rings import load_key_ring
from adapters.secrets.signing_keys import load_signing_key
from adapters.tracing.span_sender import span_sender
from jobs.clock import clock_ms
from jobs.handover_gate import handover_gate
from jobs.kafka_properties import flink_kafka_properties
from jobs.marks import Marker, connect_as_tenant
from jobs.model_versions import opener, registry_of, version_of
from jobs.remote_model import with_remote
from jobs.settings import Settings, load_policy
from jobs.shared_catalogue import SharedCatalogue, load_rules, shared_catalogue
from jobs.unread import UnreadWatch, look_at_unread
from models.scorer import Scorer
from schemas.log_lines import LogField, LogSettings
from schemas.model_versions import DEFAULT, ONLINE
from schemas.pseudonyms import Pseudonymiser, recommendation_ids
from udfs.audit_chain import Author
from udfs.fallback_model import FallbackModel
from udfs.frozen_model import FrozenModel
from udfs.ingest import Ingest
from udfs.online_model import OnlineModel
from udfs.operators.gate import ClockedStore, WriteGate
from udfs.operators.generation_keeper import GenerationParts
from udfs.operators.learn_operator import LearnParts
from udfs.operators.list_store import ListStore
from udfs.operators.model_shelf import ModelShelf
from udfs.operators.personalise_operator import PersonaliseParts
from udfs.operators.popular_operator import PopularParts
from udfs.ranking import POPULARITY, ListModel, PopularItems, Ranker

T = TypeVar("T")
JOB: Final = "freshet-job"
"""The name of the service in logs and traces."""


def check_openable(settings: Settings) -> None:
    """Open once what every worker opens, so that a failure stops the submission and not every worker.

    Raises a :class:`schemas.errors.FreshetError` that describes the failure. Redis may be unavailable.
    """
    flink_kafka_properties(settings.kafka)
    source = settings.input
    if source.schema_source is not None and source.format != "json":
        source_at(source.schema_source).fetch(source.format, 1)  # any id will do: this checks that a registry answers
    if settings.model.versions is not None:
        registry_of(settings)
    open_ingest(settings, list(range(settings.job.buckets)), settings.job.buckets)
    open_personalise_parts(settings, 1, "")  # its store connects at first use
    open_popular_parts(settings, 1)
    open_learn_parts(settings, 1)


def open_logging(logs: LogSettings, job: str, epoch: int, open_parts: Callable[[], T]) -> T:
    """Set up this worker's log for the job, and return `open_parts()`."""
    fields: dict[str, LogField] = {"service.name": JOB, "freshet.job.name": job, "freshet.job.epoch": epoch}
    log_from_worker(logs.format, fields)
    return open_parts()


def open_ingest(settings: Settings, keys: list[int], bits_by: int) -> Ingest:
    """The ingest rule with this worker's keys and policy; `keys[bucket]` is the stream key of a bucket.

    `bits_by`: see :meth:`jobs.deployment.Deployment.users_bits_by`.
    """
    return Ingest(
        settings.topic_names(),
        codec_of(settings.input),
        Pseudonymiser(load_key_ring(settings.privacy.key_ring)),
        keys,
        settings.popularity.segments,
        settings.events.publish,
        load_policy(settings.privacy.policy),
        settings.privacy.numbers_are_items,
        bits_by,
    )


def open_store(settings: Settings, epoch: int) -> RedisStore:
    """A store with its own connection."""
    return RedisStore(connect_as_tenant(settings), epoch, settings.tombstone_ms(), settings.redis.outage_max_ms)


def open_clocked_store(settings: Settings, epoch: int, gate: WriteGate) -> ListStore:
    """A store that is written while the clock says that it is the turn of this job."""
    return cast(ListStore, ClockedStore(open_store(settings, epoch), gate, clock_ms))


def open_personalise_parts(settings: Settings, epoch: int, trail: str, is_silent: bool = False) -> PersonaliseParts:
    """Model, store and bounds for the personalise operator; `trail` comes from :func:`jobs.trail.trail_id`."""
    shelf, fallback = open_shelf(settings)
    online = shelf.own.get(ONLINE)
    catalogue = open_catalogue(settings)
    _tune_garbage_collector()
    return PersonaliseParts(
        Ranker(
            settings.lists,
            settings.profile,
            epoch,
            recommendation_ids(load_key_ring(settings.privacy.key_ring)),
            catalogue.assortment,
            settings.explore,
        ),
        shelf,
        open_store(settings, epoch),
        fallback,
        epoch,
        settings.topic_names().interactions,
        settings.profile,
        settings.refresh,
        settings.popularity,
        max(1, settings.refresh.users_per_second // settings.job.buckets),
        Author(load_signing_key(settings.audit.signing_key), epoch, trail, settings.audit.heads_every_ms),
        GenerationParts(Marker(settings.kafka), max(1, settings.refresh.rebuilt_per_second // settings.job.buckets)),
        UnreadWatch(functools.partial(look_at_unread, settings.kafka)),
        online if isinstance(online, OnlineModel) else None,
        settings.feedback,
        catalogue,
        remote if isinstance(remote := shelf.own[DEFAULT], FallbackModel) else None,
        handover_gate(settings, epoch, is_silent),
        span_sender(settings.traces, JOB),
    )


def open_catalogue(settings: Settings) -> SharedCatalogue:
    """The catalogue and the rules of the shop, the same for all operators of a worker."""
    return shared_catalogue(settings.kafka, load_rules(settings.rules.file))


def open_shelf(settings: Settings) -> tuple[ModelShelf, PopularItems]:
    """The models that make lists, before any is rolled out, and what is popular until events say so."""
    model, open_version = settings.model, opener(settings)
    own, default, popular = _open_local(settings)
    if model.remote.url is not None:
        remote = with_remote(model.remote, own[DEFAULT], settings.profile)
        own, default = {**own, default: own[DEFAULT], DEFAULT: remote}, model.remote.name()
    return ModelShelf(own, open_version, default), popular


def _open_local(settings: Settings) -> tuple[dict[str, ListModel], str, PopularItems]:
    """The models that run in the worker by version, the version of the default, and what is popular."""
    directory = settings.model.frozen_directory()
    if directory is None:
        online = OnlineModel()
        return {DEFAULT: online, ONLINE: online}, ONLINE, PopularItems()
    scorer = Scorer.open(directory)
    model = FrozenModel(scorer, scorer.manifest.name, settings.profile)
    return {DEFAULT: model}, str(version_of(scorer.manifest)), PopularItems.ranked(scorer.manifest.popular)


def open_learn_parts(settings: Settings, epoch: int, is_silent: bool = False) -> LearnParts:
    """Store and settings for the learn operator."""
    gate = handover_gate(settings, epoch, is_silent)
    store = open_clocked_store(settings, epoch, gate)
    return LearnParts(store, settings.learn, settings.popularity, epoch, open_catalogue(settings), gate)


def _tune_garbage_collector() -> None:
    """Exclude loaded objects from Python's cycle collector, and run it less often.

    An element makes and drops thousands of tuples and no cycles; at the defaults the collector takes 5 % of the
    operator's time.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def open_popular_parts(settings: Settings, epoch: int, is_silent: bool = False) -> PopularParts:
    """Store and settings for the popular operator. Popular lists come from no model."""
    ids = recommendation_ids(load_key_ring(settings.privacy.key_ring))
    gate = handover_gate(settings, epoch, is_silent)
    store = open_clocked_store(settings, epoch, gate)
    return PopularParts(store, POPULARITY, epoch, settings.popularity, ids, open_catalogue(settings), gate)
