"""HTTP/1.1 with bounds that the server has none for, the size of a request's head and the time it may take to come; and
with a way for the hot route that takes no task, no scope and no messages.

Nothing of a request is remembered for another one: what one client sends must never authenticate another.
"""

import asyncio
import re
from functools import partial
from typing import Any, ClassVar, Final

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from serving.gateway.problems import Problem, joined
from serving.gateway.questions import PREFIX, Head, head_of, lines_of

HEAD_BYTES_MAX: Final = 16_384
PATH_BYTES_MAX: Final = 4_096
HEAD_S_MAX: Final = 10.0
LOOK_EVERY_S: Final = 2.5
"""How often a connection is looked at for having taken too long."""
LINGER_S: Final = 2.0
"""How long the rest of a request that is answered already is heard out, and thrown away."""
UNUSUAL: Final = frozenset({b"content-length", b"transfer-encoding", b"expect", b"upgrade"})
"""Headers of requests that are more than a head."""
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
"""What the Host header may say (RFC 9110, section 7.2)."""


class _NoEvent:
    """Nobody waits for what comes after the head."""

    def set(self) -> None:
        """Called where more of the request, or its end, has come."""


class Boarded(msgspec.Struct, eq=False):
    """A request that :meth:`serving.gateway.lane.Lane.board` answers: as much of a cycle as uvicorn looks at."""

    message_event: ClassVar = _NoEvent()
    protocol: "BoundedProtocol"
    keep_alive: bool
    response_complete: bool = False
    disconnected: bool = False
    body: bytes = b""
    more_body: bool = True

    def land(self, status: int, lines: bytes, body: bytes) -> None:
        """Answer in one write; `lines` are those of the headers."""
        protocol = self.protocol
        if self.disconnected or protocol.transport.is_closing():
            return
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        protocol.transport.write(b"".join((STATUS_LINE[status], _dated.lines_of(protocol), lines, end, body)))
        self.response_complete = True
        if self.keep_alive:
            protocol.landed()
        else:
            protocol.transport.close()


class _Lingering:
    """The transport of a cycle of uvicorn's: who has gone is written nothing, what still comes is heard out."""

    def __init__(self, protocol: "BoundedProtocol", cycle: RequestResponseCycle) -> None:
        self._protocol, self._cycle = protocol, cycle
        self._transport = protocol.transport
        self.is_closing = protocol.transport.is_closing

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        if self._cycle.more_body:
            self._protocol.linger()
        else:
            self._transport.close()


async def _early_ends(cycle: RequestResponseCycle, app: Any, scope: Any, receive: Any, send: Any) -> None:
    """Let `app` answer; an answer before all of the request has come is the last one: the rest of it is not read."""

    async def sending(message: Any) -> None:
        if cycle.more_body and message["type"] == "http.response.start":
            cycle.keep_alive = False
        await send(message)

    await app(scope, receive, sending)


class _Dated:
    """The headers that all answers have as lines; uvicorn makes them anew each second, for their date."""

    def __init__(self) -> None:
        self._headers: list[tuple[bytes, bytes]] | None = None
        self._lines = b""

    def lines_of(self, protocol: "BoundedProtocol") -> bytes:
        headers = protocol.server_state.default_headers
        if headers is not self._headers:
            self._headers, self._lines = headers, joined(headers)
        return self._lines


_dated: Final = _Dated()


class BoundedProtocol(HttpToolsProtocol):
    """The protocol of uvicorn, which drops who sends a head too large or too slowly."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._in_head = True
        self._head_bytes = 0
        self._others_bytes = 0
        self._trailer_bytes = 0
        self._begun = 0
        self._refusal: bytes | None = None
        self._is_lingering = False
        self._chunk = b""
        self._is_between_requests = True
        self._head_until_s: float | None = None
        self._rest_looks: int | None = None
        self._watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by asyncio; whoever connects has to say something."""
        super().connection_made(transport)
        self._head_until_s = self.loop.time() + HEAD_S_MAX
        self._look()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        super()._start_asgi_task(cycle, partial(_early_ends, cycle, app))

    def eof_received(self) -> bool:  # type: ignore[override]
        """Called by asyncio where a client has said all it will: what is under way is answered, and then it ends."""
        cycle = self.cycle
        if self.scheme == "https" or cycle is None or cycle.response_complete or not self._is_between_requests:
            return False  # TLS knows no such half, and half of a request is none
        cycle.keep_alive = False
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self._rest_looks = None
        if self._is_ending():
            return
        self._chunk, self._begun, was_between = data, 0, self._is_between_requests
        self._trailer_bytes += len(data)
        super().data_received(data)
        self._chunk = b""  # a connection at rest holds nobody's bytes
        if not self._in_head:
            self._head_until_s = None
            if self._trailer_bytes > HEAD_BYTES_MAX + len(data):
                self.transport.close()  # what goes on is no body: trailers, or the extension of a chunk
            if self._is_between_requests and self.cycle is not None and self.cycle.response_complete:
                self._rest_looks = 0  # line breaks between requests are nothing to wait for
            return
        self._head_bytes += len(data)
        if self._begun > was_between:  # before this head came other requests, or the rest of one
            self._others_bytes = len(data)
        if self._head_bytes - self._others_bytes > HEAD_BYTES_MAX:
            self._refuse(431, "headers-too-large", f"the head of a request has at most {HEAD_BYTES_MAX} bytes")
        elif self._head_until_s is None:
            self._head_until_s = self.loop.time() + HEAD_S_MAX

    def landed(self) -> None:
        """Called when a request of the hot route was answered."""
        if self.pipeline or self._refusal is not None:
            self.on_response_complete()
        else:
            self._rest_looks = 0

    def on_response_complete(self) -> None:
        """Called when a request was answered and others wait behind it, or uvicorn's cycle has answered one."""
        if self._refusal is not None and not self.pipeline:
            self._say_last(self._refusal)
        elif not self._is_lingering:
            super().on_response_complete()

    def linger(self) -> None:
        """Hear out for a moment what still comes of a request that was answered before its end, and close.

        Closing at once would reset the connection, and its answer might be lost (RFC 9112, section 9.6).
        """
        if self._is_lingering:
            return
        self._is_lingering = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self.loop.call_later(LINGER_S, self.transport.close)

    def _is_ending(self) -> bool:
        """Whether nothing that still comes is a request any more."""
        return self._is_lingering or self._refusal is not None or self.transport.is_closing()

    def send_400_response(self, msg: str) -> None:
        """Called where the parser gives up."""
        self._refuse(400, "bad-request", "this is not a request of HTTP/1.1")

    def on_message_begin(self) -> None:
        """Called by the parser."""
        self._in_head, self._head_bytes, self._is_between_requests = True, 0, False
        self._others_bytes, self._begun = 0, self._begun + 1
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser, also for the trailers of a body in chunks: those are counted and thrown away."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        if self._is_ending():
            return
        is_long = self._head_bytes + len(self._chunk) > PATH_BYTES_MAX
        if (is_long and self._refuses_head()) or self._refuses_version_or_host():
            return
        self._in_head = False
        if not self._may_board() or not self._is_hot():
            super().on_headers_complete()
            self.cycle.transport = _Lingering(self, self.cycle)  # type: ignore[assignment]
            return
        head = head_of(lines_of(self.headers))
        keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        path, _, query = self.url.partition(b"?")
        self._board(path, query, head, keep_alive)

    def _board(self, path: bytes, query: bytes, head: Head, keep_alive: bool) -> None:
        flight = Boarded(self, keep_alive)
        self.cycle = flight  # type: ignore[assignment]
        self.app.board(flight, path, query, head)

    def _may_board(self) -> bool:
        """Whether nothing before this request takes uvicorn's own care."""
        return (
            (self.cycle is None or self.cycle.response_complete)
            and not self.flow.write_paused
            and not self.transport.is_closing()
        )

    def _is_hot(self) -> bool:
        """Whether this is for the hot route, and nothing about it takes uvicorn's own care."""
        return (
            self.url.startswith(PREFIX)
            and self.parser.get_method() == b"GET"
            and not any(name in UNUSUAL for name, _ in self.headers)
            and b"#" not in self.url
        )

    def on_body(self, body: bytes) -> None:
        """Called by the parser, also behind a head that was refused."""
        self._trailer_bytes = 0
        if self.cycle is not None and not self._is_ending():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Called by the parser, also behind a head that was refused."""
        self._is_between_requests, self._trailer_bytes = True, 0
        if self.cycle is not None and not self._is_ending():
            super().on_message_complete()

    def _refuses_head(self) -> bool:
        if len(self.url) > PATH_BYTES_MAX:
            self._refuse(414, "path-too-long", f"path and query have at most {PATH_BYTES_MAX} bytes")
            return True
        if sum(len(name) + len(value) + 4 for name, value in self.headers) > HEAD_BYTES_MAX:
            self._refuse(431, "headers-too-large", f"the head of a request has at most {HEAD_BYTES_MAX} bytes")
            return True
        return False

    def _refuses_version_or_host(self) -> bool:
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            self._refuse(505 if version > "1.1" else 400, "http-version", "requests are of HTTP/1.1 or HTTP/1.0")
            return True
        hosts = [value for name, value in self.headers if name == b"host"]
        if len(hosts) > 1 or (not hosts and version == "1.1") or (hosts and not _HOST.fullmatch(hosts[0])):
            self._refuse(400, "host", "a request of HTTP/1.1 has one Host header: a name, with or without a port")
            return True
        return False

    def _refuse(self, status: int, kind: str, detail: str) -> None:
        """Answer what is no request that could be served, behind the answers to all before it, and close."""
        if self._is_ending():
            return
        self.app.refused(status)
        answer = Problem(status, kind, detail).answer()
        lines = joined([*answer.headers, (b"connection", b"close")])
        refusal = STATUS_LINE[status] + lines + b"\r\n" + answer.body
        if self._is_answer_due():
            self._refusal = refusal
        else:
            self._say_last(refusal)

    def _is_answer_due(self) -> bool:
        """Whether a request before the one that is refused is not answered yet."""
        is_in_body = not self._in_head and not self._is_between_requests
        if is_in_body and self.pipeline and self.pipeline[0][0] is self.cycle:
            self.pipeline.popleft()  # what is refused waits for its turn, which it will not get
            return True
        return not is_in_body and self.cycle is not None and not self.cycle.response_complete

    def _say_last(self, refusal: bytes) -> None:
        self.transport.write(refusal)
        self.transport.close()

    def _look(self) -> None:
        """Drop who took too long, for a head or between requests of the hot route; uvicorn sees to the others."""
        self._watch = None
        now_s = self.loop.time()
        if self._head_until_s is not None and now_s >= self._head_until_s:
            self._refuse(408, "too-slow", f"a request's head has to come within {HEAD_S_MAX:g} s")
            return
        if self._rest_looks is not None:
            # Counting costs no look at the clock for each answer; the first look came too early to count.
            self._rest_looks += 1
            if (self._rest_looks - 1) * LOOK_EVERY_S >= self.timeout_keep_alive:
                self.transport.close()
                return
        self._watch = self.loop.call_later(LOOK_EVERY_S, self._look)
