"""The HTTP client for Flink's REST interface, schema registries, caches and health checks.

It follows no redirects and uses no proxy: `urlopen` would send requests for loopback to a proxy named by the
environment. Each request opens its own connection, so that threads may share a client.
"""

import http.client
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
            connection.request(method, self._target(path), body, {**self._headers, **(headers or {})})
            response = connection.getresponse()
            return HttpAnswer(response.status, response.read(self._answer_bytes_max))
        except (OSError, http.client.HTTPException) as error:
            raise HttpUnanswered(type(error).__name__) from error
        finally:
            connection.close()

    def get(self, path: str = "") -> HttpAnswer:
        """GET `path`."""
        return self.ask("GET", path)

    def _target(self, path: str) -> str:
        here = self._url.path.rstrip("/") + path if path else self._url.path or "/"
        return f"{here}?{self._url.query}" if self._url.query else here


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        is_one = is_host(parts.hostname or "") and (parts.port is None or parts.port > 0)
    except ValueError:
        is_one = False
    if not is_one or parts.scheme not in _CONNECTIONS or parts.username is not None or parts.fragment:
        raise SettingsError("an address is http(s)://host[:port][/path], without credentials") from None
    return parts
