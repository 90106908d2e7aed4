"""Keys in Redis that are told of when they change, so that nobody has to ask all the time."""

from typing import Any

import redis


class WatchedKeys:
    """A key is watched from each reading of it until its next change: client-side caching's invalidation messages.

    Two connections: one reads with tracking on, the other one gets the messages. Reading gives the first `bytes_max`
    bytes of a value.
    """

    def __init__(self, url: str, bytes_max: int) -> None:
        pool = redis.Redis.from_url(url).connection_pool
        self._bytes_max = bytes_max
        self._telling: Any = pool.get_connection("_")
        self._reading: Any = pool.get_connection("_")
        [told_to] = self._answers(self._telling, [("CLIENT", "ID")])
        self._answers(self._telling, [("SUBSCRIBE", "__redis__:invalidate")])
        self._answers(self._reading, [("CLIENT", "TRACKING", "ON", "REDIRECT", told_to)])

    def watch(self, keys: list[str]) -> list[bytes]:
        """How the values begin, empty for what is not there; each is watched from now on."""
        return self._answers(self._reading, [("GETRANGE", key, 0, self._bytes_max - 1) for key in keys])

    def changed(self, seconds: float) -> list[str]:
        """The keys that have changed; waits for the first of them, at most so long."""
        if not self._telling.can_read(timeout=seconds):
            return []
        _, _, keys = self._telling.read_response(disable_decoding=True)
        return [key.decode() for key in keys or ()]

    def close(self) -> None:
        """Leave Redis."""
        self._reading.disconnect()
        self._telling.disconnect()

    @staticmethod
    def _answers(connection: Any, commands: list[tuple[Any, ...]]) -> list[Any]:
        if not commands:
            return []
        connection.send_packed_command(connection.pack_commands(commands))
        return [connection.read_response(disable_decoding=True) for _ in commands]
