"""The settings of the job: read once, at the edge, from a TOML file into a frozen object.

Secrets are not in the file: it names the environment variables that hold them, or the key ring's path.
"""

from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from adapters.files.edited_files import read_edited
from adapters.files.tenant_file import load_tenant
from adapters.kafka.settings import KafkaSettings, complaint_of
from adapters.redis.address import RedisSettings, parse
from adapters.tracing.span_sender import TraceSettings
from jobs.remote_settings import NO_SERVER, RemoteModelSettings
from schemas import topics
from schemas.decoding import PROJECT_PATTERN, described
from schemas.errors import SettingsError
from schemas.log_lines import LogSettings
from schemas.wire.codec_choice import InputSettings
from schemas.wire.tenant_settings import PseudonymSettings, TenantSettings
from udfs.drift import DriftSettings
from udfs.due import RefreshSettings
from udfs.exploring import NO_EXPLORATION, ExploreSettings
from udfs.feedback import FeedbackSettings
from udfs.ingest import TopicNames
from udfs.judging import JudgeSettings
from udfs.learning import LearnSettings
from udfs.policy import UNRESTRICTED, Policy, parse_policy
from udfs.popularity import PopularitySettings
from udfs.profile import ProfileBounds
from udfs.ranking import ListRules

_OF_TENANTS: Final = (
    ("kafka", ("topic_prefix",)),
    ("redis", ("prefix",)),
    ("privacy", PseudonymSettings.__struct_fields__),
    ("input", InputSettings.__struct_fields__),
)
"""The settings that belong in the tenant file, by table."""
EXAMPLE: Final = "docs/data-engineers/install.md"
POLICY_EXAMPLE: Final = "deploy/consent-policy.toml"
COMMITTED_LATE_MS: Final = 15 * topics.MINUTE_MS
"""A transaction may begin with the last checkpoint before an outage, and is committed when the first one after it
completes."""
TRANSACTION_TIMEOUT_MAX_MS: Final = 2**31 - 1
"""The longest that Kafka's protocol can express: 24.8 days."""


class PrivacySettings(PseudonymSettings, frozen=True, forbid_unknown_fields=True):
    """Consent, pseudonyms, and how long traces of the past are kept."""

    policy: str | None = None
    """The consent policy file, at the same path on every worker (`deploy/consent-policy.toml` is an example). Without
    one, a consent record means what it says, and no signal is evaluated.
    """
    numbers_are_items: bool = False
    """Set this if your item ids are plain numbers. By default an item id that reads like a card number, phone number or
    national id is rejected (`personal_item`); a plain number of 9, 12 or 16 digits passes such a check by chance in
    one of 11 to 20 cases.
    """


class ModelSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The model that ranks items."""

    kind: Literal["online", "frozen"] | None = None
    """`online` learns in the stream, from the first event, and needs no files. `frozen` is a model that was trained
    before. By default `frozen` if there is a `directory`, else `online`.
    """
    directory: str | None = None
    """The folder with `manifest.json` and `model.onnx` of a frozen model, at the same path on every worker."""
    versions: str | None = None
    """The folder, or URI in an object store (`s3://…`, `gs://…`), with versions of models to roll out in the running
    job with `freshet model`. Every worker reads it, with the credentials of its environment.
    """
    cache: str | None = None
    """The folder for a worker's copies of versions. By default one for its user in the folder for temporary files."""
    cache_bytes_max: Annotated[int, Meta(ge=1)] = 2 << 30
    """The size of that folder, in bytes: the copies that were not used for longest are deleted first."""
    remote: RemoteModelSettings = NO_SERVER

    def frozen_directory(self) -> Path | None:
        """The folder of a frozen model; None if the model learns in the stream."""
        return None if self.directory is None else Path(self.directory)

    def cache_folder(self) -> Path | None:
        """The folder for copies of versions, if it is set."""
        return None if self.cache is None else Path(self.cache)

    def complaint(self) -> str | None:
        """What is wrong, if anything."""
        if self.kind == "frozen" and self.directory is None:
            return 'kind = "frozen" needs model.directory, the folder of the model'
        if self.kind == "online" and self.directory is not None:
            return 'kind = "online" takes no model.directory: leave one of the two out'
        if "@" in urlsplit(self.versions or "").netloc:
            return (
                "versions must hold no credentials, which would be in the job graph: workers find them as pyarrow does"
            )
        return self.remote.complaint()


class RulesSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rules of the shop for all lists."""

    file: str | None = None
    """The file with the rules, at the same path on every worker (`deploy/shop-rules.toml` is an example): caps,
    diversity, boosts, pins and exclusions. Read when the job starts.
    """


class EventsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The topic of accepted interactions, pseudonymised and consented."""

    publish: bool = True
    """Whether to publish them. Switch this off if nobody trains or measures on them."""


class ExportSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Exports that `freshet export write` writes."""

    retention_days: Annotated[int, Meta(ge=1, le=3650)] = 90
    """How long an export may be kept. A lower value also applies to existing exports."""
    part_bytes_max: Annotated[int, Meta(ge=1)] = 64 << 20
    """The size of one file of an export, in bytes."""


class FeatureSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Features of users for models outside of the job, in a Redis that Feast reads (`freshet features push`)."""

    url: str | None = None
    """The Redis server of Feast: `redis://host:port/db`, or `rediss://…` for TLS; timeouts and TLS files are those of
    `[redis]`. By default the Redis of the job.
    """
    username: str | None = None
    """The ACL user at that server."""
    password_variable: str | None = None
    """The environment variable that holds the password at that server."""
    project: Annotated[str, Meta(pattern=PROJECT_PATTERN)] = "freshet"
    """The project in Feast. Nobody else may write rows of users under this name."""
    ttl_ms: Annotated[int, Meta(ge=topics.HOUR_MS)] = 30 * topics.DAY_MS
    """How long the features of a user are served, and used in training, after their last event. It bounds how long they
    stay if `freshet features push` does not run.
    """

    def address(self, redis: RedisSettings) -> RedisSettings:
        """The address of Feast's Redis, given that of the job's."""
        if self.url is None:
            return redis
        return msgspec.structs.replace(
            redis,
            urls=(self.url,),
            kind="server",
            service=None,
            username=self.username,
            password_variable=self.password_variable,
            replicas=0,
            prefix="",
        )

    def complaint(self) -> str | None:
        """What is wrong, if anything."""
        if self.url is None and (self.username or self.password_variable):
            return "username and password_variable are those of features.url, which is not set"
        try:
            password = None if self.url is None else parse(self.url).password
        except SettingsError as error:
            return f"url: {error}"
        if password is not None:
            return "url must hold no password: name the variable that holds it in features.password_variable"
        return None


class BatchSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a batch of raw records is handed on: whichever limit is reached first."""

    records_max: Annotated[int, Meta(ge=1)] = 10_000
    """Records in a batch."""
    bytes_max: Annotated[int, Meta(ge=1)] = 1 << 22
    """Bytes in a batch."""
    wait_ms: Annotated[int, Meta(ge=1)] | None = None
    """Time since the first record of the batch, where the operators behind are idle; while they are busy, batches grow,
    for up to 200 ms. By default 1 in thread mode, and 20 in process mode, where each batch costs more."""


class AuditSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The audit trail and its signatures."""

    signing_key: str | None = None
    """The file with the signing key, readable by every worker. By default the variable `FRESHET_SIGNING_KEY` holds its
    text.
    """
    heads_every_ms: Annotated[int, Meta(ge=topics.SECOND_MS, le=topics.HOUR_MS, multiple_of=topics.SECOND_MS)] = (
        10 * topics.SECOND_MS
    )
    """How often to sign the end of the trail, in whole seconds. Records younger than that are not proved yet."""


class JobSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the state of the job is divided into. `freshet bench run --only buckets` measures what buckets cost."""

    name: str = "freshet-personalise"
    """The name of the job in Flink."""
    buckets: Annotated[int, Meta(ge=1, le=1024)] = 4
    """The largest parallelism the job can have; fewer buckets cost less. Only `freshet rebucket` changes it."""
    max_parallelism: Annotated[int, Meta(ge=1, le=32_768)] = 128
    """Flink's maximum parallelism. It cannot change without new state, and must not be below `buckets`."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings file of the job: each field is a table of it."""

    kafka: KafkaSettings
    redis: RedisSettings
    model: ModelSettings = ModelSettings()
    privacy: PrivacySettings = PrivacySettings()
    input: InputSettings = InputSettings()
    audit: AuditSettings = AuditSettings()
    events: EventsSettings = EventsSettings()
    export: ExportSettings = ExportSettings()
    features: FeatureSettings = FeatureSettings()
    job: JobSettings = JobSettings()
    batch: BatchSettings = BatchSettings()
    profile: ProfileBounds = ProfileBounds()
    lists: ListRules = ListRules()
    rules: RulesSettings = RulesSettings()
    explore: ExploreSettings = NO_EXPLORATION
    learn: LearnSettings = LearnSettings()
    refresh: RefreshSettings = RefreshSettings()
    popularity: PopularitySettings = PopularitySettings()
    feedback: FeedbackSettings = FeedbackSettings()
    judge: JudgeSettings = JudgeSettings()
    drift: DriftSettings = DriftSettings()
    logs: LogSettings = LogSettings()
    traces: TraceSettings = TraceSettings()
    tenant: str | None = None
    """The tenant file, which gateways and producers also read. These settings are refused here because they belong
    there: `kafka.topic_prefix`, `redis.prefix`, `privacy.key_ring`, `privacy.snapshots_kept_ms`, `privacy.tombstone_ms`
    and `[input]`."""

    def tombstone_ms(self) -> int:
        """How long tombstones live, in ms."""
        return self.privacy.tombstone_life_ms()

    def transaction_timeout_ms(self) -> int:
        """How long a transaction of the sinks may stay open.

        By default as long as a snapshot may be restored: the job that restores it commits the transactions that belong
        to it. And longer than any outage in which no checkpoint completes.
        """
        least_ms = self.redis.outage_max_ms + COMMITTED_LATE_MS
        default_ms = min(max(self.privacy.snapshots_kept_ms, least_ms), TRANSACTION_TIMEOUT_MAX_MS)
        return self.kafka.transaction_timeout_ms or default_ms

    def topic_names(self) -> TopicNames:
        """The topics that ingest reads."""
        kafka = self.kafka
        return TopicNames(kafka.topic(topics.INTERACTIONS), kafka.topic(topics.CONSENTS), kafka.topic(topics.CONTROL))


def load_settings(path: Path) -> Settings:
    """Load the TOML file `path` and its tenant file; raises :class:`SettingsError` naming the wrong setting."""
    try:
        raw = read_edited(path)
        settings = msgspec.toml.decode(raw, type=Settings)
    except OSError as error:
        raise SettingsError(f"settings file {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"settings file {path}: {described(error, EXAMPLE)}") from None
    if settings.tenant is not None:
        if doubled := _of_the_tenant(msgspec.toml.decode(raw)):
            raise SettingsError(
                f"settings file {path}: {doubled} is for the tenant file {settings.tenant}: move it there"
            )
        settings = _with_tenant(settings, load_tenant(settings.tenant))
    if settings.job.buckets > settings.job.max_parallelism:
        raise SettingsError(f"settings file {path}: job.buckets must not exceed job.max_parallelism")
    for table in ("privacy", "model", "features", "traces"):
        if complaint := getattr(settings, table).complaint():
            raise SettingsError(f"settings file {path}: {table}.{complaint}")
    if any(parse(url).password is not None for url in settings.redis.urls):
        raise SettingsError(
            f"settings file {path}: redis.url (or urls) must hold no password, which would be in the job graph: put it "
            "into an environment variable and name that in redis.password_variable"
        )
    if complaint := complaint_of(settings.kafka) or _explore_complaint(settings):
        raise SettingsError(f"settings file {path}: {complaint}")
    return settings


def _explore_complaint(settings: Settings) -> str | None:
    """What is wrong with the settings of exploration, if anything."""
    if settings.explore.slots and settings.explore.slots >= settings.lists.items:
        return "explore.slots must be below lists.items: the first places are the model's"
    if settings.explore.slots and not settings.events.publish:
        return "explore.slots needs events.publish: without the topic, nothing is learned from exploration"
    return None


def _of_the_tenant(tables: dict[str, Any]) -> str | None:
    """Find a setting in a settings file that belongs in the tenant file."""
    return next(
        (f"{table}.{name}" for table, names in _OF_TENANTS for name in names if name in tables.get(table, {})), None
    )


def _with_tenant(settings: Settings, tenant: TenantSettings) -> Settings:
    """Add the tenant file's settings to `settings`."""
    replace = msgspec.structs.replace
    of_privacy = {name: getattr(tenant, name) for name in PseudonymSettings.__struct_fields__}
    return replace(
        settings,
        kafka=replace(settings.kafka, topic_prefix=tenant.topic_prefix),
        redis=replace(settings.redis, prefix=tenant.redis_prefix),
        privacy=replace(settings.privacy, **of_privacy),
        input=InputSettings(**{name: getattr(tenant.input, name) for name in InputSettings.__struct_fields__}),
    )


def load_policy(path: str | None) -> Policy:
    """Load the policy (:mod:`udfs.policy`) in the TOML file `path`; without one, return one that restricts nothing."""
    if path is None:
        return UNRESTRICTED
    try:
        return parse_policy(read_edited(Path(path)))
    except OSError as error:
        raise SettingsError(f"privacy.policy {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"privacy.policy {path}: {described(error, POLICY_EXAMPLE)}") from None
