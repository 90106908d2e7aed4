"""A gateway for a running product: its settings, a key set, and a token for trying it out."""

from __future__ import annotations

import base64
import json
import secrets
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jwt

from adapters.secrets.secret_files import write_secret
from deploy.local.escaping import toml_of
from deploy.local.files import write_atomically
from deploy.local.product import Product
from deploy.local.stack import LocalStack
from serving.gateway.roles import ROLES

AUDIENCE = "freshet-local"
TOKEN_DAYS = 30
HEADER_FILE = "authorization"


def start_gateway(stack: LocalStack, running: Product) -> Product:
    """Start it, and publish its address, and the header file for curl that contains a token for every role.

    The token itself is in that file only, which only its owner may read: addresses are printed, and end up in logs.
    """
    key = secrets.token_bytes(32)
    forget_token(stack.directory)
    write_secret(stack.directory / "jwks.json", key_set(key))
    write_atomically(stack.directory / "gateway.toml", _settings_of(stack, running))
    stack.start_gateway(stack.directory / "gateway.toml")
    token = jwt.encode(
        {"sub": "demo", "aud": AUDIENCE, "roles": list(ROLES), "exp": time.time() + TOKEN_DAYS * 86_400},
        key,
        "HS256",
        {"kid": "local"},
    )
    write_secret(stack.directory / HEADER_FILE, f"Authorization: Bearer {token}\n".encode())
    endpoints = running.endpoints | {"gateway": stack.gateway.url, HEADER_FILE: str(stack.directory / HEADER_FILE)}
    stack.publish_endpoints(**{name: value for name, value in endpoints.items() if name not in stack.addresses})
    return running._replace(endpoints=endpoints)


def forget_token(directory: Path) -> None:
    """Delete the token and its signing key."""
    for name in ("jwks.json", HEADER_FILE):
        (directory / name).unlink(missing_ok=True)


def curl_line(stack: LocalStack, user_id: str, root: str) -> str:
    """A command that reads a list from the gateway; `root` is the folder in which it is run."""
    header = str(stack.directory / HEADER_FILE).removeprefix(root).lstrip("/")
    return f"curl -sH @{header} {stack.gateway.url}/v1/recommendations/{quote(user_id, safe='')}"


def key_set(key: bytes) -> bytes:
    """A JSON Web Key Set with one HMAC key."""
    text = base64.urlsafe_b64encode(key).rstrip(b"=").decode()
    return json.dumps({"keys": [{"kid": "local", "kty": "oct", "alg": "HS256", "k": text}]}).encode()


def settings_text(redis_url: str, bootstrap_servers: str, jwks: Path, port: int, tenant: str | None) -> str:
    """Settings of a gateway with one tenant, in TOML; `tenant` is its file."""
    lines: dict[str, Any] = {
        "redis.urls": [redis_url],
        "kafka.bootstrap_servers": bootstrap_servers,
        "auth.jwks": str(jwks),
        "auth.audience": AUDIENCE,
        "server.port": port,
        "tenants.default": tenant,
    }
    return "".join(f"{name} = {toml_of(value)}\n" for name, value in lines.items())


def _settings_of(stack: LocalStack, running: Product) -> str:
    jwks, tenant = stack.directory / "jwks.json", running.settings.tenant
    return settings_text(stack.redis.url, stack.kafka.bootstrap_servers, jwks, stack.gateway.port, tenant)
