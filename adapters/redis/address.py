"""Where Redis is, and how to reach it: one server, the primary that Sentinels name, or a Cluster.

Job, readers and gateway read the same type from their settings. `RedisSettings` adds what only the job needs.
"""

import ssl
from typing import Annotated, Final, Literal
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Meta

from schemas.errors import SettingsError
from schemas.topics import HOUR_MS

Milliseconds = Annotated[int, Meta(ge=1)]
READ_TIMEOUT_MS: Final = 50
"""How long a reader waits for an answer where `timeout_ms` does not say."""
OUTAGE_MAX_MS: Final = HOUR_MS
"""How long the job waits for Redis where the settings do not say."""
WRITE_TIMEOUT_MS: Final = 1_000
"""The same for the job and for consent changes, which must not be given up lightly."""


class RedisAddress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`urls` name one server, the Sentinels, or some nodes of a Cluster.

    ``redis://host:port/db``, and ``rediss://`` for TLS. `url` is short for one of `urls`. `service` is the name of the
    primary among the Sentinels. `timeout_ms` is how long an answer may take before Redis counts as away; left out, it
    is 50 ms for readers and 1 s for writers. `connect_timeout_ms` is the same for a new connection. `replicas` is how
    many replicas must have a consent change before it is acknowledged; readers then leave a primary with fewer replicas
    in touch. The password is in the environment variable that `password_variable` names.
    """

    urls: tuple[str, ...] = ()
    kind: Literal["server", "sentinel", "cluster"] = "server"
    service: str | None = None
    username: str | None = None
    password_variable: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    timeout_ms: Milliseconds | None = None
    connect_timeout_ms: Milliseconds = 250
    replicas: Annotated[int, Meta(ge=0)] = 0
    url: str | None = None

    def __post_init__(self) -> None:
        if bool(self.urls) == (self.url is not None):
            raise ValueError("`urls` (or `url`, for one server) says where Redis is: one of the two")
        if self.url is not None:
            msgspec.structs.force_setattr(self, "urls", (self.url,))
            msgspec.structs.force_setattr(self, "url", None)
        if (self.kind == "sentinel") != (self.service is not None):
            raise ValueError('`service` names the primary among Sentinels: it goes with kind = "sentinel"')
        if self.kind == "server" and len(self.urls) > 1:
            raise ValueError("several `urls` are those of Sentinels or of a Cluster: say which with `kind`")
        try:
            places = [parse(url) for url in self.urls]
        except SettingsError as error:
            raise ValueError(str(error)) from None  # a settings file then names the place
        if self.kind == "cluster" and any(place.database for place in places):
            raise ValueError("a Cluster has database 0 only: leave the number out of `urls`")

    def timeout_s(self, default_ms: int) -> float:
        """How long an answer may take, in seconds."""
        return (self.timeout_ms or default_ms) / 1000


class RedisSettings(RedisAddress, frozen=True, forbid_unknown_fields=True):
    """The job's Redis. All keys begin with `prefix`.

    The job rides out an outage of `outage_max_ms` without a restart; after that the task fails and Flink restarts it.
    `persistence` says what happens at submission when Redis has no append-only file: "required" refuses, "warn" logs.
    """

    prefix: str = ""
    outage_max_ms: Annotated[int, Meta(ge=1_000)] = OUTAGE_MAX_MS
    persistence: Literal["required", "warn"] = "warn"


class Place(msgspec.Struct, frozen=True):
    """What a URL says. `repr` shows no password."""

    host: str
    port: int
    database: int
    tls: bool
    username: str | None
    password: str | None

    def __repr__(self) -> str:
        return f"{self.host}:{self.port}"


def parse(url: str) -> Place:
    """Take a URL apart. Raises :class:`SettingsError`, which shows nothing of it: it may hold a password."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("redis", "rediss") or not parts.hostname:
            raise ValueError
        database = int(parts.path.strip("/") or "0")
        user, password = (None if part is None else unquote(part) for part in (parts.username, parts.password))
        return Place(parts.hostname, parts.port or 6379, database, parts.scheme == "rediss", user or None, password)
    except ValueError:
        raise SettingsError("the address of Redis is not of the form redis://host:port/0 or rediss://…") from None


def tls_context(address: RedisAddress, tls: bool) -> ssl.SSLContext | None:
    """The TLS settings of a connection, TLS 1.2 at least; None where there is no TLS. Raises :class:`SettingsError`."""
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
