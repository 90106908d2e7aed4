"""The address of Redis: one server, the primary named by Sentinels, or a Cluster.

Job, readers and gateway read the same type from their settings. `RedisSettings` adds what only the job needs.
"""

import ssl
from typing import Annotated, Final, Literal
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Meta

from adapters.hosts import is_host
from schemas.errors import SettingsError
from schemas.topics import HOUR_MS

Milliseconds = Annotated[int, Meta(ge=1)]
READ_TIMEOUT_MS: Final = 50
"""How long a reader waits for a reply if `timeout_ms` is not set."""
OUTAGE_MAX_MS: Final = HOUR_MS
"""How long the job waits for Redis by default."""
WRITE_TIMEOUT_MS: Final = 1_000
"""The timeout of the job and of consent changes, which must not be given up too early."""


class RedisAddress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach Redis: one server, the primary that Sentinels name, or a Cluster."""

    urls: tuple[str, ...] = ()
    """The server, the Sentinels, or some nodes of the Cluster: `redis://host:port/db`, or `rediss://…` for TLS."""
    kind: Literal["server", "sentinel", "cluster"] = "server"
    """What the URLs point to."""
    service: str | None = None
    """The name of the primary, as Sentinels know it; only with `kind = "sentinel"`."""
    username: str | None = None
    """The ACL user."""
    password_variable: str | None = None
    """The environment variable that holds the password."""
    ca_file: str | None = None
    """The certificate authorities to trust (PEM)."""
    cert_file: str | None = None
    """The client certificate (PEM); needs `key_file`."""
    key_file: str | None = None
    """The private key of the client certificate (PEM)."""
    timeout_ms: Milliseconds | None = None
    """How long to wait for a reply. By default 50 ms for readers and 1 s for writers."""
    connect_timeout_ms: Milliseconds = 250
    """How long to wait for a new connection."""
    replicas: Annotated[int, Meta(ge=0)] = 0
    """How many replicas must have a consent change before it is acknowledged. With 1 or more, readers also leave a
    primary that has lost its replicas.
    """
    url: str | None = None
    """Short for `urls` with one entry. Set one of the two."""

    def __post_init__(self) -> None:
        if bool(self.urls) == (self.url is not None):
            raise ValueError("`urls` (or `url`, for one server) gives the address of Redis: set exactly one of them")
        if self.url is not None:
            msgspec.structs.force_setattr(self, "urls", (self.url,))
            msgspec.structs.force_setattr(self, "url", None)
        if (self.kind == "sentinel") != (self.service is not None):
            raise ValueError('`service` names the primary among Sentinels: it requires kind = "sentinel"')
        if self.kind == "server" and len(self.urls) > 1:
            raise ValueError("several `urls` are those of Sentinels or of a Cluster: say which with `kind`")
        try:
            places = [parse(url) for url in self.urls]
        except SettingsError as error:
            raise ValueError(str(error)) from None  # so that errors of settings files name the place
        if self.kind == "cluster" and any(place.database for place in places):
            raise ValueError("a Cluster has database 0 only: leave the number out of `urls`")

    def timeout_s(self, default_ms: int) -> float:
        """The timeout of a reply, in seconds."""
        return (self.timeout_ms or default_ms) / 1000


class RedisSettings(RedisAddress, frozen=True, forbid_unknown_fields=True):
    """How the job reaches Redis, and how long it waits for it."""

    prefix: str = ""
    """Put before every key."""
    outage_max_ms: Annotated[int, Meta(ge=1_000)] = OUTAGE_MAX_MS
    """How long the job waits for Redis without a restart. After that the task fails and Flink restarts it. Without its
    checkpoint storage, the job goes on for at least as long.
    """
    persistence: Literal["required", "warn"] = "warn"
    """What to do at submission if Redis has no append-only file: refuse, or log a warning."""


class RedisEndpoint(msgspec.Struct, frozen=True):
    """A parsed URL. `repr` shows no password."""

    host: str
    port: int
    database: int
    tls: bool
    username: str | None
    password: str | None

    def __repr__(self) -> str:
        return f"{self.host}:{self.port}"


def parse(url: str) -> RedisEndpoint:
    """Parse a URL. Raises :class:`SettingsError`, whose text does not contain the URL: it may hold a password."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("redis", "rediss") or not parts.hostname or not is_host(parts.hostname):
            raise ValueError
        database = int(parts.path.strip("/") or "0")
        user, password = (None if part is None else unquote(part) for part in (parts.username, parts.password))
        return RedisEndpoint(
            parts.hostname, parts.port or 6379, database, parts.scheme == "rediss", user or None, password
        )
    except ValueError:
        raise SettingsError("the address of Redis is not of the form redis://host:port/0 or rediss://…") from None


def tls_context(address: RedisAddress, tls: bool) -> ssl.SSLContext | None:
    """The TLS settings of a connection (TLS 1.2 or later); None without TLS. Raises :class:`SettingsError`."""
    if not tls:
        return None
    try:
        context = ssl.create_default_context(cafile=address.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if address.cert_file is not None:
            context.load_cert_chain(address.cert_file, address.key_file)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"the TLS files of Redis cannot be used: {type(error).__name__}") from None
    return context
