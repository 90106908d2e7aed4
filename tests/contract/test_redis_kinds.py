"""Lists are read and withdrawals fenced on every kind of Redis: Cluster, Sentinels, TLS with an ACL user."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.redis.address import RedisAddress
from adapters.redis.client import RedisClient, always
from adapters.redis.links import slot_of
from adapters.secrets.key_rings import new_key_ring
from deploy.local.ports import LOOPBACK
from schemas.errors import NotAcknowledged
from schemas.pseudonyms import Pseudonymiser
from schemas.store import popular_key, user_keys
from serving.async_reader import AsyncReader
from serving.consents import Consents
from serving.reader import Reader
from tests.support.certificates import certificates
from tests.support.documented import redis_rights
from tests.support.gateway import a_list, give_list
from tests.support.redis_kinds import HALF, Watched, running_cluster
from tests.support.redis_server import running_redis
from tests.support.tls_front import tls_front

RING = new_key_ring()
NAMES = Pseudonymiser(RING)
USERS = [f"user-{number}" for number in range(20)]
Read = Callable[[RedisAddress, str, str | None], list[str]]


def by_threads(address: RedisAddress, user: str, password: str | None) -> list[str]:
    reader = Reader(address, RING, "default:", password=password)
    try:
        answer = reader.recommend(user)
        return [answer.reason, *(item.id for item in answer.items)]
    finally:
        reader.close()


def by_asyncio(address: RedisAddress, user: str, password: str | None) -> list[str]:
    async def read() -> list[str]:
        async with AsyncReader(address, RING, "default:", password=password) as reader:
            answer = await reader.recommend(user)
            return [answer.reason, *(item.id for item in answer.items)]

    return asyncio.run(read())


@pytest.fixture(params=[by_threads, by_asyncio])
def read(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RedisAddress, Any]]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        address = RedisAddress(tuple(node.url for node in nodes), kind="cluster", timeout_ms=2_000)
        client = RedisClient(address, prefix="default:")
        for user in USERS:
            give_list(client, RING, user, [f"of-{user}"])
        key = popular_key("default:", "all")
        client.run(always([(key, ("SET", key, a_list("socks", reason="popular")))]))
        yield address, client
        client.close()


def test_lists_are_read_from_any_cluster_node(cluster: Any, read: Read) -> None:
    address, _ = cluster
    sides = {slot_of(NAMES.user(user)) < HALF for user in USERS}
    assert sides == {True, False}
    for user in USERS[:6]:
        assert read(address, user, None) == ["personalised", f"of-{user}"]
    assert read(address, "a-stranger", None) == ["popular", "socks"]


def test_withdrawal_is_fenced_on_any_cluster_node(cluster: Any) -> None:
    address, client = cluster
    consents = Consents(
        address, {"bootstrap_servers": f"{LOOPBACK}:1", "bootstrap_timeout_ms": 100}, RING,
        tombstone_ms=100_000, prefix="default:",
    )  # fmt: skip
    for user in USERS[-4:]:
        with pytest.raises(NotAcknowledged):  # Kafka is unavailable; the fence is what counts
            consents.withdraw(user)
        list_key, _, gone_key = user_keys("default:", NAMES.user(user))
        listed, gone = client.run(always([(key, ("GET", key)) for key in (list_key, gone_key)]))
        assert listed is None and gone is not None
    consents.close()


def test_lists_are_read_from_the_primary_named_by_sentinels(tmp_path: Path, read: Read) -> None:
    watched = Watched(tmp_path)
    try:
        give_list(watched.primary.client, RING, "ada", ["tea"])
        address = RedisAddress((watched.sentinel.url,), kind="sentinel", service="lists", timeout_ms=2_000)
        assert read(address, "ada", None) == ["personalised", "tea"]
    finally:
        watched.end()


def test_lists_are_read_over_tls_with_minimal_rights(tmp_path: Path, read: Read) -> None:
    made = certificates(tmp_path / "tls")
    with running_redis(tmp_path / "redis") as server:
        give_list(server.client, RING, "ada", ["tea"])
        rights = redis_rights("reading lists")
        server.client.execute_command("ACL", "SETUSER", "shop", "on", ">hush", "~default:*", *rights)
        port = int(server.url.rpartition(":")[2].partition("/")[0])
        with tls_front(made.server, made.server_key, (LOOPBACK, port)) as front:
            url = f"rediss://{LOOPBACK}:{front}/0"
            address = RedisAddress((url,), username="shop", ca_file=str(made.authority), timeout_ms=2_000)
            assert read(address, "ada", "hush") == ["personalised", "tea"]
            assert read(address, "ada", "wrong") == ["popular"], "who is not let in gets what is held, which is nothing"
            stranger = RedisAddress((url,), username="shop", timeout_ms=2_000)
            assert read(stranger, "ada", "hush") == ["popular"], "a server of an unknown authority is not talked to"
