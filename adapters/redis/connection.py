"""One socket to one primary. It never reconnects by itself, because commands are built for one server."""

import select
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import hiredis

from adapters.redis.address import READ_TIMEOUT_MS, WRITE_TIMEOUT_MS, RedisAddress, RedisEndpoint, parse, tls_context
from adapters.redis.greeting import (
    ANY_TENANT,
    Command,
    Inspection,
    inspection_commands,
    life_of,
    parse_inspection,
    record_of,
)
from adapters.redis.replies import exception_for
from schemas.errors import SettingsError, StoreUnavailable
from schemas.store import Generation, TenantMark

_CHUNK: Final = 1 << 16


class Login(NamedTuple):
    """Credentials and connection settings. Never log it: it holds a password."""

    address: RedisAddress
    password: str | None
    tls: ssl.SSLContext | None
    prefix: str
    reading: bool = False
    """Readers leave a primary that has lost its replicas, and treat Redis as closed if they may not inspect it."""
    tenant: TenantMark = ANY_TENANT
    """Redis is closed if its generation record belongs to another tenant's job."""

    @classmethod
    def of(
        cls,
        address: RedisAddress,
        password: str | None,
        prefix: str,
        reading: bool = False,
        tenant: TenantMark = ANY_TENANT,
    ) -> "Login":
        """Raises :class:`SettingsError` if TLS files are unusable, or the prefix would decide a Cluster's slots."""
        if address.kind == "cluster" and "{" in prefix:
            raise SettingsError("the prefix of keys in a Cluster must not contain {: it would decide their slots")
        tls = tls_context(address, any(parse(url).tls for url in address.urls))
        return cls(address, password, tls, prefix, reading, tenant)

    def timeout_s(self) -> float:
        """The timeout of a reply."""
        return self.address.timeout_s(READ_TIMEOUT_MS if self.reading else WRITE_TIMEOUT_MS)

    def replicas_least(self) -> int:
        """How many live replicas a connection needs to be open."""
        return self.address.replicas if self.reading else 0

    def commands(self, place: RedisEndpoint) -> list[Command]:
        """The commands that log in at `place`."""
        user, secret = self.address.username or place.username, self.password or place.password
        found: list[Command] = []
        if secret is not None:
            found.append(("AUTH", secret) if user is None else ("AUTH", user, secret))
        if place.database:
            found.append(("SELECT", place.database))
        return found


class Connection:
    """An open connection that has logged in. All methods raise :class:`StoreUnavailable` when it is lost.

    One thread at a time. Error replies are returned as values, as `hiredis.ReplyError`.
    """

    def __init__(self, login: Login, place: RedisEndpoint) -> None:
        self.place = place
        self._prefix = login.prefix
        self._reading = login.reading
        self._reader = hiredis.Reader()
        self._socket = _open_socket(login, place)
        self._readable = select.poll()
        self._readable.register(self._socket, select.POLLIN)
        self.life = ""
        self.seen = Inspection()
        self.record: Generation | None = None
        self._inspected_at_s = 0.0
        self._unread = 0

    def greet(self, login: Login) -> None:
        """Log in and identify the life of Redis, in one round trip.

        Raises :class:`StoreUnavailable` if the server is not a primary, and :class:`StoreMisconfigured`.
        """
        begin = login.commands(self.place)
        answers = self.ask([*begin, ("INFO", "server"), *inspection_commands(self._prefix)])
        try:
            for answer in answers[: len(begin)]:
                if isinstance(answer, hiredis.ReplyError):
                    raise answer
            server, *seen = answers[len(begin) :]
            self.seen = parse_inspection(*seen, reading=self._reading)
            self.life = life_of(server, self.seen)
            self.record = record_of(self.seen)
        except hiredis.ReplyError as error:
            raise exception_for(error, self._prefix) from None
        self._inspected_at_s = time.monotonic()

    def age_s(self) -> float:
        """How long ago the server was last checked."""
        return time.monotonic() - self._inspected_at_s

    def update_inspection(self, *answers: Any) -> None:
        """Process the replies to :func:`adapters.redis.greeting.inspection_commands`. Raises as :meth:`greet` does."""
        try:
            self.seen = parse_inspection(*answers, reading=self._reading)
            self.record = record_of(self.seen)
        except hiredis.ReplyError as error:
            raise exception_for(error, self._prefix) from None
        self.life = self.seen.life(self.life.partition(".")[0])
        self._inspected_at_s = time.monotonic()

    def is_idle(self) -> bool:
        """Whether it is open and every reply has been read: only then may another caller use it."""
        return not self._unread and self._socket.fileno() >= 0

    def is_stale(self) -> bool:
        """Whether the server has closed it, or has sent unexpected data."""
        return bool(self._readable.poll(0))

    def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Send all commands in one write and return all replies."""
        self.send(commands)
        return self.receive(len(commands))

    def send(self, commands: Sequence[Command]) -> None:
        """Send `commands`; the caller must receive as many replies."""
        self._unread += len(commands)
        try:
            self._socket.sendall(b"".join([hiredis.pack_command(command) for command in commands]))
        except OSError as error:
            raise self._lost(error) from None

    def receive(self, count: int) -> list[Any]:
        """The next `count` replies."""
        answers: list[Any] = []
        reader = self._reader
        try:
            while len(answers) < count:
                answer = reader.gets()
                if answer is False:
                    chunk = self._socket.recv(_CHUNK)
                    if not chunk:
                        raise ConnectionError
                    reader.feed(chunk)
                else:
                    answers.append(answer)
        except (OSError, hiredis.ProtocolError) as error:
            raise self._lost(error) from None
        self._unread -= count
        return answers

    def close(self) -> None:
        """Close it. Idempotent."""
        self._socket.close()

    def _lost(self, error: Exception) -> "ConnectionLost":
        self.close()
        text = f"Redis at {self.place} did not answer: {type(error).__name__}"
        return ConnectionLost(text, isinstance(error, TimeoutError))


class ConnectionLost(StoreUnavailable):
    """The connection is lost; `slow` if it timed out."""

    def __init__(self, message: str, slow: bool) -> None:
        super().__init__(message)
        self.slow = slow


def _open_socket(login: Login, place: RedisEndpoint) -> socket.socket:
    """A connected socket, with TLS if configured."""
    connected = None
    try:
        connected = socket.create_connection((place.host, place.port), login.address.connect_timeout_ms / 1000)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if place.tls and login.tls is not None:
            connected = login.tls.wrap_socket(connected, server_hostname=place.host)
        connected.settimeout(login.timeout_s())
    except OSError as error:
        if connected is not None:
            connected.close()
        raise ConnectionLost(f"Redis at {place} cannot be reached: {type(error).__name__}", True) from None
    return connected


def open_connection(login: Login, place: RedisEndpoint) -> Connection:
    """A connection that has completed the handshake."""
    connection = Connection(login, place)
    try:
        connection.greet(login)
    except BaseException:
        connection.close()
        raise
    return connection
