"""One socket to one primary. It never reconnects by itself: commands are built for the server behind it."""

import select
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import hiredis

from adapters.redis.address import READ_TIMEOUT_MS, WRITE_TIMEOUT_MS, RedisAddress, RedisEndpoint, parse, tls_context
from adapters.redis.greeting import ANY_TENANT, Command, Look, life_of, look, looked, record_of
from adapters.redis.replies import raised_for
from schemas.errors import SettingsError, StoreUnavailable
from schemas.store import Generation, TenantMark

_CHUNK: Final = 1 << 16


class Login(NamedTuple):
    """How to get in. Never show it: it holds a password."""

    address: RedisAddress
    password: str | None
    tls: ssl.SSLContext | None
    prefix: str
    reading: bool = False
    """Readers leave a primary that has lost its replicas, and see a closed Redis where they may not look."""
    tenant: TenantMark = ANY_TENANT
    """A Redis with the generation record of another tenant's job is closed."""

    @classmethod
    def of(
        cls,
        address: RedisAddress,
        password: str | None,
        prefix: str,
        reading: bool = False,
        tenant: TenantMark = ANY_TENANT,
    ) -> "Login":
        """Raises :class:`SettingsError` where TLS files cannot be used, or a Cluster could not place keys."""
        if address.kind == "cluster" and "{" in prefix:
            raise SettingsError("the prefix of keys in a Cluster must not contain {: it would decide their slots")
        tls = tls_context(address, any(parse(url).tls for url in address.urls))
        return cls(address, password, tls, prefix, reading, tenant)

    def timeout_s(self) -> float:
        """How long an answer may take."""
        return self.address.timeout_s(READ_TIMEOUT_MS if self.reading else WRITE_TIMEOUT_MS)

    def replicas_least(self) -> int:
        """How many replicas must be in touch for a connection to be open."""
        return self.address.replicas if self.reading else 0

    def commands(self, place: RedisEndpoint) -> list[Command]:
        """What logs in at `place`."""
        user, secret = self.address.username or place.username, self.password or place.password
        found: list[Command] = []
        if secret is not None:
            found.append(("AUTH", secret) if user is None else ("AUTH", user, secret))
        if place.database:
            found.append(("SELECT", place.database))
        return found


class Connection:
    """An open connection that has logged in. All methods raise :class:`StoreUnavailable` when it is lost.

    One thread at a time. An error answer is a value here, a `hiredis.ReplyError`.
    """

    def __init__(self, login: Login, place: RedisEndpoint) -> None:
        self.place = place
        self._prefix = login.prefix
        self._reading = login.reading
        self._reader = hiredis.Reader()
        self._socket = _opened(login, place)
        self._readable = select.poll()
        self._readable.register(self._socket, select.POLLIN)
        self.life = ""
        self.seen = Look()
        self.record: Generation | None = None
        self._looked_at_s = 0.0
        self._unread = 0

    def greet(self, login: Login) -> None:
        """Log in and learn which life of Redis this is, in one round trip.

        Raises :class:`StoreUnavailable` where it is no primary, and :class:`StoreMisconfigured`.
        """
        begin = login.commands(self.place)
        answers = self.ask([*begin, ("INFO", "server"), *look(self._prefix)])
        try:
            for answer in answers[: len(begin)]:
                if isinstance(answer, hiredis.ReplyError):
                    raise answer
            server, *seen = answers[len(begin) :]
            self.seen = looked(*seen, reading=self._reading)
            self.life = life_of(server, self.seen)
            self.record = record_of(self.seen)
        except hiredis.ReplyError as error:
            raise raised_for(error, self._prefix) from None
        self._looked_at_s = time.monotonic()

    def age_s(self) -> float:
        """How long ago the server was last looked at."""
        return time.monotonic() - self._looked_at_s

    def look_again(self, *answers: Any) -> None:
        """Take the answers to :func:`adapters.redis.greeting.look`. Raises as :meth:`greet` does."""
        try:
            self.seen = looked(*answers, reading=self._reading)
            self.record = record_of(self.seen)
        except hiredis.ReplyError as error:
            raise raised_for(error, self._prefix) from None
        self.life = self.seen.life(self.life.partition(".")[0])
        self._looked_at_s = time.monotonic()

    def is_idle(self) -> bool:
        """Whether it is open and every answer has been read: only then may somebody else use it."""
        return not self._unread and self._socket.fileno() >= 0

    def is_stale(self) -> bool:
        """Whether the server has closed it, or has said something that nobody asked for."""
        return bool(self._readable.poll(0))

    def ask(self, commands: Sequence[Command]) -> list[Any]:
        """All commands in one write, all answers in one list."""
        self.send(commands)
        return self.receive(len(commands))

    def send(self, commands: Sequence[Command]) -> None:
        """Send `commands`; as many answers must be received."""
        self._unread += len(commands)
        try:
            self._socket.sendall(b"".join([hiredis.pack_command(command) for command in commands]))
        except OSError as error:
            raise self._lost(error) from None

    def receive(self, count: int) -> list[Any]:
        """The next `count` answers."""
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
        """End it; harmless when it has ended."""
        self._socket.close()

    def _lost(self, error: Exception) -> "ConnectionLost":
        self.close()
        return ConnectionLost(f"Redis did not answer: {type(error).__name__}", isinstance(error, TimeoutError))


class ConnectionLost(StoreUnavailable):
    """The connection is gone; `slow` when it was given up after its timeout."""

    def __init__(self, message: str, slow: bool) -> None:
        super().__init__(message)
        self.slow = slow


def _opened(login: Login, place: RedisEndpoint) -> socket.socket:
    """A connected socket, with TLS where the URL says so."""
    opened = None
    try:
        opened = socket.create_connection((place.host, place.port), login.address.connect_timeout_ms / 1000)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if place.tls and login.tls is not None:
            opened = login.tls.wrap_socket(opened, server_hostname=place.host)
        opened.settimeout(login.timeout_s())
    except OSError as error:
        if opened is not None:
            opened.close()
        raise ConnectionLost(f"Redis cannot be reached: {type(error).__name__}", True) from None
    return opened


def opened(login: Login, place: RedisEndpoint) -> Connection:
    """A connection that has shaken hands."""
    connection = Connection(login, place)
    try:
        connection.greet(login)
    except BaseException:
        connection.close()
        raise
    return connection
