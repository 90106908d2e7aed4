"""A gateway for a running product: its settings, a key set, and a token to try it with."""

from __future__ import annotations

import base64
import json
import secrets
import time
from urllib.parse import quote

import jwt

from deploy.local.files import write_atomically
from deploy.local.product import Product
from deploy.local.stack import LocalStack
from schemas.secret_files import write_secret
from serving.gateway.roles import ROLES

AUDIENCE = "freshet-local"
TOKEN_DAYS = 30
HEADER_FILE = "authorization"


def start_gateway(stack: LocalStack, running: Product) -> Product:
    """Start it, and publish its address and a token for every role; `authorization` is a header file for curl."""
    key = secrets.token_bytes(32)
    for name in ("jwks.json", HEADER_FILE):
        (stack.directory / name).unlink(missing_ok=True)
    write_secret(stack.directory / "jwks.json", key_set(key))
    write_atomically(stack.directory / "gateway.toml", _settings_text(stack, running))
    stack.start_gateway(stack.directory / "gateway.toml")
    token = jwt.encode(
        {"sub": "demo", "aud": AUDIENCE, "roles": list(ROLES), "exp": time.time() + TOKEN_DAYS * 86_400},
        key,
        "HS256",
        {"kid": "local"},
    )
    write_secret(stack.directory / HEADER_FILE, f"Authorization: Bearer {token}\n".encode())
    endpoints = running.endpoints | {"gateway": stack.gateway.url, "token": token}
    stack.publish_endpoints(**{name: value for name, value in endpoints.items() if name not in stack.addresses})
    return running._replace(endpoints=endpoints)


def curl_line(stack: LocalStack, user_id: str, root: str) -> str:
    """A command that reads a list from the gateway; `root` is the folder that it is typed in."""
    header = str(stack.directory / HEADER_FILE).removeprefix(root).lstrip("/")
    return f"curl -sH @{header} {stack.gateway.url}/v1/recommendations/{quote(user_id, safe='')}"


def key_set(key: bytes) -> bytes:
    """A JSON Web Key Set of one HMAC key."""
    text = base64.urlsafe_b64encode(key).rstrip(b"=").decode()
    return json.dumps({"keys": [{"kid": "local", "kty": "oct", "alg": "HS256", "k": text}]}).encode()


def _settings_text(stack: LocalStack, running: Product) -> str:
    # A TOML basic string is written like a JSON string.
    settings = running.settings
    tenant = {
        "key_ring": str(settings.privacy.key_ring),
        "topic_prefix": settings.kafka.topic_prefix,
        "redis_prefix": settings.redis.prefix,
    }
    return (
        f"redis.urls = [{json.dumps(stack.redis.url)}]\n"
        f"kafka.bootstrap_servers = {json.dumps(stack.kafka.bootstrap_servers)}\n"
        f"auth.jwks = {json.dumps(str(stack.directory / 'jwks.json'))}\nauth.audience = {json.dumps(AUDIENCE)}\n"
        f"server.port = {stack.gateway.port}\n\n[tenants.default]\ntombstone_ms = {settings.tombstone_ms()}\n"
        + "".join(f"{name} = {json.dumps(value)}\n" for name, value in tenant.items())
    )
