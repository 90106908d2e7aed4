"""Runs the gateway on uvicorn: one process or several workers, with TLS if configured."""

import contextlib
import os
import resource
import shutil
import signal
import socket
import ssl
import tempfile
from pathlib import Path
from typing import Any, Final

import uvicorn
from uvicorn.supervisors import Multiprocess

from adapters.redis.client import RedisClient
from adapters.secrets.key_rings import load_key_ring
from schemas.errors import SettingsError
from serving.gateway.app import MULTIPROCESS_VARIABLE, SETTINGS_VARIABLE
from serving.gateway.bounds import BoundedProtocol
from serving.gateway.fast_lane import LaneProtocol
from serving.gateway.gateway_settings import GatewaySettings, ServerSettings, load_gateway_settings
from serving.gateway.logs import log_gateway
from serving.gateway.security import Authenticator

KEEP_ALIVE_S: Final = 65
FILES_BESIDE: Final = 256
"""Open files besides client connections: Kafka, Redis, certificates, metrics of workers."""


class Config(uvicorn.Config):
    """Uvicorn's configuration, with at least TLS 1.2."""

    def load(self) -> None:
        """Called once in each worker."""
        super().load()
        if self.ssl is not None:
            self.ssl.minimum_version = ssl.TLSVersion.TLSv1_2


def run(path: Path) -> int:
    """Serve until terminated."""
    settings = load_gateway_settings(path)
    _refuse_unusable(settings)
    _allow_files(settings.server.connections_max + FILES_BESIDE)
    log_gateway(settings.logs.format)
    os.environ[SETTINGS_VARIABLE] = str(path.resolve())
    server = settings.server
    config = Config(
        "serving.gateway.app:from_environment",
        factory=True,
        host=server.host,
        port=server.port,
        workers=server.workers,
        http=LaneProtocol if server.fast_lane else BoundedProtocol,
        loop="uvloop",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=server.grace_s,
        **_tls(server),
    )
    if server.workers > 1:
        return _with_workers(config)
    serving = uvicorn.Server(config)
    # Uvicorn shuts down on SIGTERM, and then raises it again for the previous handler.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    with contextlib.suppress(KeyboardInterrupt):
        serving.run()
    return 0 if serving.started else 1


def _refuse_unusable(settings: GatewaySettings) -> None:
    """Check the files named by the settings at startup: failing workers would be restarted forever.

    Raises :class:`SettingsError`.
    """
    Authenticator(settings.auth)
    RedisClient(settings.redis, settings.redis_password()).close()  # checks password and TLS files; does not connect
    for name in settings.tenants:
        load_key_ring(settings.tenant(name).key_ring)
    server = settings.server
    _refuse_used_port(server.host, server.port)
    if server.cert_file is None:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(server.cert_file, server.key_file, password="")
        if server.client_ca_file is not None:
            context.load_verify_locations(server.client_ca_file)
    except OSError as error:
        raise SettingsError(
            f"server.cert_file, server.key_file or server.client_ca_file cannot be used: {error.strerror or error}"
        ) from None


def _refuse_used_port(host: str, port: int) -> None:
    """Raise :class:`SettingsError` if uvicorn could not listen: it would only log that, and exit."""
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
    except OSError as error:
        raise SettingsError(
            f"the gateway cannot listen on {host} port {port} ({error.strerror}): end what listens there, or choose "
            "another server.host or server.port"
        ) from None


def _allow_files(count: int) -> None:
    """Let this process and its workers open `count` files. Raises :class:`SettingsError`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise SettingsError(
            f"this process may open {hard} files (ulimit -Hn), and server.connections_max needs {count}: "
            f"raise the limit, or set server.connections_max to {max(1, hard - FILES_BESIDE)} or less"
        )
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def _with_workers(config: Config) -> int:
    """Run several workers that share a socket and a folder for their metrics."""
    folder = tempfile.mkdtemp(prefix="freshet-gateway-")
    os.environ[MULTIPROCESS_VARIABLE] = folder
    try:
        Multiprocess(config, sockets=[config.bind_socket()]).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _tls(server: ServerSettings) -> dict[str, Any]:
    if server.cert_file is None:
        return {}
    options = {"ssl_certfile": server.cert_file, "ssl_keyfile": server.key_file}
    if server.client_ca_file is None:
        return options
    return options | {"ssl_ca_certs": server.client_ca_file, "ssl_cert_reqs": ssl.CERT_REQUIRED}
