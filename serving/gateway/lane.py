"""The one hot route, `GET /v1/recommendations/{user}`: plain ASGI in front of the framework, which costs a multiple.

Who asks → within their limits → what they ask → the user's list, or what stands in → has the caller got it already?
A list goes out as the bytes that stand in Redis, cut to `n` items; only filters make it be decoded.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from serving.answers import Own
from serving.gateway.admission import Class, class_of
from serving.gateway.listing import choose
from serving.gateway.parts import Parts
from serving.gateway.problems import Answer, Header, Headers, Problem, fault, forbidden, place_of, too_many
from serving.gateway.questions import PREFIX, Query, deadline_s, read_query, trace_of, user_in
from serving.gateway.security import Principal
from serving.gateway.tenants import Tenant, tenant_of

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PRIVATE: Final = (b"cache-control", b"private, no-cache")
"""A cache of the user's own may keep the answer, and must ask each time whether it may still use it."""
VARY: Final = (b"vary", b"authorization, x-api-key")
JSON: Final = (b"content-type", b"application/json")
NOBODY: Final = "none"
"""The role of who is not known, in metrics."""
REFUSED: Final = "refused"
"""The reason of what is no list, in metrics."""
logger = logging.getLogger("freshet.gateway")
SHED: Final = (b"freshet-shed", b"overload")


class Asked(NamedTuple):
    """A request of the hot route that may be answered. `known` is what the caller has; `left` what its key has left."""

    role: str
    tenant: Tenant
    user_id: str
    query: Query
    of: Class
    now_ms: int
    known: bytes
    deadline_s: float | None
    left: int
    trace: str | None


class Flight(Protocol):
    """A request that the server hands over without a task of its own; to be landed once."""

    def land(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer it. Content-Length is among the headers."""
        ...


class Lane:
    """Answers the hot route and passes everything else on to `app`.

    Where the server can do that it hands requests over by :meth:`board`, which takes no task for what is answered by
    one look into Redis; everywhere else :meth:`serve` does the same by ASGI.
    """

    def __init__(self, app: App, parts: Parts, slow_s: float) -> None:
        self._app = app
        self._slow_s = slow_s
        self._authenticator, self._tenants, self._admission, self._limits, self._meter = parts
        self._flying: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX) or scope["method"] not in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        await self.serve(scope, receive, send)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the hot route by ASGI."""
        begun_s, role, asked = time.perf_counter(), NOBODY, None
        try:
            headers = dict(scope["headers"])
            principal = self._authenticator.principal(headers)
            role = principal.role
            asked = self._look(principal, headers, scope["raw_path"], scope["query_string"])
            answer, reason = await self._answer(asked)
        except Problem as problem:
            answer, reason = problem.answer(), REFUSED
        except Exception as error:
            answer, reason = _fault(error), REFUSED
        status, answered, body = answer
        await send({"type": "http.response.start", "status": status, "headers": answered})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
        self._note(role, reason, status, begun_s, asked)

    def board(self, flight: Flight, raw_path: bytes, query: bytes, raw_headers: list[tuple[bytes, bytes]]) -> None:
        """The same for a request without a body, which is landed now or later."""
        begun_s, role = time.perf_counter(), NOBODY
        try:
            headers = dict(raw_headers)
            principal = self._authenticator.principal(headers)
            role = principal.role
            asked = self._look(principal, headers, raw_path, query)
        except Problem as problem:
            self._land(flight, problem.answer(), REFUSED, role, begun_s, None)
            return
        except Exception as error:
            self._land(flight, _fault(error), REFUSED, role, begun_s, None)
            return
        own = None
        if asked.deadline_s is None and self._admission.takes(asked.of):
            own = asked.tenant.reader.ask_own(asked.user_id, asked.query.segments, asked.now_ms)
        if own is None:
            self._fly(flight, asked, begun_s)
            return
        self._admission.under_way += 1
        own.add_done_callback(lambda done: self._arrived(flight, asked, begun_s, done))

    def _arrived(self, flight: Flight, asked: Asked, begun_s: float, own: "asyncio.Future[Any]") -> None:
        """Redis has answered, or has not: then what is held stands in, and what takes longer takes a task."""
        self._admission.under_way -= 1
        failed = own.cancelled() or own.exception() is not None
        if failed or own.result() is None:
            held = asked.tenant.reader.held(asked.query.segments)
            if not held or (failed and asked.tenant.reader.is_up()):
                self._fly(flight, asked, begun_s)
                return
        try:
            answer, reason = self._answered(asked, None if failed else own.result())
        except Exception as error:
            answer, reason = _fault(error), REFUSED
        self._land(flight, answer, reason, asked.role, begun_s, asked)

    def _fly(self, flight: Flight, asked: Asked, begun_s: float) -> None:
        """Answer in a task."""
        task = asyncio.ensure_future(self._flown(flight, asked, begun_s))
        self._flying.add(task)
        task.add_done_callback(self._flying.discard)

    async def _flown(self, flight: Flight, asked: Asked, begun_s: float) -> None:
        try:
            answer, reason = await self._answer(asked)
        except Exception as error:
            answer, reason = _fault(error), REFUSED
        self._land(flight, answer, reason, asked.role, begun_s, asked)

    def _land(
        self, flight: Flight, answer: Answer, reason: str, role: str, begun_s: float, asked: Asked | None
    ) -> None:
        flight.land(*answer)
        self._note(role, reason, answer.status, begun_s, asked)

    def _note(self, role: str, reason: str, status: int, begun_s: float, asked: Asked | None) -> None:
        """Count it; log what was slow, and what is part of a trace that somebody samples."""
        seconds = time.perf_counter() - begun_s
        self._meter.read(role, reason, status, seconds)
        trace = None if asked is None else asked.trace
        if seconds > self._slow_s or trace is not None:
            told = {"route": "recommendations", "reason": reason, "status": status, "role": role, "trace": trace}
            logger.info("recommendations %d", status, extra={**told, "ms": round(1000 * seconds, 1)})

    def _look(self, principal: Principal, headers: Mapping[bytes, bytes], raw_path: bytes, query: bytes) -> Asked:
        """What is asked, by whom. Raises :class:`Problem`."""
        if "recommendations" not in principal.allowed:
            raise forbidden("recommendations")
        now_s = time.time()
        left = self._limits.take(principal.subject, now_s)
        if left < 0:
            raise too_many(self._limits.again_in_s(principal.subject, now_s), "this key has used up its requests")
        deadline = headers.get(b"freshet-deadline-ms")
        return Asked(
            principal.role,
            tenant_of(self._tenants, principal.tenant),
            user_in(raw_path),
            read_query(query),
            class_of(principal, headers.get(b"priority")),
            int(now_s * 1000),
            headers.get(b"if-none-match", b""),
            None if deadline is None else deadline_s(deadline),
            left,
            trace_of(headers.get(b"traceparent")),
        )

    async def _answer(self, asked: Asked) -> tuple[Answer, str]:
        """The user's list, or what stands in; who is shed waits for that, and Redis is not asked."""
        admission, reader = self._admission, asked.tenant.reader
        if not admission.takes(asked.of):
            await admission.pause(asked.deadline_s)
            return self._answered(asked, None, (SHED,))
        admission.under_way += 1
        try:
            own = reader.own(asked.user_id, asked.query.segments, asked.now_ms)
            found = await own if asked.deadline_s is None else await _within(asked.deadline_s, own)
            return self._answered(asked, found)
        finally:
            admission.under_way -= 1

    def _answered(self, asked: Asked, own: Own | None, more: Sequence[Header] = ()) -> tuple[Answer, str]:
        found = choose(own, asked.tenant, asked.query, asked.now_ms)
        if found.reason in ("personalised", "session"):
            asked.tenant.note_read(asked.user_id, asked.role)
        status, body = (304, b"") if found.tag in asked.known else (200, found.body)
        headers = [
            JSON, PRIVATE, VARY, (b"ratelimit-policy", self._limits.policy), (b"ratelimit", b'"key";r=%d' % asked.left),
            (b"etag", found.tag), (b"content-length", b"%d" % len(found.body)), *more,
        ]  # fmt: skip
        return Answer(status, headers, body), found.reason


def _fault(error: Exception) -> Answer:
    # Neither its text nor its values: both may hold what a request held.
    logger.error("a request of the hot route failed", extra={"error": type(error).__name__, "at": place_of(error)})
    return fault().answer()


async def _within(seconds: float, own: Awaitable[Own | None]) -> Own | None:
    """What is held stands in for a list that does not come in time."""
    try:
        async with asyncio.timeout(seconds):
            return await own
    except TimeoutError:
        return None
