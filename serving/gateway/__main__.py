"""The gateway, from a shell::

    python -m serving.gateway run --settings gateway.toml
    python -m serving.gateway new-api-key --file api-keys.json --id shop --role frontend
    python -m serving.gateway openapi

`new-api-key` prints a key once and keeps its hash in the file; a running gateway reads the file again by itself.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from schemas.errors import FreshetError, SettingsError
from serving.gateway.app import documented_api
from serving.gateway.roles import ROLES
from serving.gateway.security import ApiKey, new_api_key, read_api_keys
from serving.gateway.server import run

DAY_S: Final = 86_400


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
