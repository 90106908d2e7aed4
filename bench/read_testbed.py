"""The testbed of the read benchmark: Redis with lists, Kafka for the audit trail, and a gateway that uses both."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import jwt
import redis

from adapters.kafka.settings import KafkaSettings
from adapters.redis.address import RedisAddress
from adapters.redis.client import RedisClient
from adapters.secrets.key_rings import new_key_ring, write_key_ring
from adapters.waiting import until
from bench.http_load import CLIENT, REQUEST_ID
from deploy.local.gateway import GatewayServer
from deploy.local.gateway_product import AUDIENCE, key_set, settings_text
from deploy.local.java import Java
from deploy.local.kafka import KafkaBroker
from deploy.local.ports import LOOPBACK, free_port
from deploy.local.processes import ProcessRecord, ProcessTable
from deploy.local.product import create_local_topics
from deploy.local.redis import RedisServer
from schemas.consents import Level
from schemas.lists import encode_list, item_fragment
from schemas.pseudonyms import KeyRing, Pseudonymiser
from schemas.store import consent_value, popular_key, proven, user_keys

USERS = 10_000
ITEMS = 17
"""This number gives lists of 778 bytes, the size used in the project's notes on Redis."""
START_TIMEOUT_S = 60
SECRET = b"a secret of the benchmark only, 32 bytes or more"


class ReadTestbed(NamedTuple):
    """The running servers and their addresses. `listed` is the bytes of a list."""

    directory: Path
    table: ProcessTable
    store: RedisServer
    gateway: ProcessRecord
    port: int
    ring: KeyRing
    listed: bytes

    @property
    def redis_url(self) -> str:
        """The address of Redis."""
        return self.store.url

    def redis_pid(self) -> int:
        """The process id of Redis."""
        return self._redis().pid

    def kill_redis(self) -> None:
        """Kill Redis as a crash would."""
        self.table.kill(self._redis())

    def start_redis(self) -> None:
        """Restart it, with the contents of its AOF."""
        self.store.start()
        until(self.store.is_ready, "Redis", START_TIMEOUT_S, every_s=0.01)

    def fill(self) -> None:
        """Put everybody's lists into Redis."""
        fill(self.redis_url, self.ring)

    def _redis(self) -> ProcessRecord:
        found = self.table.record(self.store.name)
        assert found is not None
        return found

    def requests(self, priority: str = "u=3", users: int = 1_000, unique: bool = True) -> list[bytes]:
        """Requests for the lists of many users, with the headers that frontends send and an ingress adds.

        If they are not `unique`, all have the same request id and client address.
        """
        request_id, client = (REQUEST_ID.decode(), CLIENT.decode()) if unique else ("0" * 32, "10.0.0.1")
        token = jwt.encode(
            {"sub": "shop", "aud": AUDIENCE, "roles": ["frontend"], "exp": 4e9}, SECRET, "HS256", {"kid": "local"}
        )
        lines = (
            f"Host: {LOOPBACK}:{self.port}\r\nUser-Agent: bench\r\nAccept: application/json\r\n"
            f"Authorization: Bearer {token}\r\nPriority: {priority}\r\n"
            f"X-Request-Id: {request_id}\r\nX-Forwarded-For: {client}\r\n\r\n"
        )
        paths = (f"/v1/recommendations/{user_name(number)}?n=20" for number in range(users))
        return [f"GET {path} HTTP/1.1\r\n{lines}".encode() for path in paths]


def user_name(number: int) -> str:
    """The id of a user."""
    return f"user-{number:05d}"


@contextmanager
def open_read_testbed(directory: Path) -> Iterator[ReadTestbed]:
    """Start and fill everything; end it in any case."""
    table = ProcessTable(directory)
    (directory / "tmp").mkdir(parents=True, exist_ok=True)
    with ExitStack() as ending:
        ending.callback(lambda: table.end(table.records(), 5))
        store = RedisServer(table, free_port())
        broker = KafkaBroker(table, Java(directory / "tmp"), free_port(), free_port())
        store.start()
        broker.start()
        until(lambda: store.is_ready() and broker.is_ready(), "Redis and Kafka", START_TIMEOUT_S)
        create_local_topics(KafkaSettings(broker.bootstrap_servers))
        ring = new_key_ring()
        fill(store.url, ring)
        gateway = GatewayServer(table, free_port())
        record = gateway.start(_settings(directory, store.url, broker.bootstrap_servers, gateway.port, ring))
        until(gateway.is_ready, "the gateway", START_TIMEOUT_S)
        yield ReadTestbed(directory, table, store, record, gateway.port, ring, a_list())


def a_list() -> bytes:
    """A list of :data:`ITEMS` items."""
    at = 1_750_000_000_000
    scores = [0.9876543 - 0.0312345 * place for place in range(ITEMS)]
    items = [item_fragment(f"item-{place:05d}") for place in range(ITEMS)]
    return encode_list(7, at, b'"model-1"', at, "personalised", items, scores)


def fill(url: str, ring: KeyRing) -> None:
    """Give every user a consent and a list."""
    pseudonyms = Pseudonymiser(ring)
    token = _generation(url)
    consent = proven(consent_value(Level.FULL, 0, 1, 0, 1), token)
    with redis.Redis.from_url(url) as client:
        pipeline = client.pipeline(transaction=False)
        for number in range(USERS):
            list_key, consent_key, _ = user_keys("", pseudonyms.user(user_name(number)))
            pipeline.set(list_key, a_list()).set(consent_key, consent)
        pipeline.set(popular_key("", "all"), a_list().replace(b'"personalised"', b'"popular"'))
        pipeline.execute()


def _generation(url: str) -> str:
    """Do what the job does: mark Redis as recent enough, and set the generation in which consents count."""
    client = RedisClient(RedisAddress((url,)))
    try:
        return client.renew_generation()
    finally:
        client.close()


def _settings(directory: Path, redis_url: str, kafka: str, port: int, ring: KeyRing) -> Path:
    path, keys, tenant = (directory / name for name in ("gateway.toml", "jwks.json", "tenant.toml"))
    ring_path = directory / f"ring-{time.time_ns()}.json"
    write_key_ring(ring, ring_path)
    keys.write_bytes(key_set(SECRET))
    tenant.write_text(f'key_ring = "{ring_path.name}"\n', encoding="utf-8")
    text = settings_text(redis_url, kafka, keys, port, str(tenant))
    path.write_text(f"audit.share = 0.01\naudit.every_s = 1.0\n{text}", encoding="utf-8")
    return path
