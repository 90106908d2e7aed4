"""The gateway, from a shell::

    python -m serving.gateway run --settings gateway.toml
    python -m serving.gateway new-api-key --file api-keys.json --id shop --role frontend
    python -m serving.gateway openapi

`new-api-key` prints a key once and keeps its hash in the file; a running gateway reads the file again by itself.
"""

import argparse
import os
import shutil
import ssl
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from uvicorn.supervisors import Multiprocess

from schemas.errors import FreshetError, SettingsError
from serving.gateway.app import MULTIPROCESS_VARIABLE, SETTINGS_VARIABLE, documented_api
from serving.gateway.logs import log_as_json
from serving.gateway.protocol import BoundedProtocol
from serving.gateway.roles import ROLES
from serving.gateway.security import ApiKey, Authenticator, new_api_key, read_api_keys
from serving.gateway.settings import ServerSettings, load_gateway_settings

KEEP_ALIVE_S = 65
DAY_S = 86_400


class Config(uvicorn.Config):
    """Uvicorn's, with TLS 1.2 at least."""

    def load(self) -> None:
        """Called once in each worker."""
        super().load()
        if self.ssl is not None:
            self.ssl.minimum_version = ssl.TLSVersion.TLSv1_2


def run(path: Path) -> int:
    """Serve until told to end."""
    settings = load_gateway_settings(path)
    Authenticator(settings.auth)  # says what is wrong before any worker starts
    log_as_json()
    os.environ[SETTINGS_VARIABLE] = str(path.resolve())
    server = settings.server
    config = Config(
        "serving.gateway.app:from_environment",
        factory=True,
        host=server.host,
        port=server.port,
        workers=server.workers,
        http=BoundedProtocol,
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
    serving.run()
    return 0 if serving.started else 1


def _with_workers(config: Config) -> int:
    """Several workers share a socket, and a folder for their metrics."""
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


def add_api_key(path: Path, id: str, roles: tuple[Any, ...], tenant: str, days: float | None) -> str:
    """Add a key to the file, which is made if it is not there; returns the key, which stands nowhere else."""
    known = list(read_api_keys(str(path)).values()) if path.exists() else []
    if any(one.id == id for one in known):
        raise SettingsError(f"{path} has an API key with this id: choose another one, or take that one out")
    key, entry = new_api_key(id, roles, tenant, None if days is None else time.time() + days * DAY_S)
    _write(path, [*known, entry])
    return key


def _write(path: Path, keys: list[ApiKey]) -> None:
    """Readers find the old file or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    beside.touch(0o600)
    beside.write_bytes(msgspec.json.format(msgspec.json.encode(keys)) + b"\n")
    beside.replace(path)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "run":
            return run(options.settings)
        if options.command == "openapi":
            print(msgspec.json.format(msgspec.json.encode(documented_api().openapi())).decode())
            return 0
        print(add_api_key(options.file, options.id, tuple(options.role), options.tenant, options.days))
    except FreshetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serving.gateway", description="Serves lists over HTTP.")
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="serve")
    running.add_argument("--settings", type=Path, required=True, help="the TOML file of the gateway")
    commands.add_parser("openapi", help="print the OpenAPI document")
    adding = commands.add_parser("new-api-key", help="make an API key, print it once, and keep its hash")
    adding.add_argument("--file", type=Path, required=True, help="the file of API keys")
    adding.add_argument("--id", required=True, help="how limits and logs call it")
    adding.add_argument("--role", action="append", required=True, choices=ROLES, help="may be repeated")
    adding.add_argument("--tenant", default="default")
    adding.add_argument("--days", type=float, help="until it expires; without, it does not")
    return parser


if __name__ == "__main__":
    sys.exit(main())
