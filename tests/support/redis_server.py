"""A real Redis for contract tests that can be killed and restarted."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import redis

from adapters.redis.address import RedisAddress
from adapters.redis.client import RedisClient
from adapters.waiting import until
from deploy.local.ports import free_port
from deploy.local.processes import ProcessTable
from deploy.local.redis import RedisServer
from tests.support.standstill import standing_still

START_TIMEOUT_S = 120


class RealRedis:
    """One server below `directory`, initially empty; its AOF survives `kill`."""

    def __init__(self, directory: Path) -> None:
        self._table = ProcessTable(directory)
        self._server = RedisServer(self._table, free_port())
        self._record = self._server.start()
        self._wait()
        self.client: redis.Redis[bytes] = redis.Redis.from_url(self._server.url)

    @property
    def url(self) -> str:
        """The address in the form of redis-py."""
        return self._server.url

    def store_client(self, prefix: str = "", **options: Any) -> RedisClient:
        """Our client, which waits a second for replies."""
        return RedisClient(RedisAddress((self.url,), **options), prefix=prefix)

    def kill(self) -> None:
        """Kill the server, without losing anything acknowledged.

        While an fsync of its AOF is in progress, Redis acknowledges before it writes to the file.
        """
        until(self._has_written, "the AOF", START_TIMEOUT_S, every_s=0.01)
        self._table.kill(self._record)

    def _has_written(self) -> bool:
        return int(self.client.info("persistence")["aof_buffer_length"]) == 0

    def start(self) -> None:
        """Restart it on the same port."""
        self._record = self._server.start()
        self._wait()

    def paused(self) -> AbstractContextManager[None]:
        """Pause it during the block."""
        return standing_still(self._record.pid)

    def stop(self) -> None:
        """End the server."""
        self.client.close()
        self._table.end([self._record], grace_s=2)

    def _wait(self) -> None:
        until(self._server.is_ready, "redis", START_TIMEOUT_S, every_s=0.01)


@contextmanager
def running_redis(directory: Path) -> Iterator[RealRedis]:
    """A server during the block."""
    server = RealRedis(directory)
    try:
        yield server
    finally:
        server.stop()
