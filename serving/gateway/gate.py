"""Handles every request except those of the hot route.

In this order: find the route, authenticate, authorise, check rate limits, reserve capacity; then bound the body,
enforce the deadline, and answer whatever happens.
"""

import asyncio
import logging
import re
import time
from typing import Any, Final

from starlette.requests import ClientDisconnect

from schemas.log_lines import add_to_log_lines
from serving.gateway.lane import App, Receive, Scope, Send
from serving.gateway.logs import answer_fields, request_fields
from serving.gateway.metrics import NO_ROLE
from serving.gateway.parts import GatewayParts
from serving.gateway.problems import Answer, Headers, Problem, logged, unavailable
from serving.gateway.questions import headers_by_name, trace_of
from serving.gateway.roles import ROUTES, Route
from serving.gateway.security import Principal

BODY_S_MAX: Final = 10.0
CLIENT_GONE: Final = 499
"""The status, in metrics, of a request whose client disconnected early."""
logger = logging.getLogger("freshet.gateway")


class Gate:
    """Passes requests on to `app`, with `role`, `admitted`, `tenant` and `subject` in their state."""

    def __init__(self, app: App, parts: GatewayParts, *, body_bytes_max: int, deadline_s: float) -> None:
        self._app = app
        self._parts = parts
        self._admission = parts.admission
        self._body_bytes_max = body_bytes_max
        self._deadline_s = deadline_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sending = _Sending(send)
        lines = headers_by_name(scope["headers"])
        add_to_log_lines({"trace.id": trace_of(lines.get(b"traceparent"))})
        begun_s = time.perf_counter()
        name, role = "unknown", NO_ROLE
        try:
            # The server omits the body when it answers HEAD.
            method = "GET" if scope["method"] == "HEAD" else scope["method"]
            name = route_of(method, scope["raw_path"])
            route = ROUTES[name]
            if route.roles:
                principal = self._parts.authenticator.principal(lines)
                role = principal.role_for(name)
                self._admit(name, principal, scope, sending)
                add_to_log_lines(request_fields(scope["state"]["tenant"], lines))
            await self._pass_on(route, {**scope, "method": method}, receive, sending)
        except Problem as problem:
            await sending.send_if_unstarted(problem.answer())
        except ClientDisconnect:  # no client is left to answer, and nothing is wrong
            sending.status = sending.status or CLIENT_GONE
        except Exception as error:
            await sending.send_if_unstarted(logged(error, name).answer())
        seconds = time.perf_counter() - begun_s
        self._parts.meter.answered(name, role, sending.status, seconds)
        if name not in ("livez", "readyz"):
            logger.info("%s %d", name, sending.status, extra=answer_fields(name, role, sending.status, seconds))

    def _admit(self, name: str, principal: Principal, scope: Scope, sending: "_Sending") -> None:
        tenant, left = self._parts.admit(principal, name, time.monotonic())
        sending.headers = self._parts.limits.headers(left)
        scope["state"]["role"], scope["state"]["admitted"] = principal.opens[name], ROUTES[name].admitted
        scope["state"]["tenant"], scope["state"]["subject"] = tenant, principal.subject

    async def _pass_on(self, route: Route, scope: Scope, receive: Receive, sending: "_Sending") -> None:
        if route.admitted == "health":
            await self._app(scope, receive, sending)
            return
        with self._admission.reserve(route.admitted):
            try:
                async with asyncio.timeout(self._deadline_s):
                    await self._app(scope, _Bounded(receive, self._body_bytes_max), sending)
            except TimeoutError:
                raise unavailable("this took too long") from None


class _Bounded:
    """A `receive` that limits the size of the body and the time between its parts."""

    def __init__(self, receive: Receive, bytes_max: int) -> None:
        self._receive = receive
        self._left = bytes_max

    async def __call__(self) -> Any:
        try:
            async with asyncio.timeout(BODY_S_MAX):
                message = await self._receive()
        except TimeoutError:
            raise Problem(408, "too-slow", f"no more of the body arrived within {BODY_S_MAX:g} s") from None
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise Problem(413, "too-large", "the body is too large: send less at a time")
        return message


class _Sending:
    """A `send` that remembers the status, and adds the headers that every answer has."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self.headers: Headers = []

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], *self.headers]
        await self._send(message)

    async def send_if_unstarted(self, answer: Answer) -> None:
        """Send this answer, unless another one has started."""
        if self.status:
            return
        await self({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        await self._send({"type": "http.response.body", "body": answer.body})


def _pattern(path: str) -> re.Pattern[bytes]:
    escaped = (
        re.escape(path).replace(r"\{user\}", "[^/]+").replace(r"\{item\}", "[^/]+").replace(r"\{id\}", "[0-9a-f-]+")
    )
    return re.compile(escaped.encode() + rb"\Z")


_PATTERNS: Final = [(name, route.method, _pattern(route.path)) for name, route in ROUTES.items()]


def route_of(method: str, raw_path: bytes) -> str:
    """The name of a route; raises :class:`Problem` (404, 405). A slash in a user id is written %2F.

    >>> route_of("GET", b"/v1/users/ada/data"), route_of("DELETE", b"/v1/users/ada%2Fdata")
    ('access', 'erasure')
    """
    fits = {its: name for name, its, pattern in _PATTERNS if pattern.match(raw_path)}
    if method in fits:
        return fits[method]
    if not fits:
        raise Problem(404, "not-found", "not found: see /openapi.json")
    raise Problem(405, "method-not-allowed", "this method is not allowed here", [("Allow", ", ".join(sorted(fits)))])
