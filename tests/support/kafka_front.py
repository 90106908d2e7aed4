"""A proxy in front of a Kafka broker that can hold back requests of one kind."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

from tests.support.tcp_front import TcpFront

END_TXN = 26
"""Kafka's number of the request that commits or aborts a transaction."""


class KafkaFront(TcpFront):
    """Forwards every request, except for those that are held back."""

    def __init__(self, port: int) -> None:
        self._api_key: int | None = None
        self.has_held = threading.Event()
        super().__init__(port)

    @contextlib.contextmanager
    def holding_back(self, api_key: int) -> Iterator[None]:
        """During the block, let no such request reach the broker, nor what its client sends after it."""
        self.has_held.clear()
        self._api_key = api_key
        try:
            yield
        finally:
            self._api_key = None

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError, struct.error), client.makefile("rb") as requests:
            while size := requests.read(4):
                request = requests.read(*struct.unpack(">i", size))
                if struct.unpack_from(">h", request)[0] != self._api_key:
                    server.sendall(size + request)
                    continue
                self.has_held.set()
                while requests.read1():
                    pass
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_WR)
