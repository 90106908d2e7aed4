"""A real gateway on a real Redis, without Kafka unless one is given, as frontends see it."""

import contextlib
import json
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import jwt
import psutil

from adapters.files.tenant_file import load_tenant
from adapters.redis.address import RedisAddress
from adapters.redis.client import always
from adapters.secrets.key_rings import load_key_ring, new_key_ring, write_key_ring
from adapters.waiting import until
from deploy.local.ports import LOOPBACK, free_port
from schemas.errors import StoreUnavailable
from schemas.lists import encode_list, item_fragment
from schemas.pseudonyms import Pseudonymiser
from schemas.store import popular_key, similar_key, user_keys
from serving.gateway.api_keys import add_api_key
from serving.gateway.roles import ROLES
from tests.support.generations import a_proven_consent, client_for, generation

START_TIMEOUT_S = 300
AUDIENCE = "freshet-tests"
HMAC_SECRET = b"a secret for tests only, of 32 bytes or more"
NO_KAFKA = "127.0.0.1:1"


def jwks_of(**keys: bytes) -> dict[str, Any]:
    """A key set of HMAC keys by kid."""
    encoded = {kid: jwt.utils.base64url_encode(secret).decode() for kid, secret in keys.items()}
    return {"keys": [{"kid": kid, "kty": "oct", "alg": "HS256", "k": k} for kid, k in encoded.items()]}


def a_token(secret: Any = HMAC_SECRET, *, kid: str | None = "k1", algorithm: str = "HS256", **claims: Any) -> str:
    """A token; claims that are None are left out."""
    body = {"sub": "tests", "aud": AUDIENCE, "exp": time.time() + 600, "roles": ["frontend"], "tenant": "default"}
    body = {name: value for name, value in {**body, **claims}.items() if value is not None}
    return jwt.encode(body, secret, algorithm, headers={"kid": kid} if kid else None)


def new_rings(directory: Path, *tenants: str) -> dict[str, str]:
    """The path of a new key ring for each tenant."""
    paths = {name: directory / f"{name}-ring.json" for name in tenants}
    for path in paths.values():
        write_key_ring(new_key_ring(), path)
    return {name: str(path) for name, path in paths.items()}


class RunningGateway:
    """A gateway with an API key for each role, below `directory`. `more` is TOML appended to its settings.

    `tenants` are key rings by the names of their tenants, or tenant files, which end in `.toml`.
    """

    def __init__(
        self,
        directory: Path,
        redis_url: str,
        kafka: str = NO_KAFKA,
        more: str = "",
        server: str = "",
        verify: ssl.SSLContext | None = None,
        **tenants: str,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.port = directory, free_port()
        self.keys = {role: add_api_key(directory / "api-keys.json", role, (role,), "default", None) for role in ROLES}
        (directory / "jwks.json").write_text(json.dumps(jwks_of(k1=HMAC_SECRET)))
        given = tenants or new_rings(directory, "default")
        files = {
            name: path if path.endswith(".toml") else self._tenant_file(name, path) for name, path in given.items()
        }
        settings = {name: load_tenant(path) for name, path in files.items()}
        self.rings = {name: load_key_ring(of.key_ring) for name, of in settings.items()}
        self.settings = directory / "gateway.toml"
        self.settings.write_text(
            f'redis.urls = ["{redis_url}"]\nkafka.bootstrap_servers = "{kafka}"\n'
            f'auth.api_keys = "{directory}/api-keys.json"\nauth.jwks = "{directory}/jwks.json"\n'
            f'auth.audience = "{AUDIENCE}"\nserver.port = {self.port}\n{server}\n'
            + "".join(f'tenants.{name} = "{path}"\n' for name, path in files.items())
            + more
        )
        with contextlib.suppress(StoreUnavailable):
            for of in settings.values():
                generation(RedisAddress((redis_url,)), of.redis_prefix)
        self.log = (directory / "gateway.log").open("w+")
        self.base = f"{'https' if verify else 'http'}://{LOOPBACK}:{self.port}"
        self.http = httpx.Client(base_url=self.base, timeout=30, verify=verify or False)
        self.process = self._started()

    def _tenant_file(self, name: str, ring: str) -> str:
        path = self.directory / f"{name}.toml"
        path.write_text(f'key_ring = "{ring}"\nredis_prefix = "{name}:"\n')
        return str(path)

    def _started(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "freshet", "gateway", "run", "--settings", str(self.settings)]
        process = subprocess.Popen(command, stderr=self.log, stdout=self.log, cwd=Path(__file__).parents[2])
        until(lambda: self._is_live(process), "the gateway", START_TIMEOUT_S, explain=self.logged)
        return process

    def _is_live(self, process: "subprocess.Popen[bytes]") -> bool:
        assert process.poll() is None, self.logged()
        try:
            return self.http.get("/livez").status_code == 200
        except httpx.TransportError:
            return False

    def logged(self) -> str:
        """Its log."""
        return (self.directory / "gateway.log").read_text()

    def get(self, path: str, role: str | None = "frontend", **headers: str) -> httpx.Response:
        """The response to a client with the API key of `role`."""
        return self.ask("GET", path, role, headers=headers)

    def ask(self, method: str, path: str, role: str | None = "frontend", **more: Any) -> httpx.Response:
        """The same for any method."""
        headers = dict(more.pop("headers", {}))
        if role is not None:
            headers["X-API-Key"] = self.keys[role]
        return self.http.request(method, path, headers=headers, **more)

    def close(self) -> int:
        """Stop it as a supervisor would; returns its exit code."""
        self.http.close()
        self.process.terminate()
        try:
            return self.process.wait(30)
        finally:
            self.kill()

    def kill(self) -> None:
        """Kill it: otherwise it would wait for an unavailable Kafka to write the rest of the audit trail."""
        self.http.close()
        if self.process.poll() is None:
            gateway = psutil.Process(self.process.pid)
            for process in [gateway, *gateway.children()]:
                process.kill()
            self.process.wait()
        self.log.close()


def a_list(*items: str, version: int = 7, at: int = 1_750_000_000_000, reason: Any = "personalised") -> bytes:
    """A list as stored in Redis."""
    scores = [1.0 - 0.01 * place for place in range(len(items))]
    return encode_list(version, 1, b'"model-1"', at, reason, [item_fragment(item) for item in items], scores)


def give_list(client: Any, ring: Any, user: str, items: Sequence[str], tenant: str = "default", place: int = 1) -> None:
    """Store a consent and a list for `user`."""
    prefix = f"{tenant}:"
    list_key, consent_key, _ = user_keys(prefix, Pseudonymiser(ring).user(user))
    consent = a_proven_consent(client, prefix, place=place)
    store = client_for(client, prefix)
    store.run(always([(consent_key, ("SET", consent_key, consent)), (list_key, ("SET", list_key, a_list(*items)))]))
    if store is not client:
        store.close()


def give_popular(client: Any, items: Sequence[str], segment: str = "all", tenant: str = "default") -> None:
    """Store a popular list."""
    client.set(popular_key(f"{tenant}:", segment), a_list(*items, reason="popular"))


def give_similar(client: Any, item: str, items: Sequence[str], tenant: str = "default") -> None:
    """Store a list of items similar to `item`."""
    client.set(similar_key(f"{tenant}:", item), a_list(*items, reason="similar"))


@contextmanager
def running_gateway(directory: Path, redis_url: str, **options: Any) -> Iterator[RunningGateway]:
    """A gateway during the block; it is killed at the end."""
    gateway = RunningGateway(directory, redis_url, **options)
    try:
        yield gateway
    finally:
        gateway.kill()
