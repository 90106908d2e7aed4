"""HTTP/1.1 with bounds that the server has none for, the size of a request's head and the time it may take to come; and
with a way for the hot route that takes no task, no scope and no messages: half of what a request costs."""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.gateway.problems import Headers, Problem
from serving.gateway.questions import PREFIX

HEAD_BYTES_MAX: Final = 16_384
PATH_BYTES_MAX: Final = 4_096
HEAD_S_MAX: Final = 10.0
HOT: Final = PREFIX.encode()
UNUSUAL: Final = frozenset({b"content-length", b"transfer-encoding", b"expect", b"upgrade"})
"""Headers of requests that are more than a head."""


class _NoEvent:
    """Nobody waits for what comes after the head."""

    def set(self) -> None:
        """Called where more of the request, or its end, has come."""


class Boarded:
    """A request that :meth:`serving.gateway.lane.Lane.board` answers: as much of a cycle as uvicorn looks at."""

    __slots__ = ("body", "disconnected", "keep_alive", "more_body", "protocol", "response_complete")
    message_event = _NoEvent()

    def __init__(self, protocol: HttpToolsProtocol) -> None:
        self.protocol = protocol
        self.keep_alive = protocol.parser.get_http_version() != "1.0" and protocol.parser.should_keep_alive()
        self.response_complete = self.disconnected = False
        self.body, self.more_body = b"", True

    def land(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer in one write. Trusts the caller: names in small letters, values without line breaks."""
        if self.disconnected:
            return
        protocol = self.protocol
        lines = [b"%b: %b\r\n" % header for header in (*protocol.server_state.default_headers, *headers)]
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        protocol.transport.write(b"".join((STATUS_LINE[status], *lines, end, body)))
        self.response_complete = True
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()


class BoundedProtocol(HttpToolsProtocol):
    """The protocol of uvicorn, which drops who sends a head too large or too slowly."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._in_head = True
        self._head_bytes = 0
        self._chunk_bytes = 0
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by asyncio; whoever connects has to say something."""
        super().connection_made(transport)
        self._patience = self.loop.call_later(HEAD_S_MAX, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self._be_patient()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self._chunk_bytes = len(data)
        super().data_received(data)
        if not self._in_head:
            if self._patience is not None:
                self._be_patient()
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES_MAX:
            self._refuse(431, "headers-too-large", f"the head of a request has at most {HEAD_BYTES_MAX} bytes")
        elif self._patience is None:
            self._patience = self.loop.call_later(HEAD_S_MAX, self._give_up)

    def send_400_response(self, msg: str) -> None:
        """Called where the parser gives up."""
        self._refuse(400, "bad-request", "this is not a request of HTTP/1.1")

    def on_message_begin(self) -> None:
        """Called by the parser."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._in_head = False
        if self._head_bytes + self._chunk_bytes > PATH_BYTES_MAX and self._refuses_head():
            return
        if self._boards():
            self.cycle = Boarded(self)  # type: ignore[assignment]
            path, _, query = self.url.partition(b"?")
            self.app.board(self.cycle, path, query, self.headers)
        else:
            super().on_headers_complete()

    def _boards(self) -> bool:
        """Whether this is for the hot route, and nothing about it, nor before it, takes uvicorn's own care."""
        return (
            self.url.startswith(HOT)
            and (self.cycle is None or self.cycle.response_complete)
            and not self.pipeline
            and not self.flow.write_paused
            and self.parser.get_method() == b"GET"
            and not any(name in UNUSUAL for name, _ in self.headers)
            and b"#" not in self.url
        )

    def on_body(self, body: bytes) -> None:
        """Called by the parser, also behind a head that was refused."""
        if self.cycle is not None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Called by the parser, also behind a head that was refused."""
        if self.cycle is not None:
            super().on_message_complete()

    def _refuses_head(self) -> bool:
        if len(self.url) > PATH_BYTES_MAX:
            self._refuse(414, "path-too-long", f"path and query have at most {PATH_BYTES_MAX} bytes")
            return True
        if sum(len(name) + len(value) + 4 for name, value in self.headers) > HEAD_BYTES_MAX:
            self._refuse(431, "headers-too-large", f"the head of a request has at most {HEAD_BYTES_MAX} bytes")
            return True
        return False

    def _refuse(self, status: int, kind: str, detail: str) -> None:
        if self.transport.is_closing():
            return
        answer = Problem(status, kind, detail).answer()
        headers = [*answer.headers, (b"connection", b"close")]
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        self.transport.write(STATUS_LINE[status] + lines + b"\r\n" + answer.body)
        self.transport.close()

    def _give_up(self) -> None:
        self._patience = None
        self._refuse(408, "too-slow", f"a request's head has to come within {HEAD_S_MAX:g} s")

    def _be_patient(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
