"""Where Redis is, and how it is reached: one server, what a Sentinel says is the primary, or a Cluster."""

import ssl
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Meta

from schemas.errors import SettingsError

Milliseconds = Annotated[int, Meta(ge=1)]


class RedisAddress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`urls` name one server, the Sentinels, some nodes of a Cluster: ``redis://host:port/db``; ``rediss://`` is TLS.

    Reads go to the primary, `service` is its name among the Sentinels. `timeout_ms` is how long an answer may take
    before Redis counts as away, `connect_timeout_ms` the same for a new connection. Passwords are given where clients
    are made, never here.
    """

    urls: Annotated[tuple[str, ...], Meta(min_length=1)]
    kind: Literal["server", "sentinel", "cluster"] = "server"
    service: str | None = None
    username: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    timeout_ms: Milliseconds = 50
    connect_timeout_ms: Milliseconds = 250

    def __post_init__(self) -> None:
        if (self.kind == "sentinel") != (self.service is not None):
            raise ValueError('`service` names the primary among Sentinels: it goes with kind = "sentinel"')
        if self.kind == "server" and len(self.urls) > 1:
            raise ValueError("several `urls` are those of Sentinels or of a Cluster: say which with `kind`")
        for url in self.urls:
            parse(url)


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
