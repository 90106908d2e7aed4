"""One connection to Redis for any number of asyncio tasks.

Replies arrive in the order of the commands, so tasks need neither locks nor separate connections: commands of one turn
of the event loop are sent in one write. Each caller's callback receives its reply; :func:`awaited` is for tasks. Nor is
there a timer per call: one timer checks whether the oldest command is still the one that it saw before. A reply that
takes longer than `timeout_s` (up to half of it more) ends the connection, because all later ones would be as late.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

import hiredis

from schemas.errors import StoreUnavailable

WAITING_MAX: Final = 10_000
"""Commands without a reply yet; beyond this, callers learn at once that Redis is unavailable."""
LOOKS: Final = 2
"""How often the oldest command is checked within `timeout_s`."""
UNAVAILABLE: Final = "Redis is unavailable"
OnReply = Callable[[Any], None]
"""Called once with Redis' reply, or with a `hiredis.ReplyError` or :class:`StoreUnavailable` as a value.

The `set_result` of a future is one, even if the future may be cancelled.
"""


async def awaited(ask: Callable[..., None], *arguments: Any) -> Any:
    """The value that `ask(*arguments, on_reply)` passes to `on_reply`; raised if it is an error."""
    future = asyncio.get_running_loop().create_future()
    ask(*arguments, future.set_result)
    answer = await future
    if isinstance(answer, Exception):
        raise answer
    return answer


class Pipe(asyncio.Protocol):
    """An open connection. `on_lost` is called once, when it ends.

    An error reply for which `on_error` returns True ends it: later replies would be as wrong. `proof` is what a consent
    must end with to be read here, empty while no personal data may be read. After `good_until_s` (of the loop's clock),
    the next send closes the connection instead: the server was not checked for too long.
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
        self._waiting: deque[OnReply] = deque()
        self._oldest_seen: tuple[OnReply | None, int] = None, 0
        self._to_write: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None

    def ask(self, command: bytes, on_reply: OnReply) -> None:
        """Send a packed command, and call `on_reply` with the reply."""
        if self._transport is None or len(self._waiting) >= WAITING_MAX:
            on_reply(StoreUnavailable(UNAVAILABLE))
            return
        if not self._to_write:
            self._loop.call_soon(self._flush)
        self._to_write.append(command)
        self._waiting.append(on_reply)
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout_s / LOOKS, self._check_oldest)

    def is_open(self) -> bool:
        """Whether a command would be sent."""
        return self._transport is not None

    def close(self) -> None:
        """Close the connection; waiting callers learn that Redis is unavailable."""
        if self._transport is not None:
            self._transport.abort()
            self.connection_lost(None)

    # -- callbacks of asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio with received bytes; passes each complete reply to its caller."""
        reader, waiting = self._reader, self._waiting
        try:
            reader.feed(data)
            while (answer := reader.gets()) is not False:
                if not waiting:  # an unexpected reply
                    self.close()
                    return
                on_reply = waiting.popleft()
                try:
                    on_reply(answer)
                except Exception as error:
                    self._report_callback_error(error)
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
            on_reply = self._waiting.popleft()
            try:
                on_reply(StoreUnavailable(UNAVAILABLE))
            except Exception as error:
                self._report_callback_error(error)
        self._on_lost()

    def _report_callback_error(self, error: Exception) -> None:
        """Report a failed callback without affecting other callers; ignore callers that have given up."""
        if not isinstance(error, asyncio.InvalidStateError):
            self._loop.call_exception_handler({"message": "a callback failed on a reply of Redis", "exception": error})

    def _flush(self) -> None:
        if self._transport is None or not self._to_write:
            return
        if self._loop.time() >= self.good_until_s:  # the loop, or the process, was suspended
            self.close()
            return
        self._transport.write(b"".join(self._to_write))
        self._to_write.clear()

    def _check_oldest(self) -> None:
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
        self._timer = self._loop.call_later(self._timeout_s / LOOKS, self._check_oldest)
