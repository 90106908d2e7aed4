"""The settings of the gateway: read once from a TOML file into a frozen object. Secrets are in files and variables."""

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from adapters.files.edited_files import read_edited
from adapters.files.tenant_file import load_tenant
from adapters.kafka.settings import KafkaSettings, complaint_of
from adapters.redis.address import RedisAddress
from adapters.secrets.secret_files import read_secret_variable
from adapters.tracing.span_sender import TraceSettings
from schemas.audit import VisibleName
from schemas.decoding import described
from schemas.errors import SettingsError
from schemas.log_lines import LogFormat
from schemas.wire.tenant_settings import TenantSettings
from serving.gateway.admission import AdmissionSettings
from serving.gateway.security import CLIENT_NAME_RULE, AuthSettings, is_client_name

AtLeastOne = Annotated[int, Meta(ge=1)]
EXAMPLE: Final = "deploy/gateway.toml"
_IN_A_FILE: Final = (
    ": a tenant is a file that its job reads, too. Move its settings into one, and name that here "
    '(tenants.<name> = "tenant.toml") and in the settings of the job (tenant = "tenant.toml")'
)


class ServerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the gateway listens, and what one worker may use."""

    host: str = "127.0.0.1"
    """The address to listen on."""
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8_080
    """The port to listen on."""
    workers: AtLeastOne = 1
    """Worker processes."""
    cert_file: str | None = None
    """The server certificate (PEM); with it, the gateway speaks TLS."""
    key_file: str | None = None
    """The private key of the certificate (PEM)."""
    client_ca_file: str | None = None
    """Require client certificates signed by these authorities (PEM). Needs `cert_file`."""
    body_bytes_max: AtLeastOne = 1_048_576
    """The size of a request body."""
    deadline_ms: AtLeastOne = 30_000
    """How long a request may take."""
    drain_s: Annotated[float, Meta(ge=0)] = 0.0
    """After SIGTERM, `/readyz` fails for this long before the gateway stops accepting requests."""
    grace_s: AtLeastOne = 10
    """After that, requests in progress have this long to finish."""
    slow_ms: AtLeastOne = 250
    """Log reads that take longer. Sampled traces and all other routes are always logged."""
    connections_max: AtLeastOne = 2_048
    """Open connections of one worker."""
    held_bytes_max: Annotated[int, Meta(ge=1_048_576)] = 67_108_864
    """Bytes that one worker holds for all its connections: incomplete requests and unread responses. Bodies being
    processed come on top, up to `body_bytes_max` for each write in progress.
    """
    fast_lane: bool = True
    """Serve the hot route without ASGI. Without it, responses are the same, only slower."""


class ReadAuditSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the audit trail records about reads."""

    share: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """The share of reads that are recorded with their user. All reads are counted."""
    purpose: VisibleName = "recommend"
    """The purpose that is recorded."""
    every_s: Annotated[float, Meta(gt=0)] = 10.0
    """How often counts are written."""


class CacheSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long shared caches may keep popular lists."""

    fresh_s: AtLeastOne = 1
    """Seconds during which a popular list is fresh."""
    stale_while_revalidate_s: AtLeastOne = 30
    """Seconds during which a stale list may be served while the cache revalidates."""
    stale_if_error_s: AtLeastOne = 86_400
    """Seconds during which a stale list may be served if the gateway fails."""
    purge_url: str | None = None
    """Notified (POST, `Surrogate-Key`) when the items of a popular list change."""


class GatewayLogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The log, on standard error."""

    format: LogFormat | Literal["auto"] = "auto"
    """`json`, `text`, or `auto`: text if standard error is a terminal, JSON otherwise."""


class GatewayTraceSettings(TraceSettings, frozen=True, forbid_unknown_fields=True):
    """Traces of events, from the gateway to the list in Redis. Needs `requirements-traces.txt`."""

    share: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """The share of requests without a `traceparent` that are traced. With one, the caller decides by its flag."""

    def complaint(self) -> str | None:
        """What is wrong, if anything."""
        if self.share and self.otlp_url is None:
            return "share does nothing without traces.otlp_url"
        return super().complaint()


class AccessSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Requests for a person's data (`GET /v1/users/{user}/data`)."""

    at_once: Annotated[int, Meta(ge=1)] = 1
    """How many people's data one worker collects at a time."""
    waiting_max: Annotated[int, Meta(ge=0)] = 16
    """How many more may wait. Beyond that, requests get 429."""
    deadline_ms: Annotated[int, Meta(ge=1, le=1_800_000)] = 600_000
    """Give up a collection that takes longer, counted from the request."""
    document_bytes_max: Annotated[int, Meta(ge=1)] = 16_777_216
    """Give up a collection whose document is larger."""


class GatewaySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings file of the gateway: each field is a table of it."""

    redis: RedisAddress
    kafka: KafkaSettings
    tenants: Annotated[dict[str, str], Meta(min_length=1)]
    """The tenant file of each tenant, by the name that tokens and API keys give it. The tenant's job reads it, too."""
    auth: AuthSettings
    server: ServerSettings = ServerSettings()
    admission: AdmissionSettings = AdmissionSettings()
    audit: ReadAuditSettings = ReadAuditSettings()
    cache: CacheSettings = CacheSettings()
    access: AccessSettings = AccessSettings()
    logs: GatewayLogSettings = GatewayLogSettings()
    traces: GatewayTraceSettings = GatewayTraceSettings()
    redis_password_variable: str | None = None
    """Deprecated: use `redis.password_variable`."""

    def redis_password(self) -> str | None:
        """The password from `redis.password_variable`, or from the deprecated `redis_password_variable`."""
        return read_secret_variable(self.redis.password_variable or self.redis_password_variable)

    def tenant(self, name: str) -> TenantSettings:
        """Load the file of a tenant. Raises :class:`SettingsError`."""
        tenant = load_tenant(self.tenants[name])
        if tenant.key_ring is None:
            raise SettingsError(
                f"tenant file {self.tenants[name]} has no key_ring, which a gateway needs: name the file"
            )
        return tenant


def load_gateway_settings(path: Path) -> GatewaySettings:
    """Load the settings in the TOML file `path`; raises :class:`SettingsError`, which says what is wrong and where."""
    try:
        settings = msgspec.toml.decode(read_edited(path), type=GatewaySettings)
    except OSError as error:
        raise SettingsError(f"settings file {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise SettingsError(
            f"settings file {path}: {described(error, EXAMPLE)}{_IN_A_FILE if '$.tenants[' in str(error) else ''}"
        ) from None
    if complaint := complaint_of(settings.kafka) or _complaint(settings):
        raise SettingsError(f"settings file {path}: {complaint}")
    return settings


def _complaint(settings: GatewaySettings) -> str | None:
    server = settings.server
    if complaint := settings.traces.complaint():
        return f"traces.{complaint}"
    if not all(map(is_client_name, settings.tenants)):
        return f"tenants: the name of a tenant {CLIENT_NAME_RULE}"
    if settings.kafka.topic_prefix != KafkaSettings("").topic_prefix:
        return "kafka.topic_prefix is for the tenant file: move it there as topic_prefix"
    if settings.auth.api_keys is None and settings.auth.jwks is None:
        return "auth.api_keys or auth.jwks names a file: without either nobody could use the gateway"
    if settings.auth.jwks is not None and settings.auth.audience is None:
        return "auth.audience is what tokens must be for: without it, a token made for something else would do"
    if bool(server.cert_file) != bool(server.key_file):
        return "server.cert_file and server.key_file go together"
    if server.client_ca_file and not server.cert_file:
        return "server.client_ca_file needs server.cert_file: certificates of clients come with TLS"
    return None
