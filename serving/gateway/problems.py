"""Error responses of the gateway: problem details (RFC 9457) that reveal no internals."""

import logging
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Final, NamedTuple

import msgspec

from schemas.log_lines import LogField

PROBLEM_TYPE: Final = "urn:freshet:problem:"
CONTENT_TYPE: Final = b"application/problem+json"
Header = tuple[bytes, bytes]
Headers = list[Header]
logger = logging.getLogger("freshet.gateway")


class Answer(NamedTuple):
    """An HTTP answer: status, headers with Content-Length, body."""

    status: int
    headers: Headers
    body: bytes


def joined(headers: Iterable[Header]) -> bytes:
    """Encode headers for HTTP/1.1. Trusts the caller: names in lower case, values without line breaks."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def split(lines: bytes) -> Headers:
    """Decode the headers encoded by :func:`joined`.

    >>> split(joined([(b"etag", b"1: 2"), (b"vary", b"")]))
    [(b'etag', b'1: 2'), (b'vary', b'')]
    """
    pairs = [line.partition(b": ") for line in lines.split(b"\r\n")[:-1]]
    return [(name, value) for name, _, value in pairs]


class ProblemDetails(msgspec.Struct, omit_defaults=True):
    """Why a request was rejected (RFC 9457). Invalid records also have a `reason`."""

    type: str
    title: str
    status: int
    detail: str
    reason: str | None = None


class Problem(Exception):  # noqa: N818 - an answer
    """Why a request is refused. `kind` and `reason` are for programs, `detail` is for people.

    `detail` says what is wrong, and how to fix it. None of them may contain a value from the request.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        headers: Iterable[tuple[str, str]] = (),
        *,
        reason: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail, self.reason = status, kind, detail, reason
        self.headers = list(headers)

    def answer(self) -> Answer:
        """The problem as an answer that no cache may keep."""
        title = HTTPStatus(self.status).phrase
        raw = msgspec.json.encode(
            ProblemDetails(PROBLEM_TYPE + self.kind, title, self.status, self.detail, self.reason)
        )
        headers = [(b"content-type", CONTENT_TYPE), (b"cache-control", b"no-store")]
        headers += [(name.lower().encode(), value.encode()) for name, value in self.headers]
        return Answer(self.status, [*headers, (b"content-length", b"%d" % len(raw))], raw)


def unauthenticated() -> Problem:
    """Missing credentials."""
    detail = "give an API key in X-API-Key, or a token or an API key in Authorization: Bearer, or a key by Basic"
    challenges = 'Bearer realm="freshet", Basic realm="freshet", charset="UTF-8"'
    return Problem(401, "unauthenticated", detail, [("WWW-Authenticate", challenges)])


def bad_token() -> Problem:
    """Invalid credentials. The answer does not say why: that would only help attackers."""
    challenge = 'Bearer realm="freshet", error="invalid_token", Basic realm="freshet", charset="UTF-8"'
    return Problem(401, "bad-credentials", "the token or API key is not valid here", [("WWW-Authenticate", challenge)])


def forbidden(route: str) -> Problem:
    """Role not permitted."""
    return Problem(403, "forbidden", f"none of your roles may use {route}")


def bad_request(detail: str) -> Problem:
    """Malformed request."""
    return Problem(400, "bad-request", detail)


def too_many(retry_after_s: int, detail: str) -> Problem:
    """Rate limit exceeded, or no capacity."""
    return Problem(429, "too-many-requests", detail, [("Retry-After", str(retry_after_s))])


def unavailable(detail: str) -> Problem:
    """A backend is unavailable."""
    return Problem(503, "unavailable", detail, [("Retry-After", "1")])


def overloaded(detail: str) -> Problem:
    """The gateway is at capacity."""
    return Problem(503, "overloaded", detail, [("Retry-After", "1")])


def fault() -> Problem:
    """A bug in the gateway."""
    return Problem(500, "internal", "this is a fault of the gateway, and it is logged")


def logged(error: Exception, route: str, fields: Mapping[str, LogField] | None = None) -> Problem:
    """Log a bug without its text and values, which may contain data of a request. `fields` are added to the line."""
    place = {"error.type": type(error).__name__, "log.origin.function": _place_of(error)}
    logger.error("a request of %s failed", route, extra={**place, **(fields or {})})
    return fault()


def _place_of(error: BaseException) -> str:
    """Where in the code the error was raised."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return "" if traceback is None else f"{traceback.tb_frame.f_code.co_qualname}:{traceback.tb_lineno}"
