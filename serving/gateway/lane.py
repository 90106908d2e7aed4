"""The hot route, `GET /v1/recommendations/{user}`: plain ASGI in front of the framework, which is several times slower.

Authenticate → check limits → parse → read the user's list or a fallback → compare ETags. A list is sent as the bytes
stored in Redis, cut to `n` items; it is only decoded for filters.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any, Final, Protocol

import msgspec

from schemas.log_lines import LogField
from serving.answers import Own
from serving.gateway.admission import REMAINING, Class, class_of
from serving.gateway.listing import choose
from serving.gateway.logs import answer_fields, request_fields
from serving.gateway.metrics import NO_ROLE
from serving.gateway.parts import GatewayParts
from serving.gateway.problems import Problem, joined, logged, split
from serving.gateway.questions import (
    PREFIX,
    Query,
    RequestHead,
    deadline_s,
    headers_by_name,
    is_known,
    parse_head,
    read_query,
    user_in_path,
)
from serving.gateway.security import Principal
from serving.gateway.tenants import Tenant

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

NAME: Final = "recommendations"
"""The route's name in :mod:`serving.gateway.roles`."""
JSON: Final = (b"content-type", b"application/json")
PRIVATE: Final = (b"cache-control", b"private, no-cache")
"""A private cache may keep the answer, and must revalidate it each time."""
VARY: Final = (b"vary", b"authorization, x-api-key")
REFUSED: Final = "refused"
"""The reason of error responses, in metrics."""
logger = logging.getLogger("freshet.gateway")
FAULT: Final = 500
"""Answers with this status or a higher one are always logged."""
SHED: Final = joined([(b"freshet-shed", b"overload")])


_UNCHANGED: Final = b"%bratelimit: " + REMAINING + b"\r\netag: %b\r\n%b"
"""For 304, which has no body and so no Content-Length: a proxy might wait for the promised bytes."""
_LINES: Final = _UNCHANGED[:-2] + b"content-length: %d\r\n%b"


class EncodedAnswer(msgspec.Struct, frozen=True, gc=False):
    """An answer with encoded headers: the hot route writes them directly."""

    status: int
    lines: bytes
    body: bytes


class HotRequest(msgspec.Struct, frozen=True, gc=False):
    """A valid request of the hot route; its key has `left` requests left."""

    role: str
    tenant: Tenant
    left: int
    user_id: str
    query: Query
    of: Class
    now_ms: int
    deadline_s: float | None
    head: RequestHead


class PendingRequest(Protocol):
    """A request handed over by the server without a task; to be answered once."""

    def respond(self, status: int, lines: bytes, body: bytes) -> None:
        """Answer it; `lines` are the encoded headers, including Content-Length."""
        ...


class _AsgiRequest(asyncio.Future[EncodedAnswer]):
    """A request that came through ASGI."""

    def respond(self, status: int, lines: bytes, body: bytes) -> None:
        """See :class:`PendingRequest`."""
        if not self.done():
            self.set_result(EncodedAnswer(status, lines, body))


class Lane:
    """Answers the hot route and passes everything else on to `app`.

    Requests enter by :meth:`handle`: from a server that passes them without a task, or from :meth:`serve`, which is
    ASGI. A request that one Redis call answers needs no task of its own.
    """

    def __init__(self, app: App, parts: GatewayParts, slow_s: float) -> None:
        self._app = app
        self._slow_s = slow_s
        self._common = joined([JSON, PRIVATE, VARY, parts.limits.policy])
        self._parts = parts
        self._authenticator, _, self._admission, self._limits, self._meter = parts
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        is_hot = scope["type"] == "http" and scope["raw_path"].startswith(PREFIX)
        if not is_hot or scope["method"] not in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        await self.serve(scope, receive, send)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the hot route through ASGI."""
        request = _AsgiRequest()
        self.handle(request, scope["raw_path"], scope["query_string"], parse_head(headers_by_name(scope["headers"])))
        answer = await request
        await send({"type": "http.response.start", "status": answer.status, "headers": split(answer.lines)})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})

    def handle(self, request: PendingRequest, raw_path: bytes, query: bytes, head: RequestHead) -> None:
        """Answer a request without a body, now or later."""
        begun_s, role = time.perf_counter(), NO_ROLE
        try:
            principal = self._authenticator.principal(head.lines)
            role = principal.role_for(NAME)
            asked = self._parse(principal, role, head, raw_path, query)
        except Exception as error:
            self._respond(request, _refused(error), role, begun_s, None)
            return
        admission, reader = self._admission, asked.tenant.reader
        if asked.deadline_s is not None or not reader.can_request_own() or not admission.admits(asked.of):
            self._answer_in_task(request, asked, begun_s)
            return
        admission.in_progress += 1
        reader.request_own(asked.user_id, asked.query.segments, partial(self._on_reply, request, asked, begun_s))

    def _on_reply(self, request: PendingRequest, asked: HotRequest, begun_s: float, answer: Any) -> None:
        """Handle Redis' reply. After an error or without a list, use cached lists; slower cases continue in a task."""
        self._admission.in_progress -= 1
        failed = isinstance(answer, Exception)
        own: Own | None = None if failed else answer
        if own is None:
            reader = asked.tenant.reader
            if not reader.cached(asked.query.segments) or (failed and reader.is_up()):
                self._answer_in_task(request, asked, begun_s)
                return
        try:
            found = self._encode(asked, own)
        except Exception as error:
            found = _refused(error, asked)
        self._respond(request, found, asked.role, begun_s, asked)

    def _answer_in_task(self, request: PendingRequest, asked: HotRequest, begun_s: float) -> None:
        """Answer in a task."""
        task = asyncio.ensure_future(self._run_task(request, asked, begun_s))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_task(self, request: PendingRequest, asked: HotRequest, begun_s: float) -> None:
        try:
            found = await self._answer(asked)
        except Exception as error:
            found = _refused(error, asked)
        self._respond(request, found, asked.role, begun_s, asked)

    def _respond(
        self,
        request: PendingRequest,
        found: tuple[EncodedAnswer, str],
        role: str,
        begun_s: float,
        asked: HotRequest | None,
    ) -> None:
        """Send `found`, an answer and its reason."""
        answer, reason = found
        request.respond(answer.status, answer.lines, answer.body)
        self._note(role, reason, answer.status, begun_s, asked)

    def _note(self, role: str, reason: str, status: int, begun_s: float, asked: HotRequest | None) -> None:
        """Count the answer; log it if it was slow, failed, or is part of a sampled trace."""
        seconds = time.perf_counter() - begun_s
        self._meter.read(role, reason, status, seconds)
        trace = None if asked is None else asked.head.trace
        if seconds > self._slow_s or trace is not None or status >= FAULT:
            fields = {**answer_fields(NAME, role, status, seconds), "event.reason": reason, **_fields_of(asked)}
            logger.info("recommendations %d", status, extra=fields)

    def _parse(self, principal: Principal, role: str, head: RequestHead, raw_path: bytes, query: bytes) -> HotRequest:
        """Parse and authorise the request. Raises :class:`Problem`."""
        tenant, left = self._parts.admit(principal, NAME, time.monotonic())
        asked = read_query(query)
        if asked.ignored:
            self._meter.ignored(NAME, asked.ignored)
        return HotRequest(
            role,
            tenant,
            left,
            user_in_path(raw_path),
            asked,
            class_of(principal, head.urgency),
            time.time_ns() // 1_000_000,
            None if head.deadline is None else deadline_s(head.deadline),
            head,
        )

    async def _answer(self, asked: HotRequest) -> tuple[EncodedAnswer, str]:
        """The user's list, or a fallback. A shed request waits for a fallback, without a call to Redis."""
        admission, reader = self._admission, asked.tenant.reader
        if not admission.admits(asked.of):
            await admission.pause(asked.deadline_s)
            return self._encode(asked, None, SHED)
        admission.in_progress += 1
        try:
            own = reader.own(asked.user_id, asked.query.segments)
            found = await own if asked.deadline_s is None else await _within(asked.deadline_s, own)
            return self._encode(asked, found)
        finally:
            admission.in_progress -= 1

    def _encode(self, asked: HotRequest, own: Own | None, more: bytes = b"") -> tuple[EncodedAnswer, str]:
        found = choose(own, asked.tenant, asked.query, asked.now_ms)
        if found.reason in ("personalised", "session"):
            asked.tenant.note_read(asked.user_id, asked.role)
        known = asked.head.known
        if known and is_known(found.tag, known):
            return EncodedAnswer(304, _UNCHANGED % (self._common, asked.left, found.tag, more), b""), found.reason
        lines = _LINES % (self._common, asked.left, found.tag, len(found.body), more)
        return EncodedAnswer(200, lines, found.body), found.reason


def _fields_of(asked: HotRequest | None) -> dict[str, LogField]:
    """What a log line says of a valid request."""
    return {} if asked is None else {"trace.id": asked.head.trace, **request_fields(asked.tenant, asked.head.lines)}


def _refused(error: Exception, asked: HotRequest | None = None) -> tuple[EncodedAnswer, str]:
    problem = error if isinstance(error, Problem) else logged(error, "the hot route", _fields_of(asked))
    answer = problem.answer()
    return EncodedAnswer(answer.status, joined(answer.headers), answer.body), REFUSED


async def _within(seconds: float, own: Awaitable[Own | None]) -> Own | None:
    """Limit the time; None, so that cached lists are used, if the list does not arrive in time."""
    try:
        async with asyncio.timeout(seconds):
            return await own
    except TimeoutError:
        return None
