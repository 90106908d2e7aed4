"""The settings of the gateway: read once from a TOML file into a frozen object. Secrets are in files and variables."""

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from adapters.kafka.settings import KafkaSettings, complaint_of
from adapters.redis.address import RedisAddress
from schemas.errors import SettingsError
from schemas.secret_files import secret
from schemas.wire.writers import WriteSettings
from serving.gateway.admission import AdmissionSettings
from serving.gateway.security import AuthSettings

AtLeastOne = Annotated[int, Meta(ge=1)]


class ServerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the gateway listens. With `cert_file` it speaks TLS, with `client_ca_file` it wants clients' certificates.

    On SIGTERM `/readyz` says no for `drain_s`, then what is under way has `grace_s` to end. Reads that take longer than
    `slow_ms` are logged, and those of a trace that is sampled; requests of all other routes always are.

    One worker has `connections_max` connections at most, and holds `held_bytes_max` bytes of requests that are not
    complete yet and answers that are not read yet, for all of them. Bodies that a handler reads come on top of that: at
    most `body_bytes_max` each, `admission.writes_max` of a kind at a time. Without `fast_lane` every request goes by
    ASGI: slower, with the same answers.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8_080
    workers: AtLeastOne = 1
    cert_file: str | None = None
    key_file: str | None = None
    client_ca_file: str | None = None
    body_bytes_max: AtLeastOne = 1_048_576
    deadline_ms: AtLeastOne = 30_000
    drain_s: Annotated[float, Meta(ge=0)] = 0.0
    grace_s: AtLeastOne = 10
    slow_ms: AtLeastOne = 250
    connections_max: AtLeastOne = 2_048
    held_bytes_max: Annotated[int, Meta(ge=1_048_576)] = 67_108_864
    fast_lane: bool = True


class TenantSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a tenant has of its own. `tombstone_ms` and `input` are those of its job, see :mod:`jobs.settings`."""

    key_ring: str
    tombstone_ms: AtLeastOne
    redis_prefix: str = ""
    topic_prefix: str = "freshet."
    input: WriteSettings = WriteSettings()


class AuditSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`share` of the reads go into the audit trail with their user, all of them in counts, each `every_s` seconds."""

    share: Annotated[float, Meta(ge=0, le=1)] = 0.0
    purpose: str = "recommend"
    every_s: Annotated[float, Meta(gt=0)] = 10.0


class CacheSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long caches may keep popular lists, in s. `purge_url` is told (POST) of keys whose lists have changed."""

    fresh_s: AtLeastOne = 1
    stale_while_revalidate_s: AtLeastOne = 30
    stale_if_error_s: AtLeastOne = 86_400
    purge_url: str | None = None


class AccessSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One worker collects what is held of `at_once` people at a time; `waiting_max` more may wait for that.

    What takes longer than `deadline_ms` from the request on, or is larger than `document_bytes_max`, is given up.
    """

    at_once: Annotated[int, Meta(ge=1)] = 1
    waiting_max: Annotated[int, Meta(ge=0)] = 16
    deadline_ms: Annotated[int, Meta(ge=1, le=1_800_000)] = 600_000
    document_bytes_max: Annotated[int, Meta(ge=1)] = 16_777_216


class GatewaySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that can be set; tables of the TOML file have these names."""

    redis: RedisAddress
    kafka: KafkaSettings
    tenants: Annotated[dict[str, TenantSettings], Meta(min_length=1)]
    auth: AuthSettings
    server: ServerSettings = ServerSettings()
    admission: AdmissionSettings = AdmissionSettings()
    audit: AuditSettings = AuditSettings()
    cache: CacheSettings = CacheSettings()
    access: AccessSettings = AccessSettings()
    redis_password_variable: str | None = None

    def redis_password(self) -> str | None:
        """From the variable of `redis.password_variable`, or of `redis_password_variable`, as older files say it."""
        return secret(self.redis.password_variable or self.redis_password_variable)


def load_gateway_settings(path: Path) -> GatewaySettings:
    """The settings in the TOML file `path`; raises :class:`SettingsError`, which says what is wrong and where."""
    try:
        settings = msgspec.toml.decode(path.read_bytes(), type=GatewaySettings)
    except OSError as error:
        raise SettingsError(f"settings file {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"settings file {path}: {error}") from None
    if complaint := complaint_of(settings.kafka) or _complaint(settings):
        raise SettingsError(f"settings file {path}: {complaint}")
    return settings


def _complaint(settings: GatewaySettings) -> str | None:
    server = settings.server
    if settings.auth.api_keys is None and settings.auth.jwks is None:
        return "auth.api_keys or auth.jwks names a file: without either nobody could use the gateway"
    if settings.auth.jwks is not None and settings.auth.audience is None:
        return "auth.audience is what tokens must be for: without it, a token made for something else would do"
    if bool(server.cert_file) != bool(server.key_file):
        return "server.cert_file and server.key_file go together"
    if server.client_ca_file and not server.cert_file:
        return "server.client_ca_file needs server.cert_file: certificates of clients come with TLS"
    return None
