"""Checks that a broker accepts connections, so that a command fails at once instead of retrying."""

import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from adapters.kafka.settings import KafkaSettings
from schemas.errors import KafkaUnreachable

CONNECT_S: Final = 3.0
"""Long enough for a broker on another continent, and for one lost packet."""
SERVERS_AT_ONCE: Final = 16


def require_reachable_broker(kafka: KafkaSettings) -> None:
    """Raise :class:`KafkaUnreachable` if none of `kafka.bootstrap_servers` accepts a connection.

    Kafka's client retries until its timeout, which suits a service but not a command that someone has typed.
    """
    servers = [server.strip() for server in kafka.bootstrap_servers.split(",")]
    with ThreadPoolExecutor(SERVERS_AT_ONCE) as pool:
        failures = list(pool.map(_failure, servers))
    if all(failures):
        raise KafkaUnreachable(
            f"Kafka at {kafka.bootstrap_servers} {_listed(failures)}: see that it runs, and check "
            "kafka.bootstrap_servers"
        )


def _listed(failures: Iterable[str]) -> str:
    """
    >>> _listed(["refuses connections", "refuses connections", "cannot be resolved"])
    'refuses connections or cannot be resolved'
    """
    return " or ".join(dict.fromkeys(failures))


def _failure(server: str) -> str:
    """Why `server` accepts no connection; empty if it accepts one."""
    host, _, port = server.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except ConnectionRefusedError:
        return "refuses connections"
    except socket.gaierror:
        return "cannot be resolved"
    except TimeoutError:
        return "does not answer"
    except OSError as error:
        return f"cannot be reached ({error.strerror or type(error).__name__})"
    return ""
