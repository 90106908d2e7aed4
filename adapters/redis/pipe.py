"""One connection to Redis for any number of asyncio tasks.

Answers come in the order of the commands, so tasks need neither a lock nor a connection each: what is asked in one turn
of the event loop leaves in one write. Whoever asks is called with the answer; :func:`awaited` is for tasks. There is no
timer for each call either: one for all looks whether the oldest is still the one that it saw before. An answer that
takes longer than `timeout_s` (at most half of it more) ends the connection, for all behind it would wait as long.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

import hiredis

from schemas.errors import StoreUnavailable

WAITING_MAX: Final = 10_000
"""Commands without an answer yet: with more, callers are told at once that Redis is unavailable."""
LOOKS: Final = 2
"""So often the oldest command is looked at within `timeout_s`."""
AWAY: Final = "Redis is unavailable"
Then = Callable[[Any], None]
"""Called once with what Redis answers, or with a `hiredis.ReplyError` or :class:`StoreUnavailable` as a value.

The `set_result` of a future is one, also of a future that may be cancelled.
"""


async def awaited(ask: Callable[..., None], *arguments: Any) -> Any:
    """What `ask(*arguments, then)` gives to `then`; raised where it is an error."""
    future = asyncio.get_running_loop().create_future()
    ask(*arguments, future.set_result)
    answer = await future
    if isinstance(answer, Exception):
        raise answer
    return answer


class Pipe(asyncio.Protocol):
    """An open connection. `on_lost` is called once, when it is one no more.

    It ends with an error answer for which `on_error` says yes: those behind it would be as wrong. `proof` is what a
    consent must end with to be read here, empty while nothing personal may be. The connection ends at `good_until_s`
    (of the loop's clock) when something is to be sent: the server was not looked at for too long.
    """

    def __init__(
        self,
        timeout_s: float,
        on_lost: Callable[[], None],
        on_error: Callable[[hiredis.ReplyError], bool] = lambda error: False,
    ) -> None:
        self.proof = b""
        self.good_until_s = math.inf
        self._loop = asyncio.get_running_loop()
        self._timeout_s = timeout_s
        self._on_lost = on_lost
        self._on_error = on_error
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[Then] = deque()
        self._oldest_seen: tuple[Then | None, int] = None, 0
        self._to_write: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None

    def ask(self, command: bytes, then: Then) -> None:
        """Send a packed command, and call `then` with the answer."""
        if self._transport is None or len(self._waiting) >= WAITING_MAX:
            then(StoreUnavailable(AWAY))
            return
        if not self._to_write:
            self._loop.call_soon(self._flush)
        self._to_write.append(command)
        self._waiting.append(then)
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout_s / LOOKS, self._look_at_oldest)

    def is_open(self) -> bool:
        """Whether a command would be sent."""
        return self._transport is not None

    def close(self) -> None:
        """End the connection; whoever waits is told that Redis is unavailable."""
        if self._transport is not None:
            self._transport.abort()
            self.connection_lost(None)

    # -- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio with what came; returns each whole answer to whom it is for."""
        reader, waiting = self._reader, self._waiting
        try:
            reader.feed(data)
            while (answer := reader.gets()) is not False:
                if not waiting:  # an answer that nobody asked for
                    self.close()
                    return
                then = waiting.popleft()
                try:
                    then(answer)
                except Exception as error:
                    self._not_taken(error)
                if type(answer) is hiredis.ReplyError and self._on_error(answer):
                    self.close()
                    return
        except hiredis.ProtocolError:  # not Redis
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        if self._transport is None:
            return
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        self._to_write.clear()
        while self._waiting:
            then = self._waiting.popleft()
            try:
                then(StoreUnavailable(AWAY))
            except Exception as error:
                self._not_taken(error)
        self._on_lost()

    def _not_taken(self, error: Exception) -> None:
        """One caller's mistake is nothing to the others on this connection; and whoever has given up makes none."""
        if not isinstance(error, asyncio.InvalidStateError):
            self._loop.call_exception_handler({"message": "an answer of Redis was not taken", "exception": error})

    def _flush(self) -> None:
        if self._transport is None or not self._to_write:
            return
        if self._loop.time() >= self.good_until_s:  # the loop, or the process, stood still
            self.close()
            return
        self._transport.write(b"".join(self._to_write))
        self._to_write.clear()

    def _look_at_oldest(self) -> None:
        self._timer = None
        if not self._waiting:
            self._oldest_seen = None, 0
            return
        oldest, (seen, times) = self._waiting[0], self._oldest_seen
        times = times + 1 if oldest is seen else 0
        if times >= LOOKS:
            self.close()
            return
        self._oldest_seen = oldest, times
        self._timer = self._loop.call_later(self._timeout_s / LOOKS, self._look_at_oldest)
