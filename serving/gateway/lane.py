"""The one hot route, `GET /v1/recommendations/{user}`: plain ASGI in front of the framework, which costs a multiple.

Who asks → within their limits → what they ask → the user's list or a fallback → has the caller got it already?
A list goes out as the bytes that are in Redis, cut to `n` items; only filters make it be decoded.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any, Final, Protocol

import msgspec

from serving.answers import Own
from serving.gateway.admission import LEFT, Class, class_of
from serving.gateway.listing import choose
from serving.gateway.metrics import NOBODY
from serving.gateway.parts import GatewayParts
from serving.gateway.problems import Problem, joined, logged, split
from serving.gateway.questions import (
    PREFIX,
    Query,
    RequestHead,
    deadline_s,
    head_of,
    is_known,
    lines_of,
    read_query,
    user_in,
)
from serving.gateway.security import Principal
from serving.gateway.tenants import Tenant

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

NAME: Final = "recommendations"
"""The route, as :mod:`serving.gateway.roles` calls it."""
JSON: Final = (b"content-type", b"application/json")
PRIVATE: Final = (b"cache-control", b"private, no-cache")
"""A cache of the user's own may keep the answer, and must ask each time whether it may still use it."""
VARY: Final = (b"vary", b"authorization, x-api-key")
REFUSED: Final = "refused"
"""The reason of what is no list, in metrics."""
logger = logging.getLogger("freshet.gateway")
SHED: Final = joined([(b"freshet-shed", b"overload")])


_UNCHANGED: Final = b"%bratelimit: " + LEFT + b"\r\netag: %b\r\n%b"
"""Of an answer 304, which has no body: a server would wait for what a Content-Length promised."""
_LINES: Final = _UNCHANGED[:-2] + b"content-length: %d\r\n%b"


class Landing(msgspec.Struct, frozen=True, gc=False):
    """An answer with its headers as lines: those of the hot route are written, not listed."""

    status: int
    lines: bytes
    body: bytes


class Asked(msgspec.Struct, frozen=True, gc=False):
    """A request of the hot route that may be answered; its key has `left` requests left."""

    role: str
    tenant: Tenant
    left: int
    user_id: str
    query: Query
    of: Class
    now_ms: int
    deadline_s: float | None
    head: RequestHead


class Flight(Protocol):
    """A request that the server hands over without a task of its own; to be landed once."""

    def land(self, status: int, lines: bytes, body: bytes) -> None:
        """Answer it; `lines` are those of the headers, Content-Length among them."""
        ...


class _Awaited(asyncio.Future[Landing]):
    """The flight of a request that came by ASGI."""

    def land(self, status: int, lines: bytes, body: bytes) -> None:
        """See :class:`Flight`."""
        if not self.done():
            self.set_result(Landing(status, lines, body))


class Lane:
    """Answers the hot route and passes everything else on to `app`.

    A request comes by :meth:`board`: from a server that hands it over without a task, or from :meth:`serve`, which is
    ASGI. What is answered by one look into Redis takes no task of its own.
    """

    def __init__(self, app: App, parts: GatewayParts, slow_s: float) -> None:
        self._app = app
        self._slow_s = slow_s
        self._common = joined([JSON, PRIVATE, VARY, parts.limits.policy])
        self._parts = parts
        self._authenticator, _, self._admission, self._limits, self._meter = parts
        self._flying: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        is_hot = scope["type"] == "http" and scope["raw_path"].startswith(PREFIX)
        if not is_hot or scope["method"] not in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        await self.serve(scope, receive, send)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the hot route by ASGI."""
        flight = _Awaited()
        self.board(flight, scope["raw_path"], scope["query_string"], head_of(lines_of(scope["headers"])))
        answer = await flight
        await send({"type": "http.response.start", "status": answer.status, "headers": split(answer.lines)})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})

    def board(self, flight: Flight, raw_path: bytes, query: bytes, head: RequestHead) -> None:
        """Answer a request without a body; it is landed now or later."""
        begun_s, role = time.perf_counter(), NOBODY
        try:
            principal = self._authenticator.principal(head.lines)
            role = principal.role_for(NAME)
            asked = self._look(principal, role, head, raw_path, query)
        except Exception as error:
            self._land(flight, _refused(error), role, begun_s, None)
            return
        admission, reader = self._admission, asked.tenant.reader
        if asked.deadline_s is not None or not reader.may_ask_own() or not admission.takes(asked.of):
            self._fly(flight, asked, begun_s)
            return
        admission.under_way += 1
        reader.ask_own(asked.user_id, asked.query.segments, partial(self._arrived, flight, asked, begun_s))

    def _arrived(self, flight: Flight, asked: Asked, begun_s: float, answer: Any) -> None:
        """Redis has answered, or has not: then what is held stands in, and what takes longer takes a task."""
        self._admission.under_way -= 1
        failed = isinstance(answer, Exception)
        own: Own | None = None if failed else answer
        if own is None:
            reader = asked.tenant.reader
            if not reader.held(asked.query.segments) or (failed and reader.is_up()):
                self._fly(flight, asked, begun_s)
                return
        try:
            found = self._answered(asked, own)
        except Exception as error:
            found = _refused(error)
        self._land(flight, found, asked.role, begun_s, asked)

    def _fly(self, flight: Flight, asked: Asked, begun_s: float) -> None:
        """Answer in a task."""
        task = asyncio.ensure_future(self._flown(flight, asked, begun_s))
        self._flying.add(task)
        task.add_done_callback(self._flying.discard)

    async def _flown(self, flight: Flight, asked: Asked, begun_s: float) -> None:
        try:
            found = await self._answer(asked)
        except Exception as error:
            found = _refused(error)
        self._land(flight, found, asked.role, begun_s, asked)

    def _land(self, flight: Flight, found: tuple[Landing, str], role: str, begun_s: float, asked: Asked | None) -> None:
        """`found` is the answer and its reason."""
        answer, reason = found
        flight.land(answer.status, answer.lines, answer.body)
        self._note(role, reason, answer.status, begun_s, asked)

    def _note(self, role: str, reason: str, status: int, begun_s: float, asked: Asked | None) -> None:
        """Count it; log what was slow, and what is part of a trace that somebody samples."""
        seconds = time.perf_counter() - begun_s
        self._meter.read(role, reason, status, seconds)
        trace = None if asked is None else asked.head.trace
        if seconds > self._slow_s or trace is not None:
            told = {"route": "recommendations", "reason": reason, "status": status, "role": role, "trace": trace}
            logger.info("recommendations %d", status, extra={**told, "ms": round(1000 * seconds, 1)})

    def _look(self, principal: Principal, role: str, head: RequestHead, raw_path: bytes, query: bytes) -> Asked:
        """What is asked, by whom. Raises :class:`Problem`."""
        tenant, left = self._parts.admit(principal, NAME, time.monotonic())
        asked = read_query(query)
        if asked.ignored:
            self._meter.ignored(NAME, asked.ignored)
        return Asked(
            role,
            tenant,
            left,
            user_in(raw_path),
            asked,
            class_of(principal, head.urgency),
            time.time_ns() // 1_000_000,
            None if head.deadline is None else deadline_s(head.deadline),
            head,
        )

    async def _answer(self, asked: Asked) -> tuple[Landing, str]:
        """The user's list, or a fallback; shed requests wait for that, and Redis is not asked."""
        admission, reader = self._admission, asked.tenant.reader
        if not admission.takes(asked.of):
            await admission.pause(asked.deadline_s)
            return self._answered(asked, None, SHED)
        admission.under_way += 1
        try:
            own = reader.own(asked.user_id, asked.query.segments)
            found = await own if asked.deadline_s is None else await _within(asked.deadline_s, own)
            return self._answered(asked, found)
        finally:
            admission.under_way -= 1

    def _answered(self, asked: Asked, own: Own | None, more: bytes = b"") -> tuple[Landing, str]:
        found = choose(own, asked.tenant, asked.query, asked.now_ms)
        if found.reason in ("personalised", "session"):
            asked.tenant.note_read(asked.user_id, asked.role)
        known = asked.head.known
        if known and is_known(found.tag, known):
            return Landing(304, _UNCHANGED % (self._common, asked.left, found.tag, more), b""), found.reason
        lines = _LINES % (self._common, asked.left, found.tag, len(found.body), more)
        return Landing(200, lines, found.body), found.reason


def _refused(error: Exception) -> tuple[Landing, str]:
    problem = error if isinstance(error, Problem) else logged(error, "the hot route")
    answer = problem.answer()
    return Landing(answer.status, joined(answer.headers), answer.body), REFUSED


async def _within(seconds: float, own: Awaitable[Own | None]) -> Own | None:
    """What is held stands in for a list that does not come in time."""
    try:
        async with asyncio.timeout(seconds):
            return await own
    except TimeoutError:
        return None
