"""The gateway's server at byte level, however the input is split, with and without the fast lane."""

import asyncio
import re
from typing import Any

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from serving.gateway import bounds, heads
from serving.gateway.bounds import BoundedProtocol, Ledger
from serving.gateway.fast_lane import LaneProtocol
from serving.gateway.problems import joined
from serving.gateway.questions import RequestHead, headers_by_name
from tests.support.examples import examples

HOT = b"/v1/recommendations/"
LINES = [
    b"Host: shop\r\n\r\n",
    b"host: shop\r\nAuthorization: Bearer a.b.c\r\n\r\n",
    b"Host: shop\r\nPriority: u=1\r\n\r\n",
    b"Host: shop\r\nConnection: close\r\n\r\n",
    b"Host: shop\r\nConnection: keep-alive\r\n\r\n",
    b"Host: shop\r\nContent-Length: 3\r\n\r\nabc",
    b"Host: shop\r\nContent-Length: 0\r\n\r\n",
    b"Host: shop\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"Host: shop\r\ntraceparent: 00-0123456789abcdef0123456789abcdef-0123456789abcdef-01\r\n\r\n",
    b"Host: shop\r\nX-Folded: one\r\n two\r\n\r\n",
    b"Host: shop\nX-Bare: line\n\n",
    b"Host: shop\r\nno colon here\r\n\r\n",
    b"X-No: host\r\n\r\n",
    b"Host: shop\r\nHost: shop\r\n\r\n",
    b"\r\n",
]
REQUEST_LINES = [
    b"GET " + HOT + b"ada HTTP/1.1\r\n",
    b"GET " + HOT + b"ada?n=3 HTTP/1.1\r\n",
    b"GET " + HOT + b"a%20b?n=3&n=4?x HTTP/1.1\r\n",
    b"GET " + HOT + b"ada?n=3#part HTTP/1.1\r\n",
    b"GET " + HOT + b"ada#part HTTP/1.1\r\n",
    b"GET " + HOT + b"ada HTTP/1.0\r\n",
    b"GET " + HOT + b"ada HTTP/1.1\n",
    b"GET  " + HOT + b"ada HTTP/1.1\r\n",
    b"GET " + HOT + b"a da HTTP/1.1\r\n",
    b"GET " + HOT + b" HTTP/1.1\r\n",
    b"GET " + HOT + b"\xc3\xa9 HTTP/1.1\r\n",
    b"GET " + HOT + b"long" * 1_100 + b" HTTP/1.1\r\n",
    b"HEAD " + HOT + b"ada HTTP/1.1\r\n",
    b"POST " + HOT + b"ada HTTP/1.1\r\n",
    b"GET /v1/popular HTTP/1.1\r\n",
    b"GET http://shop" + HOT + b"ada HTTP/1.1\r\n",
]
EARLY = "/early"
"""Answered without a look at the body."""
Pieces = list[bytes]


class Echo:
    """Returns the request, at once or a little later."""

    def __init__(self) -> None:
        self.ledger = Ledger(connections_max=100, held_bytes_max=10_000_000)

    def handle(self, flight: Any, path: bytes, query: bytes, head: RequestHead) -> None:
        said = repr(("GET", path, query, sorted(head.lines.items()), b"")).encode()
        lines = joined([(b"content-length", b"%d" % len(said))])
        if query:
            asyncio.get_running_loop().call_soon(flight.respond, 200, lines, said)
        else:
            flight.respond(200, lines, said)

    def refused(self, status: int) -> None: ...

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", scope["path"] != EARLY
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        lines = sorted(headers_by_name(scope["headers"]).items())
        said = repr((scope["method"], scope["raw_path"], scope["query_string"], lines, body)).encode()
        headers = [(b"content-length", b"%d" % len(said))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": said})


class Sent:
    """A transport that keeps its output."""

    def __init__(self) -> None:
        self.bytes = b""
        self.closing = self.paused = False
        self.unsent = 0

    def write(self, data: bytes) -> None:
        if self.closing:  # as that of uvloop does
            raise RuntimeError
        self.bytes += data

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.close()  # the reader sees no difference

    def abort(self) -> None:
        self.closing = True

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def get_extra_info(self, name: str) -> None:
        return None

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Faults:
    """A logger of events that must not happen."""

    level = 50

    def __init__(self, faults: list[Any]) -> None:
        self._faults = faults

    def error(self, *told: Any, **more: Any) -> None:
        self._faults.append((told, more))


kind: type[BoundedProtocol] = LaneProtocol


@pytest.fixture(autouse=True, scope="module", params=[LaneProtocol, BoundedProtocol])
def _with_and_without_the_fast_lane(request: pytest.FixtureRequest) -> None:
    global kind
    kind = request.param


def served(state: ServerState, transport: Sent, **more: Any) -> BoundedProtocol:
    """The protocol on a new connection."""
    echo: Any = Echo()
    options: dict[str, Any] = {"ws": "none", "lifespan": "off", "log_config": None, "access_log": False, **more}
    config = uvicorn.Config(echo, http=kind, **options)
    config.load()
    config.loaded_app = echo
    protocol = kind(config, state, {})
    protocol.connection_made(transport)  # type: ignore[arg-type]
    return protocol


async def sent_for(pieces: Pieces, patient: bool = True) -> tuple[bytes, bool]:
    """What a server sends for these requests, pipelined or not, and whether it disconnects."""
    state, transport = ServerState(), Sent()
    server = served(state, transport)
    for piece in pieces:
        if transport.closing:
            break
        server.data_received(piece)
        if patient:
            await _rest()
    await _rest()
    sent = transport.bytes, transport.closing
    server.connection_lost(None)
    await asyncio.gather(*state.tasks)
    assert server.served.ledger.held_bytes == 0, "nothing is held for a peer that has gone"
    return sent


async def _rest() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def pieces_of(requests: Pieces, cuts: list[int]) -> Pieces:
    """Requests as they arrive: each alone, in two pieces, or (-1) together with the next."""
    pieces: Pieces = [b""]
    for request, cut in zip(requests, cuts, strict=True):
        if cut < 0:
            pieces[-1] += request
        else:
            pieces[-1] += request[: cut or None]
            pieces.append(request[cut:] if cut else b"")
    return [piece for piece in pieces if piece]


requests = st.tuples(st.sampled_from(REQUEST_LINES), st.sampled_from(LINES)).map(b"".join)
cuts = st.sampled_from([0, 0, 0, 0, -1, -1, 5, 60])


@settings(deadline=None, max_examples=examples(300))
@given(
    st.lists(st.tuples(requests, cuts), min_size=1, max_size=8),
    st.lists(st.tuples(requests, cuts), min_size=1, max_size=4),
    st.booleans(),
)
def test_requests_do_not_affect_other_connections(
    sent: list[tuple[bytes, int]], before: list[tuple[bytes, int]], patient: bool
) -> None:
    pieces, others = (pieces_of([request for request, _ in each], [cut for _, cut in each]) for each in (sent, before))
    expected = asyncio.run(sent_for(pieces, patient))
    asyncio.run(sent_for(others))
    assert asyncio.run(sent_for(pieces, patient)) == expected


def test_split_head_does_not_leak_credentials() -> None:
    """Header lines were cached by their last piece, so a client that sent that piece was taken for the first sender."""
    last = b"Accept: */*\r\n" + 3 * b"\r\n"
    begin = b"GET " + HOT + b"ada HTTP/1.1\r\nX-API-Key: K\r\nHo"
    answered, _ = asyncio.run(sent_for([begin, b"st: shop\r\n" + last]))
    assert b"200 OK" in answered and b"b'K'" in answered
    answered, _ = asyncio.run(sent_for([b"GET " + HOT + b"bob HTTP/1.1\r\n" + last]))
    assert b"400 Bad Request" in answered and b"b'K'" not in answered


def test_trailers_are_discarded_and_bounded() -> None:
    head = b"POST /v1/events HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
    answered, closing = asyncio.run(sent_for([head, b"X-Trailer: one\r\n", b"\r\n"]))
    assert b"200 OK" in answered and b"trailer" not in answered and not closing
    for trailers in ([b"X: y\r\n" * 1_000] * 40, [b"X: ", *[b"y" * 4_000] * 40]):
        answered, closing = asyncio.run(sent_for([head, *trailers]))
        assert closing and b"200 OK" not in answered


def test_pipelined_request_waits_for_the_previous_response() -> None:
    pieces = [REQUEST_LINES[1] + LINES[0], REQUEST_LINES[0] + LINES[0]]
    sent, _ = asyncio.run(sent_for([*pieces, *pieces], patient=False))
    assert re.findall(rb"ada', b'([^']*)'", sent) == [b"n=3", b"", b"n=3", b""]


@pytest.mark.parametrize("asked_often", [1, 2])
def test_idle_keep_alive_is_closed_and_waiting_client_is_not(monkeypatch: pytest.MonkeyPatch, asked_often: int) -> None:
    if kind is not LaneProtocol:
        pytest.skip("uvicorn's own timer does that for requests by ASGI")
    monkeypatch.setattr(bounds, "CHECK_EVERY_S", 0.001)
    landing: list[Any] = []

    async def story() -> None:
        transport = Sent()
        server = served(ServerState(), transport, timeout_keep_alive=0)
        monkeypatch.setattr(server.served, "handle", lambda flight, *asked: landing.append(flight))
        looked = 0

        def look() -> None:
            nonlocal looked
            looked += 1
            kind._check_timeouts(server)

        server._check_timeouts = look  # type: ignore[method-assign]
        for number in range(asked_often):
            server.data_received(REQUEST_LINES[0] + LINES[0])
            async with asyncio.timeout(30):
                while looked < 5 * (number + 1):
                    await asyncio.sleep(0.001)
            assert not transport.closing
            landing.pop().respond(200, b"", b"")
        async with asyncio.timeout(30):
            while not transport.closing:
                await asyncio.sleep(0.001)
        server.connection_lost(None)

    asyncio.run(story())


def test_responses_have_current_common_headers() -> None:
    async def story() -> bytes:
        state, transport = ServerState(), Sent()
        server = served(state, transport)
        for date in (b"today", b"today", b"tomorrow"):
            state.default_headers = [(b"date", date)]
            server.data_received(REQUEST_LINES[0] + LINES[0])
            await _rest()
        server.connection_lost(None)
        return transport.bytes

    assert re.findall(rb"date: (\w+)", asyncio.run(story())) == [b"today", b"today", b"tomorrow"]


@pytest.mark.parametrize(
    ("lines", "closes"),
    [
        (b"Content-Length: 3\r\n\r\nab", True),
        (b"Content-Length: 3\r\n\r\nabc", False),
        (b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", True),
        (b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", False),
        (b"\r\n", False),
    ],
)
def test_response_before_end_of_request_closes_the_connection(lines: bytes, closes: bool) -> None:
    sent, closing = asyncio.run(sent_for([b"POST /early HTTP/1.1\r\nHost: shop\r\n" + lines]))
    assert sent.startswith(b"HTTP/1.1 200")
    assert (closing, b"connection: close\r\n" in sent) == (closes, closes)


def slow(number: int) -> bytes:
    return b"POST /slow%d HTTP/1.1\r\nHost: shop\r\nContent-Length: 3\r\n\r\nabc" % number


LATER = REQUEST_LINES[1] + LINES[0]
"""Of the hot route, answered a little later."""
LONG_PATH = REQUEST_LINES[11] + LINES[0]


@pytest.mark.parametrize("before", [[slow(1)], [LATER], [slow(1), LATER, slow(2)], [LATER, LATER]])
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    ("refused", "status"),
    [
        (LONG_PATH, b"414"),
        (LONG_PATH[:-2] + LINES[5][12:], b"414"),
        (b"garbage\r\n\r\n", b"400"),
        (REQUEST_LINES[13] + b"X: " + b"x" * heads.HEAD_BYTES_MAX + b"\r\n\r\n", b"431"),
        (b"POST /bad HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"POST /bad HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", b"501"),
        (b"POST /bad HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"501"),
    ],
)
def test_rejection_follows_earlier_pipelined_responses(
    before: Pieces, together: bool, refused: bytes, status: bytes
) -> None:
    requests = [*before, refused + LATER]
    sent, closing = asyncio.run(sent_for([b"".join(requests)] if together else requests, patient=False))
    assert re.findall(rb"HTTP/1.1 (\d+)", sent) == [b"200"] * len(before) + [status]
    bodies = re.findall(rb"\r\n\r\n(\(.*?\))HTTP", sent)
    assert [b"slow" in body for body in bodies] == [b"slow" in request for request in before]
    assert [b"b'abc')" in body for body in bodies] == [b"slow" in request for request in before]
    assert closing and sent.count(b"connection: close\r\n") == 1


def test_head_limit_counts_head_bytes_only() -> None:
    body = b"x" * 40_000
    post = b"POST /v1/events HTTP/1.1\r\nHost: shop\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    get = b"GET /livez HTTP/1.1\r\nHost: shop\r\nX: " + b"x" * 800 + b"\r\n\r\n"
    for pieces in ([post + get[:10], get[10:]], [25 * get + get[:10], get[10:]], [post[:99], post[99:] + get]):
        sent, closing = asyncio.run(sent_for(pieces))
        assert set(re.findall(rb"HTTP/1.1 (\d+)", sent)) == {b"200"} and not closing
        assert sent.count(b"HTTP/1.1 200") == b"".join(pieces).count(b" HTTP/1.1\r\n")


@pytest.mark.parametrize("before", [b"", slow(1), LATER])
def test_endless_head_is_refused_at_any_offset(before: bytes) -> None:
    line = b"X: " + b"x" * 1_000 + b"\r\n"
    sent, closing = asyncio.run(sent_for([before + REQUEST_LINES[13] + line, *[line] * 20]))
    assert closing and re.findall(rb"HTTP/1.1 (\d+)", sent)[-1:] == [b"431"]
    whole = REQUEST_LINES[13] + 17 * line
    sent, closing = asyncio.run(sent_for([before + whole, b"\r\n"]))
    assert closing and re.findall(rb"HTTP/1.1 (\d+)", sent)[-1:] == [b"431"]


@pytest.mark.parametrize("first", [slow(1), LATER])
def test_nothing_is_written_after_disconnect_with_pending_requests(first: bytes) -> None:
    async def story() -> None:
        faults: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context))
        state, transport = ServerState(), Sent()
        server = served(state, transport)
        server.logger = Faults(faults)  # type: ignore[assignment]
        server.data_received(first + slow(2))
        server.transport.close()
        server.connection_lost(None)
        await _rest()
        assert not state.tasks and not faults and not transport.bytes

    asyncio.run(story())


@pytest.mark.parametrize("path", [HOT + b"ada", b"/livez"])
@pytest.mark.parametrize(
    ("version", "lines", "status"),
    [
        (b" HTTP/1.1", b"", 400),
        (b" HTTP/1.1", b"Host: a\r\nHost: a\r\n", 400),
        (b" HTTP/1.0", b"Host: a\r\nHost: a\r\n", 400),
        (b" HTTP/1.1", b"Host: a b\r\n", 400),
        (b" HTTP/1.1", b"Host: a@b\r\n", 400),
        (b" HTTP/1.1", b"Host: a/b\r\n", 400),
        (b" HTTP/1.1", b"Host: [::1\r\n", 400),
        (b"", b"Host: a\r\n", 400),
        (b" HTTP/2.0", b"Host: a\r\n", 505),
        (b" HTTP/1.0", b"", 200),
        (b" HTTP/1.1", b"Host:\r\n", 200),
        (b" HTTP/1.1", b"Host: [::1]:80\r\n", 200),
        (b" HTTP/1.1", b"hOST: shop_1.example:8080\r\n", 200),
    ],
)
def test_request_requires_version_and_one_host(path: bytes, version: bytes, lines: bytes, status: int) -> None:
    asyncio.run(sent_for([REQUEST_LINES[0] + line for line in LINES]))
    sent, closing = asyncio.run(sent_for([b"GET " + path + version + b"\r\n" + lines + b"\r\n"]))
    assert sent.startswith(b"HTTP/1.1 %d " % status)
    assert closing == (status != 200 or version == b" HTTP/1.0")


@pytest.mark.parametrize("request_", [REQUEST_LINES[0] + LINES[0], REQUEST_LINES[14] + LINES[0]])
def test_client_sending_only_line_breaks_counts_as_idle(monkeypatch: pytest.MonkeyPatch, request_: bytes) -> None:
    monkeypatch.setattr(bounds, "CHECK_EVERY_S", 0.001)

    async def story() -> None:
        transport = Sent()
        server = served(ServerState(), transport, timeout_keep_alive=0.01)
        server.data_received(request_)
        await _rest()
        server.data_received(b"\r\n")
        async with asyncio.timeout(30):
            while not transport.closing:
                await asyncio.sleep(0.001)
        server.connection_lost(None)

    asyncio.run(story())


def get(number: int) -> bytes:
    return b"GET /%d HTTP/1.1\r\nHost:\r\n\r\n" % number


COUNT = 2_000


@pytest.mark.parametrize("path", [b"/%d", HOT + b"%d?n=1"])
def test_long_pipeline_is_answered_in_order_and_buffered_as_bytes(path: bytes) -> None:
    requests = [b"GET " + path % number + b" HTTP/1.1\r\nHost:\r\n\r\n" for number in range(COUNT)]
    data = b"".join(requests)

    async def story() -> bytes:
        state, transport = ServerState(), Sent()
        server, begin = served(state, transport), 0
        while transport.bytes.count(b" 200 OK") < len(requests) and not transport.closing:
            if not transport.paused and begin < len(data):
                server.data_received(data[begin : begin + 20_000])
                begin += 20_000
            assert len(server.pipeline) * len(requests[0]) <= bounds.PIECE_BYTES
            assert server.served.ledger.held_bytes <= 20_000
            await asyncio.sleep(0)
        await _rest()
        server.connection_lost(None)
        assert not server.served.ledger.held_bytes
        return transport.bytes

    sent = asyncio.run(story())
    found = [int(number) for number in re.findall(rb"'GET', b'/(?:v1/recommendations/)?(\d+)'", sent)]
    assert found == list(range(COUNT))


def begun(length: int) -> bytes:
    """An incomplete request that must be buffered."""
    head = b"POST /slow HTTP/1.1\r\nHost: shop\r\nContent-Length: 1000000\r\n\r\n"
    return head + b"x" * length


def test_total_buffered_bytes_are_bounded() -> None:
    async def story() -> None:
        state, ledger = ServerState(), Ledger(connections_max=10, held_bytes_max=100_000)
        transports = [Sent() for _ in range(4)]
        servers = [served(state, transport) for transport in transports]
        for server in servers:
            server._ledger = ledger
        for server in servers[:3]:
            server.data_received(begun(40_000))
        assert [transport.closing for transport in transports] == [False, False, True, False]
        assert b" 503 " in transports[2].bytes and ledger.held_bytes <= 100_000
        servers[3].data_received(get(1))
        await _rest()
        assert b" 200 " in transports[3].bytes, "who sends whole requests holds nothing, and is answered"
        for server in servers:
            server.connection_lost(None)
        await asyncio.gather(*state.tasks)
        assert ledger.held_bytes == 0

    asyncio.run(story())


def test_a_head_is_bounded_in_bytes_and_in_headers() -> None:
    head = b"GET /livez HTTP/1.1\r\nHost:\r\n"
    for count, status in ((heads.HEADERS_MAX - 1, b"200"), (heads.HEADERS_MAX, b"431"), (3_000, b"431")):
        whole = head + b"a:\r\n" * count + b"\r\n"
        for pieces in ([whole], [whole[begin : begin + 1_000] for begin in range(0, len(whole), 1_000)]):
            sent, closing = asyncio.run(sent_for(pieces))
            assert sent.startswith(b"HTTP/1.1 " + status) and closing == (status != b"200")


def test_connection_limit_is_enforced() -> None:
    async def story() -> None:
        state = ServerState()
        transports = [Sent() for _ in range(102)]
        servers = [served(state, transport) for transport in transports]
        assert [transport.closing for transport in transports] == [False] * 100 + [True] * 2
        assert transports[-1].bytes.startswith(b"HTTP/1.1 503 ")
        for server in servers:
            server.connection_lost(None)
        assert not state.connections

    asyncio.run(story())


def test_non_reading_client_is_dropped_and_slow_one_is_not() -> None:
    async def story() -> list[bool]:
        transport = Sent()
        server = served(ServerState(), transport)
        limit_s, found = bounds.SEND_S_MAX, []
        for now_s, unsent in (
            (0.0, 5_000_000),
            (limit_s - 1, 5_000_000 - bounds.SENT_BYTES_MIN),
            (2 * limit_s - 2, 5_000_000 - 2 * bounds.SENT_BYTES_MIN),
            (2 * limit_s, 0),
            (3 * limit_s, 10),
            (4 * limit_s - 1, 9),
            (4 * limit_s, 9),
        ):
            transport.unsent = unsent
            found.append(server._is_too_slow_a_reader(now_s))
        server.connection_lost(None)
        return found

    assert asyncio.run(story()) == [False] * 6 + [True]


def test_unread_responses_count_as_buffered_and_close_when_full() -> None:
    async def story() -> None:
        transport = Sent()
        server = served(ServerState(), transport)
        ledger = server.served.ledger
        transport.unsent = 5_000_000
        server.pause_writing()
        assert ledger.held_bytes == 5_000_000
        server.resume_writing()
        assert ledger.held_bytes == 0
        transport.unsent = ledger.held_bytes_max + 1
        server.pause_writing()
        await _rest()
        assert transport.closing and ledger.held_bytes == 0
        server.connection_lost(None)

    asyncio.run(story())


@pytest.mark.parametrize("upgrade", [b"websocket", b"h2c"])
def test_upgrade_request_is_answered_without_upgrade_and_closes(upgrade: bytes) -> None:
    asked = b"GET /livez HTTP/1.1\r\nHost: shop\r\nConnection: upgrade\r\nUpgrade: " + upgrade + b"\r\n\r\n"
    sent, closing = asyncio.run(sent_for([asked + get(2)]))
    assert closing and sent.count(b"HTTP/1.1 200") == 1 and b"connection: close\r\n" in sent
