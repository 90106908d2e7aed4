"""An address in front of a server, like a Kubernetes service: new connections may go elsewhere."""

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

LOOPBACK = "127.0.0.1"


class TcpFront:
    """Forwards bytes to a port of this machine."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listening = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listening.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def lead_to(self, port: int) -> None:
        """Lead new connections there; open ones stay where they are."""
        self._target = port

    def cut(self) -> None:
        """Close all open connections."""
        ended, self._open = self._open, []
        for one in ended:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._listening.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
                server = socket.create_connection((LOOPBACK, self._target))
            except OSError:
                if self._listening.fileno() < 0:
                    return
                client.close()
                continue
            self._open += [client, server]
            for pump, ends in ((self._requests, (client, server)), (_pump, (server, client))):
                threading.Thread(target=pump, args=ends, daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        """What a client sends, for subclasses that inspect it."""
        _pump(client, server)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(65_536):
            target.sendall(chunk)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
