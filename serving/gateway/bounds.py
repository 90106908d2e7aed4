"""Limits that uvicorn lacks: sizes, timeouts, connections, and the total bytes buffered for clients.

An ingress has most of these as settings; a process without one needs its own. Everything here is about framing: the
application does not notice it. No data of a request outlives its connection.

Input is parsed in pieces of :data:`PIECE_BYTES`. Input after a request that waits for its turn stays unparsed, and
reading stops. So a pipeline of thousands of requests costs its bytes, not thousands of objects.
"""

import asyncio
from functools import partial
from typing import Any, Final

import httptools
import msgspec
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from serving.gateway.heads import HEAD_BYTES_MAX, HEADERS_MAX, PATH_BYTES_MAX, form_complaint, size_complaint, too_large
from serving.gateway.problems import Problem, joined, overloaded

HEAD_S_MAX: Final = 10.0
PIECE_BYTES: Final = 4_096
"""How much is parsed at once."""
UNPARSED_BYTES_MAX: Final = 1_048_576
"""How much unparsed input may wait: a few reads of the event loop that arrive although reading has stopped."""
SEND_S_MAX: Final = 30.0
"""A peer must read :data:`SENT_BYTES_MIN` of an answer within this time, or all that is left of it."""
SENT_BYTES_MIN: Final = 65_536
CHECK_EVERY_S: Final = 2.5
"""How often a connection is checked for timeouts."""
LINGER_S: Final = 2.0
"""How long the rest of an already answered request is read and discarded."""


class Ledger(msgspec.Struct):
    """The bytes that one process buffers for all its peers, and its maximum number of connections."""

    connections_max: int
    held_bytes_max: int
    held_bytes: int = 0


class _NoTrailers(list[tuple[bytes, bytes]]):
    """Receives the parser's headers while a body is read, so that trailers are discarded."""

    def append(self, header: tuple[bytes, bytes]) -> None:
        """Drop `header`."""


_NO_TRAILERS: Final = _NoTrailers()


class _LingeringTransport:
    """The transport of a uvicorn cycle: writes nothing to a peer that has gone, and may delay `close`."""

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


class _Flow(FlowControl):
    """Resumes reading only if no input waits to be parsed."""

    def __init__(self, protocol: "BoundedProtocol", transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self._protocol = protocol

    def resume_reading(self) -> None:
        if not self._protocol.has_deferred():
            super().resume_reading()


async def _close_if_early(app: Any, scope: Any, receive: Any, send: Any) -> None:
    """Let `app` answer. If it answers before the whole request has arrived, close the connection afterwards."""
    cycle: RequestResponseCycle = receive.__self__

    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            cycle.keep_alive = cycle.keep_alive and not cycle.more_body
            if not cycle.keep_alive:  # uvicorn before 0.53 does not send this
                message["headers"] = [*message["headers"], (b"connection", b"close")]
        await send(message)

    await app(scope, receive, sending)


class BoundedProtocol(HttpToolsProtocol):
    """Uvicorn's protocol with limits. A request that exceeds one gets a problem response, and the connection closes.

    Rejections follow the answers to all earlier requests.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.served: Any = self.app
        self.app = partial(_close_if_early, self.served)
        self._ledger: Ledger = self.served.ledger
        self._in_head = True
        self._between_requests = True
        self._progressed = False
        self._silent_bytes = 0
        self._waiting = b""
        self._reserved = self._reserved_unsent = 0
        self._piece_bytes = 0
        self._refusal: bytes | None = None
        self._is_lingering = False
        self._head_until_s: float | None = None
        self._idle_checks: int | None = None
        self._is_lost = self._is_half_closed = False
        self._unsent, self._send_until_s = 0, 0.0
        self._watch: asyncio.TimerHandle | None = None

    # -- callbacks of asyncio

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A peer has connected; its first head is due soon."""
        super().connection_made(transport)
        self.flow = _Flow(self, transport)
        self._head_until_s = self.loop.time() + HEAD_S_MAX
        if len(self.connections) > self._ledger.connections_max:
            self._refuse(overloaded("the gateway has as many connections as it may have"))
        self._check_timeouts()

    def connection_lost(self, exc: Exception | None) -> None:
        """A connection has ended; release everything held for it."""
        if self._watch is not None:
            self._watch.cancel()
        self._waiting = b""
        self._reserve_bytes(0)
        self._reserve_unsent(0)
        self._is_lost = True
        super().connection_lost(exc)
        self.pipeline.clear()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The peer sends no more: answer requests in progress, then close the connection."""
        cycle = self.cycle
        if self.scheme == "https" or cycle is None or cycle.response_complete or not self._between_requests:
            return False  # TLS has no half-closed connections; an incomplete request is dropped
        if self._waiting:
            self._is_half_closed = True
        else:
            cycle.keep_alive = False
        return True

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived."""
        if self._is_ending():
            return
        if len(data) <= PIECE_BYTES and not self.pipeline and not self._waiting:
            self._parse(data)
        else:
            self._waiting += data
            self._parse_waiting()
        self._update_accounting()

    def pause_writing(self) -> None:
        """The peer reads slowly."""
        super().pause_writing()
        self._reserve_unsent(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """The peer has read most of the buffer."""
        super().resume_writing()
        self._reserve_unsent(0)

    # -- parsing

    def has_deferred(self) -> bool:
        """Whether a request waits for the answer to an earlier one."""
        return bool(self.pipeline or self._waiting)

    def _parse_waiting(self) -> None:
        """Parse the input piece by piece, until a request has to wait for its turn."""
        data, begin = self._waiting, 0
        self._waiting = b""
        while begin < len(data) and not self.pipeline and not self._is_ending():
            self._parse(data[begin : begin + PIECE_BYTES])
            begin += PIECE_BYTES
        if begin < len(data) and not self._is_ending():
            self._waiting = data[begin:]
            self.flow.pause_reading()
            if len(self._waiting) > UNPARSED_BYTES_MAX:
                self._refuse(overloaded("too many requests were sent before the answers to others were taken"))

    def _parse(self, piece: bytes) -> None:
        self._piece_bytes, self._progressed = len(piece), False
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            pass  # the request is answered as if it had not asked for an upgrade, and is the last one
        except httptools.HttpParserError:
            self._refuse(Problem(400, "bad-request", "this is not a request of HTTP/1.1"))
            return
        # The parser does not report trailers, chunk extensions and heads without an end.
        self._silent_bytes = 0 if self._progressed and not self._in_head else self._silent_bytes + len(piece)
        too_many = self._in_head and len(self.headers or ()) > HEADERS_MAX
        if self._silent_bytes > HEAD_BYTES_MAX + PIECE_BYTES or too_many:
            self._refuse(too_large())

    def on_message_begin(self) -> None:
        """Called by the parser."""
        self._in_head, self._between_requests, self._silent_bytes = True, False, 0
        self._idle_checks = None  # line breaks between requests do not reach this
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        self._begin_message()

    def _begin_message(self) -> None:
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        if self._is_ending() or self._refuse_bad_head():
            return
        self._in_head, self._progressed = False, True
        super().on_headers_complete()
        cycle = self.cycle
        cycle.transport = _LingeringTransport(self, cycle)  # type: ignore[assignment]
        if self.parser.should_upgrade():
            cycle.keep_alive = False  # the parser stops here and does not see later requests
        self.headers = _NO_TRAILERS

    def on_chunk_header(self) -> None:
        """Called by the parser."""
        self._progressed = True

    def on_body(self, body: bytes) -> None:
        """Called by the parser, also after a head that was refused."""
        self._progressed = True
        if self.cycle is not None and not self._is_ending():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Called by the parser, also after a head that was refused."""
        self._between_requests = self._progressed = True
        if self.cycle is not None and not self._is_ending():
            super().on_message_complete()

    # -- the ends of requests and connections

    def on_response_complete(self) -> None:
        """Called after a request was answered."""
        if self._refusal is not None and not self.pipeline:
            self._send_final(self._refusal)
        elif not self._is_lingering:
            super().on_response_complete()
            if self._waiting and not self.pipeline:
                self.loop.call_soon(self._resume)
        self._update_accounting()

    def _resume(self) -> None:
        """Parse input that waited for the answers to earlier requests."""
        if not self._is_ending() and not self.pipeline:
            self._parse_waiting()
        if self._is_half_closed and not self._waiting and self.cycle is not None:
            self.cycle.keep_alive = False
            if self.cycle.response_complete:
                self.transport.close()
        if not self._is_lost:
            self.flow.resume_reading()
        self._update_accounting()

    def linger(self) -> None:
        """After an early answer, read and discard the rest of the request for a moment, then close.

        Closing at once would reset the connection, and the answer might be lost (RFC 9112, section 9.6).
        """
        if self._is_lingering:
            return
        self._is_lingering = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self.loop.call_later(LINGER_S, self.transport.close)

    def _is_ending(self) -> bool:
        """Whether further input is ignored."""
        return self._is_lingering or self._refusal is not None or self.transport.is_closing()

    def _refuse_bad_head(self) -> bool:
        complaint = None
        # A head within one piece cannot be too long.
        if self._silent_bytes + self._piece_bytes > PATH_BYTES_MAX or len(self.headers) > HEADERS_MAX:
            complaint = size_complaint(self.url, self.headers)
        complaint = complaint or form_complaint(self.parser.get_http_version(), self.headers)
        if complaint is not None:
            self._refuse(complaint)
        return complaint is not None

    def _refuse(self, problem: Problem) -> None:
        """Send a problem response after the answers to all earlier requests, and close."""
        if self._is_ending():
            return
        self.served.refused(problem.status)
        self._waiting = b""
        answer = problem.answer()
        lines = joined([*answer.headers, (b"connection", b"close")])
        refusal = STATUS_LINE[problem.status] + lines + b"\r\n" + answer.body
        if self._is_answer_due():
            self._refusal = refusal
        elif self._is_answer_begun():
            self.transport.close()
        else:
            self._send_final(refusal)

    def _is_answer_begun(self) -> bool:
        """Whether a part of an answer was sent, so that nothing may be sent in its middle."""
        cycle = self.cycle
        return isinstance(cycle, RequestResponseCycle) and cycle.response_started and not cycle.response_complete

    def _is_answer_due(self) -> bool:
        """Whether an earlier request is not answered yet."""
        is_in_body = not self._in_head and not self._between_requests
        if is_in_body and self.pipeline and self.pipeline[0][0] is self.cycle:
            self.pipeline.popleft()  # the refused request must not be answered by the application
            return True
        return not is_in_body and self.cycle is not None and not self.cycle.response_complete

    def _send_final(self, refusal: bytes) -> None:
        self.transport.write(refusal)
        self.transport.close()

    # -- buffered bytes and timeouts

    def _update_accounting(self) -> None:
        """Update the bytes buffered for this peer, and the deadline of its next head."""
        if self._is_lost:
            return
        cycle = self.cycle
        if self._in_head and not self._between_requests:
            if self._head_until_s is None:
                self._head_until_s = self.loop.time() + HEAD_S_MAX
        elif cycle is not None:
            self._head_until_s = None
        held = len(self._waiting) + self._silent_bytes
        if cycle is not None and not cycle.response_complete:
            held += len(cycle.body)
        if held != self._reserved and not self._reserve_bytes(held):
            self._refuse(overloaded("the gateway holds as many bytes of requests as it may"))

    def _reserve_bytes(self, held: int) -> bool:
        """Reserve buffer space for this connection; False if there is not enough."""
        more = held - self._reserved
        if more > 0 and self._ledger.held_bytes + more > self._ledger.held_bytes_max:
            return False
        self._ledger.held_bytes += more
        self._reserved = held
        return True

    def _reserve_unsent(self, unsent: int) -> None:
        """Account for unsent bytes; without space for them the connection is dropped, whatever it has received."""
        more = unsent - self._reserved_unsent
        if more > 0 and self._ledger.held_bytes + more > self._ledger.held_bytes_max:
            self.loop.call_soon(self.transport.abort)  # not in the middle of a write
            return
        self._ledger.held_bytes += more
        self._reserved_unsent = unsent

    def _check_timeouts(self) -> None:
        """Drop a peer that is too slow to send a head, to read an answer, or between requests of the fast lane."""
        self._watch = None
        now_s = self.loop.time()
        if self._is_too_slow_a_reader(now_s):
            self.transport.abort()
            return
        if self.has_deferred():
            self._head_until_s = None  # the peer waits for the gateway
        elif self._head_until_s is not None and now_s >= self._head_until_s:
            self._refuse(Problem(408, "too-slow", f"a request's head has to come within {HEAD_S_MAX:g} s"))
        if self._idle_checks is not None:
            # Counting checks avoids reading the clock for each answer; the first check came too early to count.
            self._idle_checks += 1
            if (self._idle_checks - 1) * CHECK_EVERY_S >= self.timeout_keep_alive:
                self.transport.close()
        self._watch = self.loop.call_later(CHECK_EVERY_S, self._check_timeouts)

    def _is_too_slow_a_reader(self, now_s: float) -> bool:
        unsent = self.transport.get_write_buffer_size()
        if not unsent:
            self._unsent = 0
        elif not self._unsent or unsent <= self._unsent - SENT_BYTES_MIN:
            self._unsent, self._send_until_s = unsent, now_s + SEND_S_MAX
        return bool(unsent) and now_s >= self._send_until_s
