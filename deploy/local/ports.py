"""Free ports on the loopback interface."""

from __future__ import annotations

import random
import socket

LOOPBACK = "127.0.0.1"

# Below the range that Linux uses for outgoing connections (32768 and up), so that no connection can take
# a port found here before the service binds it.
_RANGE = range(15_000, 32_000)
_TRIES_MAX = 200
_given: set[int] = set()


def free_port(with_port_above: int = 0) -> int:
    """A free port, never returned twice by this process.

    With `with_port_above`, the port that many higher is free as well, as a Redis Cluster needs it for its bus.

    >>> free_port() != free_port()
    True
    """
    for _ in range(_TRIES_MAX):
        port = random.choice(_RANGE)  # noqa: S311 (no secret: it only keeps two stacks apart)
        pair = {port, port + with_port_above}
        if not pair & _given and all(map(_can_bind, pair)):
            _given.update(pair)
            return port
    raise OSError(f"no free port found in {_RANGE.start}-{_RANGE.stop} after {_TRIES_MAX} tries")


def is_listening(port: int) -> bool:
    """Whether something accepts connections on this loopback port."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=0.5):
            return True
    except OSError:
        return False


def _can_bind(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as candidate:
        try:
            candidate.bind((LOOPBACK, port))
        except OSError:
            return False
        return True
