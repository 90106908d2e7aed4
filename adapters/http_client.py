"""The HTTP client for Flink's REST interface, schema registries, caches, health checks and inference servers.

It follows no redirects and uses no proxy: `urlopen` would send requests for loopback to a proxy named by the
environment. :class:`HttpClient` opens a connection for each request, so that threads may share a client;
:class:`KeptConnection` keeps one open.
"""

import http.client
import io
import socket
import time
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

from adapters.hosts import is_host
from schemas.errors import HttpUnanswered, SettingsError

ANSWER_BYTES_MAX: Final = 64 << 20
_CONNECTIONS: Final = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}


class HttpAnswer(NamedTuple):
    """A server's response, whatever its status."""

    status: int
    body: bytes


class HttpClient:
    """Sends requests to `url`, ``http(s)://host[:port][/path][?query]``, with `headers`.

    `timeout_s` bounds connecting and each wait for bytes; a response is truncated at `answer_bytes_max`. Raises
    :class:`SettingsError` if `url` is invalid; its text does not contain the URL, which may hold a password.
    """

    def __init__(
        self,
        url: str,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
        answer_bytes_max: int = ANSWER_BYTES_MAX,
    ) -> None:
        self._url = _parts(url)
        self._timeout_s = timeout_s
        self._headers = dict(headers or {})
        self._answer_bytes_max = answer_bytes_max

    def ask(
        self, method: str, path: str = "", body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> HttpAnswer:
        """Send a request for `path` below the URL; raises :class:`HttpUnanswered` without a response."""
        kind = _CONNECTIONS[self._url.scheme]
        connection = kind(self._url.hostname or "", self._url.port, timeout=self._timeout_s)
        try:
            connection.request(method, _target(self._url, path), body, {**self._headers, **(headers or {})})
            response = connection.getresponse()
            return HttpAnswer(response.status, response.read(self._answer_bytes_max))
        except (OSError, http.client.HTTPException) as error:
            raise HttpUnanswered(type(error).__name__) from error
        finally:
            connection.close()

    def get(self, path: str = "") -> HttpAnswer:
        """GET `path`."""
        return self.ask("GET", path)


class KeptConnection:
    """One connection to `url` that is kept open between requests, for one thread. `headers` go with each request.

    Raises :class:`SettingsError` if `url` is invalid.
    """

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        self._url = _parts(url)
        self._headers = dict(headers or {})
        self._connection: http.client.HTTPConnection | None = None
        self._socket: _DeadlineSocket | None = None

    def ask(self, method: str, path: str, body: bytes | None, deadline_s: float) -> HttpAnswer:
        """Send a request for `path` below the URL, and read all of the response, within `deadline_s`.

        A server may close an idle connection just when it is used again, so a request that gets no response on a kept
        connection is sent once more, on a new one. Raises :class:`HttpUnanswered` without a whole response.
        """
        ends_s, kept = time.monotonic() + deadline_s, self._connection is not None
        try:
            return self._ask(method, path, body, ends_s)
        except (ConnectionError, http.client.BadStatusLine) as error:
            self.close()
            if not kept:
                raise HttpUnanswered(type(error).__name__) from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise HttpUnanswered(type(error).__name__) from error
        try:
            return self._ask(method, path, body, ends_s)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise HttpUnanswered(type(error).__name__) from error

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
        self._connection = self._socket = None

    def _ask(self, method: str, path: str, body: bytes | None, ends_s: float) -> HttpAnswer:
        connection = self._opened(ends_s)
        connection.request(method, _target(self._url, path), body, self._headers)
        response = connection.getresponse()
        content = response.read(ANSWER_BYTES_MAX + 1)
        if len(content) > ANSWER_BYTES_MAX:
            raise http.client.HTTPException("the response is too large")
        if response.length:
            raise http.client.IncompleteRead(content, response.length)
        if response.will_close:
            self.close()
        return HttpAnswer(response.status, content)

    def _opened(self, ends_s: float) -> http.client.HTTPConnection:
        if self._connection is None or self._socket is None:
            kind = _CONNECTIONS[self._url.scheme]
            connection = kind(self._url.hostname or "", self._url.port, timeout=_left_s(ends_s))
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = _DeadlineSocket(connection.sock)
            connection.sock = self._socket
            self._connection = connection
        self._socket.ends_s = ends_s
        return self._connection


class _DeadlineSocket:
    """The part of a socket that `http.client` uses. Nothing waits for longer than until `ends_s`, however many bytes
    arrive, and when.
    """

    ends_s = 0.0

    def __init__(self, inner: socket.socket) -> None:
        self._inner = inner

    def sendall(self, content: bytes) -> None:
        """Send everything."""
        self._inner.settimeout(_left_s(self.ends_s))
        self._inner.sendall(content)

    def makefile(self, mode: str) -> io.BufferedReader:
        """A file to read a response from."""
        return io.BufferedReader(_DeadlineFile(self._inner, self.ends_s))

    def close(self) -> None:
        """Close the socket, as soon as no file reads from it."""
        self._inner.close()


class _DeadlineFile(io.RawIOBase):
    def __init__(self, inner: socket.socket, ends_s: float) -> None:
        self._inner, self._ends_s = inner, ends_s
        self._file = inner.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int | None:  # type: ignore[override]
        self._inner.settimeout(_left_s(self._ends_s))
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


def _left_s(ends_s: float) -> float:
    left = ends_s - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline has passed")
    return left


def _target(url: SplitResult, path: str) -> str:
    here = url.path.rstrip("/") + path if path else url.path or "/"
    return f"{here}?{url.query}" if url.query else here


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        is_one = is_host(parts.hostname or "") and (parts.port is None or parts.port > 0)
    except ValueError:
        is_one = False
    if not is_one or parts.scheme not in _CONNECTIONS or parts.username is not None or parts.fragment:
        raise SettingsError("an address is http(s)://host[:port][/path], without credentials") from None
    return parts
