"""The settings of the job: read once, at the edge, from a TOML file into a frozen object.

Secrets are not in the file: it names the environment variables that hold them, or the key ring's path.
"""

from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from adapters.kafka.settings import KafkaSettings, complaint_of
from adapters.redis.address import RedisSettings, parse
from schemas import topics
from schemas.errors import SettingsError
from schemas.wire.codec_choice import InputSettings
from udfs.due import RefreshSettings
from udfs.ingest import TopicNames
from udfs.policy import UNRESTRICTED, Policy, parse_policy
from udfs.popularity import PopularitySettings
from udfs.profile import ProfileBounds
from udfs.ranking import ListRules

COMMITTED_LATE_MS: Final = 15 * topics.MINUTE_MS
"""A transaction is as old as the checkpoint before an outage, and is committed when the one after it is complete."""


class PrivacySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`key_ring` is a path that every worker can read; left out, the variable FRESHET_KEY_RING holds its text.

    `policy` is the path of a policy file (`deploy/consent-policy.toml` is one), the same on every worker; left out,
    consents mean what they say and no signal is looked at. `snapshots_kept_ms` is the age of the oldest checkpoint or
    savepoint that will ever be restored: older ones are refused. `tombstone_ms` is how long withdrawals and erasures
    hold off what comes from before them; left out, it is as short as is safe (:meth:`Settings.tombstone_ms`).

    An interaction whose `item_id` reads like a card, a phone number or a national id is rejected (`personal_item`).
    `numbers_are_items` says that bare rows of digits are your items' numbers: of those with 9, 12 or 16 digits, one in
    twenty to eleven passes such a check by chance.
    """

    key_ring: str | None = None
    policy: str | None = None
    snapshots_kept_ms: Annotated[int, Meta(ge=topics.HOUR_MS)] = topics.CONSENTS_COMPACTION_LAG_MS
    tombstone_ms: int | None = None
    numbers_are_items: bool = False


class ModelSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`directory` holds manifest.json and model.onnx, at the same path on every worker."""

    directory: str


class EventsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether accepted interactions are published to the `events` topic: what nobody trains on need not be kept."""

    publish: bool = True


class ExportSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Exports (`freshet export`): how long one may be kept, how many bytes of lines a part of it has.

    A lower `retention_days` holds for exports that are already there, too.
    """

    retention_days: Annotated[int, Meta(ge=1, le=3650)] = 90
    part_bytes_max: Annotated[int, Meta(ge=1)] = 64 << 20


class BatchSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a batch of raw records ends: at so many records or bytes, or so long after its first record."""

    records_max: Annotated[int, Meta(ge=1)] = 10_000
    bytes_max: Annotated[int, Meta(ge=1)] = 1 << 22
    wait_ms: Annotated[int, Meta(ge=1)] = 20


class AuditSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`signing_key` is a file that every worker can read; left out, FRESHET_SIGNING_KEY holds its text.

    Where something was recorded, the end of the trail is signed each `heads_every_ms`; what is younger is not proved.
    """

    signing_key: str | None = None
    heads_every_ms: Annotated[int, Meta(ge=topics.SECOND_MS, le=topics.HOUR_MS, multiple_of=topics.SECOND_MS)] = (
        10 * topics.SECOND_MS
    )


class JobSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`buckets` is fixed for the life of a job's state: at least the largest parallelism ever wanted, and few.

    `freshet bench run --only buckets` prints what they cost. Another number needs new state: a backfill.
    """

    name: str = "freshet-personalise"
    buckets: Annotated[int, Meta(ge=1, le=1024)] = 4
    max_parallelism: Annotated[int, Meta(ge=1, le=32_768)] = 128


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that can be set; tables of the TOML file have these names."""

    kafka: KafkaSettings
    redis: RedisSettings
    model: ModelSettings
    privacy: PrivacySettings = PrivacySettings()
    input: InputSettings = InputSettings()
    audit: AuditSettings = AuditSettings()
    events: EventsSettings = EventsSettings()
    export: ExportSettings = ExportSettings()
    job: JobSettings = JobSettings()
    batch: BatchSettings = BatchSettings()
    profile: ProfileBounds = ProfileBounds()
    lists: ListRules = ListRules()
    refresh: RefreshSettings = RefreshSettings()
    popularity: PopularitySettings = PopularitySettings()

    def tombstone_ms(self) -> int:
        """The life of a tombstone: longer than a record can be read again, or a snapshot be restored."""
        return self.privacy.tombstone_ms or self.tombstone_least_ms()

    def tombstone_least_ms(self) -> int:
        """A day more than the oldest record of `interactions` or the oldest snapshot can be old."""
        return max(topics.interactions_life_max_ms(), self.privacy.snapshots_kept_ms) + topics.DAY_MS

    def transaction_timeout_ms(self) -> int:
        """How long a transaction of the sinks may stay open: longer than any outage that is ridden out."""
        return self.kafka.transaction_timeout_ms or self.redis.outage_max_ms + COMMITTED_LATE_MS

    def topic_names(self) -> TopicNames:
        """The topics that ingest reads."""
        kafka = self.kafka
        return TopicNames(kafka.topic(topics.INTERACTIONS), kafka.topic(topics.CONSENTS), kafka.topic(topics.CONTROL))


def load_settings(path: Path) -> Settings:
    """The settings in the TOML file `path`; raises :class:`SettingsError` that names the setting."""
    try:
        settings = msgspec.toml.decode(path.read_bytes(), type=Settings)
    except OSError as error:
        raise SettingsError(f"settings file {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(f"settings file {path}: {error}") from None
    if settings.job.buckets > settings.job.max_parallelism:
        raise SettingsError(f"settings file {path}: job.buckets must not exceed job.max_parallelism")
    if settings.tombstone_ms() < settings.tombstone_least_ms():
        raise SettingsError(
            f"settings file {path}: privacy.tombstone_ms must be at least {settings.tombstone_least_ms()} "
            "(a day more than interactions live at most, and than privacy.snapshots_kept_ms): "
            "else what was erased could come back"
        )
    if any(parse(url).password is not None for url in settings.redis.urls):
        raise SettingsError(
            f"settings file {path}: redis.urls must hold no password, which would be in the job graph: put it into an "
            "environment variable and name that in redis.password_variable"
        )
    if complaint := complaint_of(settings.kafka):
        raise SettingsError(f"settings file {path}: {complaint}")
    return settings


def load_policy(path: str | None) -> Policy:
    """The policy in the TOML file `path`, see :mod:`udfs.policy`; without one, a policy that takes nothing away."""
    if path is None:
        return UNRESTRICTED
    try:
        return parse_policy(Path(path).read_bytes())
    except OSError as error:
        raise SettingsError(f"privacy.policy {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(f"privacy.policy {path}: {error}") from None
