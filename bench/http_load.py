"""A closed loop of HTTP clients that use little CPU: each connection sends its next request after a response."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import uvloop

from deploy.local.ports import LOOPBACK

_LENGTH: Final = b"content-length: "


Requests = Callable[[], bytes | None]
"""Returns the next request, or None if there are no more."""
REQUEST_ID: Final = b"{request-id}"
CLIENT: Final = b"{client}"
"""Placeholders in a request for a unique id and client address, as an ingress adds them."""
_ids: Final = itertools.count(1)


def unique(request: bytes) -> bytes:
    """`request` with a unique id and client address."""
    number = next(_ids)
    client = b"10.%d.%d.%d" % (number >> 16 & 255, number >> 8 & 255, number & 255)
    return request.replace(REQUEST_ID, b"%032x" % (number * 0x9E3779B97F4A7C15)).replace(CLIENT, client)


class Answered(NamedTuple):
    """One response: its time (monotonic), duration and status, and whether it was a user's own list."""

    at_s: float
    seconds: float
    status: int
    own: bool


class Loaded(NamedTuple):
    """The results of a load, and its duration."""

    answers: list[Answered]
    lasted_s: float

    @property
    def seconds(self) -> list[float]:
        """The duration of each response."""
        return [answer.seconds for answer in self.answers]

    @property
    def statuses(self) -> dict[int, int]:
        """The number of responses by status."""
        return dict(Counter(answer.status for answer in self.answers))


class _Client(asyncio.Protocol):
    def __init__(self, requests: Requests, answers: list[Answered], done: "asyncio.Future[None]") -> None:
        self._requests, self._answers, self._done = requests, answers, done
        self._received = b""
        self._begun_s = 0.0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._send_next()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator or len(body) < _length(head):
            return
        now_s = time.monotonic()
        self._answers.append(Answered(now_s, now_s - self._begun_s, int(head[9:12]), b'"reason":"personal' in body))
        self._received = b""
        self._send_next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(exc or ConnectionResetError("the server closed the connection"))

    def _send_next(self) -> None:
        request = self._requests()
        if request is None:
            if not self._done.done():
                self._done.set_result(None)
            self._transport.close()
            return
        self._begun_s = time.monotonic()
        self._transport.write(request)


def _length(head: bytes) -> int:
    lowered = head.lower()
    begin = lowered.find(_LENGTH)
    if begin < 0:
        return 0
    begin += len(_LENGTH)
    end = lowered.find(b"\r", begin)
    return int(lowered[begin : end if end >= 0 else None])


def ask_often(port: int, requests: Sequence[bytes], connections: int, total: int) -> Loaded:
    """Send `total` requests, taken in turn from `requests`, over this many loopback connections."""
    left = iter(range(total))

    def following() -> bytes | None:
        number = next(left, None)
        return None if number is None else unique(requests[number % len(requests)])

    return uvloop.run(_load(port, following, connections))


def ask_for(port: int, groups: Sequence[tuple[Sequence[bytes], int]], seconds: float) -> list[Loaded]:
    """Run groups of (requests, connections) in parallel for `seconds`; returns the results of each group."""

    async def loads() -> list[Loaded]:
        end = time.monotonic() + seconds
        return await asyncio.gather(
            *(_load(port, _until(end, requests), connections) for requests, connections in groups)
        )

    return uvloop.run(loads())


def _until(end: float, requests: Sequence[bytes]) -> Requests:
    numbers = itertools.count()
    return lambda: unique(requests[next(numbers) % len(requests)]) if time.monotonic() < end else None


async def _load(port: int, requests: Requests, connections: int) -> Loaded:
    loop, began = asyncio.get_running_loop(), time.perf_counter()
    answers: list[Answered] = []
    ends = [loop.create_future() for _ in range(connections)]
    for done in ends:
        client = partial(_Client, requests, answers, done)
        await loop.create_connection(client, LOOPBACK, port)
    await asyncio.gather(*ends)
    return Loaded(answers, time.perf_counter() - began)
