"""The hot route without ASGI: no task, scope or messages for a request that one Redis call answers.

:class:`serving.gateway.lane.Lane` interprets requests either way. With `server.fast_lane = false` this file is not
used; everything then goes through ASGI, with the same answers.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.gateway.bounds import PIECE_BYTES, BoundedProtocol
from serving.gateway.heads import HEADERS_MAX, HOST
from serving.gateway.problems import joined
from serving.gateway.questions import PREFIX, headers_by_name, parse_head

UNUSUAL: Final = frozenset({b"content-length", b"transfer-encoding", b"expect", b"upgrade"})
"""Headers of requests that are more than a head."""


class _NoEvent:
    """An event that nothing waits for."""

    def set(self) -> None:
        """Called when more of the request, or its end, arrives."""


class FastRequest(msgspec.Struct, eq=False):
    """A request that :meth:`serving.gateway.lane.Lane.handle` answers; has what uvicorn reads of a cycle."""

    message_event: ClassVar = _NoEvent()
    protocol: "LaneProtocol"
    keep_alive: bool
    response_complete: bool = False
    disconnected: bool = False
    body: bytes = b""
    more_body: bool = True

    def respond(self, status: int, lines: bytes, body: bytes) -> None:
        """Answer in one write; `lines` are the encoded headers."""
        protocol = self.protocol
        if self.disconnected or protocol.transport.is_closing():
            return
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        protocol.transport.write(b"".join((STATUS_LINE[status], _dated.lines_of(protocol), lines, end, body)))
        self.response_complete = True
        protocol.on_responded(self.keep_alive)


class _Dated:
    """The encoded default headers of all answers; uvicorn renews them every second, for their date."""

    def __init__(self) -> None:
        self._headers: list[tuple[bytes, bytes]] | None = None
        self._lines = b""

    def lines_of(self, protocol: "LaneProtocol") -> bytes:
        headers = protocol.server_state.default_headers
        if headers is not self._headers:
            self._headers, self._lines = headers, joined(headers)
        return self._lines


_dated: Final = _Dated()


class LaneProtocol(BoundedProtocol):
    """Passes plain requests of the hot route to the application's `handle`; all others go through ASGI."""

    def _begin_message(self) -> None:
        """Create no scope here, unlike uvicorn: the fast lane does not need one, and others create it later."""
        self.url, self.headers = b"", []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        if self.url.startswith(PREFIX) and self._try_fast_lane():
            return
        url, headers = self.url, self.headers
        HttpToolsProtocol.on_message_begin(self)
        self.url = url
        for name, value in headers:
            HttpToolsProtocol.on_header(self, name, value)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Called by the parser."""
        cycle: Any = self.cycle
        if type(cycle) is FastRequest:
            self._between_requests = self._progressed = True
        else:
            super().on_message_complete()

    def _try_fast_lane(self) -> bool:
        """Take over a request unless it needs special handling by uvicorn or :class:`BoundedProtocol`."""
        headers, parser = self.headers, self.parser
        lines: Mapping[bytes, bytes] = dict(headers)
        if len(lines) < len(headers):
            if sum(name == b"host" for name, _ in headers) > 1:
                return False
            lines = headers_by_name(headers)
        if (
            self._silent_bytes + self._piece_bytes > PIECE_BYTES
            or not UNUSUAL.isdisjoint(lines)
            or len(headers) > HEADERS_MAX
            or parser.get_method() != b"GET"
            or parser.get_http_version() != "1.1"
            or HOST.fullmatch(lines.get(b"host", b"@")) is None
            or b"#" in self.url
            or not self._can_answer_now()
        ):
            return False
        self._in_head = False
        path, _, query = self.url.partition(b"?")
        request = FastRequest(self, parser.should_keep_alive())
        self.cycle = request  # type: ignore[assignment]
        self.served.handle(request, path, query, parse_head(lines))
        return True

    def _can_answer_now(self) -> bool:
        """Whether no earlier answer is due, and the peer reads answers."""
        return (
            (self.cycle is None or self.cycle.response_complete)
            and not self.flow.write_paused
            and not self._is_ending()
        )

    def on_responded(self, keep_alive: bool) -> None:
        """Called after a request of the fast lane was answered."""
        if not keep_alive:
            self.transport.close()
        elif self.pipeline or self._refusal is not None:
            self.on_response_complete()
        else:
            self._idle_checks = 0
