"""Watches keys in Redis for changes without polling."""

from typing import Any

import redis


class WatchedKeys:
    """Watches each key from a read until its next change, through invalidation messages of client-side caching.

    It uses two connections: one reads with tracking on, the other receives the messages. Reads return the first
    `bytes_max` bytes of a value.
    """

    def __init__(self, url: str, bytes_max: int) -> None:
        pool = redis.Redis.from_url(url).connection_pool
        self._bytes_max = bytes_max
        self._invalidations: Any = pool.get_connection("_")
        self._reading: Any = pool.get_connection("_")
        [redirect_id] = self._answers(self._invalidations, [("CLIENT", "ID")])
        self._answers(self._invalidations, [("SUBSCRIBE", "__redis__:invalidate")])
        self._answers(self._reading, [("CLIENT", "TRACKING", "ON", "REDIRECT", redirect_id)])

    def watch(self, keys: list[str]) -> list[bytes]:
        """The beginning of each value, empty if there is none; each key is watched from now on."""
        return self._answers(self._reading, [("GETRANGE", key, 0, self._bytes_max - 1) for key in keys])

    def changed(self, seconds: float) -> list[str]:
        """The keys that have changed; waits for the first of them, at most `seconds`."""
        if not self._invalidations.can_read(timeout=seconds):
            return []
        _, _, keys = self._invalidations.read_response(disable_decoding=True)
        return [key.decode() for key in keys or ()]

    def close(self) -> None:
        """Disconnect from Redis."""
        self._reading.disconnect()
        self._invalidations.disconnect()

    @staticmethod
    def _answers(connection: Any, commands: list[tuple[Any, ...]]) -> list[Any]:
        if not commands:
            return []
        connection.send_packed_command(connection.pack_commands(commands))
        return [connection.read_response(disable_decoding=True) for _ in commands]
