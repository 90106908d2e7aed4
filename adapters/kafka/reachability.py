"""Checks that a broker accepts connections, so that a command fails at once instead of retrying."""

import socket
from typing import Final

from adapters.kafka.settings import KafkaSettings
from schemas.errors import SettingsError

CONNECT_S: Final = 1.0


def require_reachable_broker(kafka: KafkaSettings) -> None:
    """Raise :class:`SettingsError` if all of `kafka.bootstrap_servers` refuse connections.

    Kafka's client retries until its timeout, which suits a service but not a command that someone has typed. Servers
    that do not answer or resolve are left to the client.
    """
    if all(_refuses(server.strip()) for server in kafka.bootstrap_servers.split(",")):
        raise SettingsError(
            f"Kafka at {kafka.bootstrap_servers} refuses connections: see that it runs, and check "
            "kafka.bootstrap_servers; `freshet doctor` looks at all settings"
        )


def _refuses(server: str) -> bool:
    host, _, port = server.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False
