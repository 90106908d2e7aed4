"""The synchronous client on real servers sends nothing before a server has identified itself."""

import threading
from pathlib import Path

import pytest

from adapters.redis.address import RedisAddress
from adapters.redis.client import Keyed, RedisClient, always
from adapters.redis.greeting import Standing
from adapters.waiting import until
from schemas.errors import StoreFull, StoreMisconfigured, StoreUnavailable
from schemas.store import decode_generation, generation_key
from tests.support.redis_kinds import a_pair, fail_over
from tests.support.redis_server import RealRedis, running_redis
from tests.support.tcp_front import TcpFront

pytestmark = pytest.mark.privacy


def token(client: RedisClient) -> str | None:
    """What a command builder receives about its connection."""
    told: list[Standing] = []

    def build(standing: Standing) -> list[Keyed]:
        told.append(standing)
        return [("k", ("GET", "k"))]

    client.run(build)
    return told[-1].token


@pytest.mark.promise("only-a-primary")
def test_redis_is_untrusted_until_its_life_is_recorded_and_after_restart(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        client, other = server.store_client("t."), server.store_client("t.")
        assert token(client) is None
        made = client.renew_generation()
        assert token(client) == token(other) == client.standing().token == made
        assert other.renew_generation() == made, "it holds already"
        assert server.client.get(generation_key("t.")) is not None
        server.kill()
        server.start()
        assert token(client) is None and token(other) is None, "it may have come back older than it was"
        renewed = other.renew_generation()
        assert renewed != made and token(other) == renewed
        until(lambda: token(client) == renewed, "the new token", 5, every_s=0.01)


def test_concurrent_renewals_share_the_first_token(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        found: list[str] = []
        clients = [server.store_client() for _ in range(8)]
        threads = [threading.Thread(target=lambda c=c: found.append(c.renew_generation())) for c in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        record = decode_generation(server.client.get(generation_key("")))
        assert record is not None and set(found) == {record.token} and len(found) == 8


@pytest.mark.parametrize("value", [b"", b"{}", b'{"token":"0123456789ab","runs":[],"at":1}', b"\xff", b"null"])
def test_unreadable_generation_record_is_untrusted(tmp_path: Path, value: bytes) -> None:
    with running_redis(tmp_path) as server:
        client = server.store_client()
        client.renew_generation()
        server.client.set(generation_key(""), value)
        assert client.standing().token is None
        assert client.renew_generation() == client.standing().token
        server.client.delete(generation_key(""))
        server.client.lpush(generation_key(""), "x")
        assert client.standing().token is None
        assert client.renew_generation() == client.standing().token


@pytest.mark.promise("redis-forgets")
def test_flush_is_noticed_within_a_second(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        client = server.store_client()
        client.renew_generation()
        server.client.flushall()
        assert client.standing().token is None
        assert token(client) is None


@pytest.mark.promise("only-a-primary")
def test_client_leaves_demoted_primary_behind_one_address(tmp_path: Path) -> None:
    """After a failover, a service name or proxy leads to another server; the old one remains as a replica."""
    with a_pair(tmp_path) as (old, new), TcpFront(old.port) as front:
        client = RedisClient(RedisAddress((f"redis://127.0.0.1:{front.port}",)))
        client.renew_generation()
        write = always([("k", ("SET", "k", "1"))])
        client.run(write)
        fail_over(old, new, front)
        assert client.run(always([("k", ("SET", "k", "2"))])) == [b"OK"]
        assert new.client.get("k") == b"2"
        assert client.standing().token is None, "what was acknowledged by the old one may not be there"
        client.close()


def test_readers_leave_demoted_primary_that_still_answers(tmp_path: Path) -> None:
    with a_pair(tmp_path) as (old, new), TcpFront(old.port) as front:
        client = RedisClient(RedisAddress((f"redis://127.0.0.1:{front.port}",)))
        client.renew_generation()
        read = always([("k", ("GET", "k"))])
        client.run(read)
        fail_over(old, new, front)
        new.client.set("k", "new")
        assert client.standing().token is None
        assert client.run(read) == [b"new"]
        client.close()


def test_repromoted_primary_counts_as_new(tmp_path: Path) -> None:
    """The same process and run_id, but another server was the primary in between."""
    with a_pair(tmp_path) as (one, other):
        client = RedisClient(RedisAddress((one.url,)))
        client.renew_generation()
        one.client.replicaof("127.0.0.1", other.port)
        one.client.replicaof("NO", "ONE")
        assert client.standing().token is None
        client.close()


def test_no_command_is_sent_to_a_replica(tmp_path: Path) -> None:
    with a_pair(tmp_path) as (_, replica):
        client = RedisClient(RedisAddress((replica.url,)))
        with pytest.raises(StoreUnavailable, match="not a primary"):
            client.run(always([("k", ("GET", "k"))]))
        client.close()


def test_closed_connection_is_replaced_before_a_command_is_built(server: RealRedis) -> None:
    client = server.store_client()
    client.run(always([("k", ("SET", "k", "1"))]))
    made: list[str] = []

    def build(standing: Standing) -> list[Keyed]:
        made.append(standing.life)
        return [("k", ("GET", "k"))]

    for _ in range(5):
        server.client.client_kill_filter(_type="normal", skipme=True)
        assert client.run(build) == [b"1"]
    assert len(made) <= 10


def test_unread_replies_are_never_given_to_the_next_caller(server: RealRedis) -> None:
    client = server.store_client()
    server.client.mset({"a": "1", "b": "2"})
    with pytest.raises(StoreMisconfigured, match="unknown command"):
        client.run(always([("a", ("NOSUCH",)), ("a", ("GET", "a"))]))
    assert client.run(always([("b", ("GET", "b"))])) == [b"2"]
    with pytest.raises(ZeroDivisionError):
        client.run(lambda standing: [("b", ("GET", 1 // 0))])
    assert client.run(always([("b", ("GET", "b")), ("b", None)])) == [b"2", None]


def test_full_redis_is_distinguished_from_unavailable(server: RealRedis) -> None:
    client = server.store_client()
    server.client.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreFull):
            client.run(always([("a", ("SET", "a", "1"))]))
    finally:
        server.client.config_set("maxmemory", 0)


def test_idle_replica_count_is_awaited(tmp_path: Path) -> None:
    with a_pair(tmp_path) as (primary, replica):
        client = RedisClient(RedisAddress((primary.url,), replicas=1))
        assert client.run(always([("k", ("SET", "k", "1"))]), durable=True) == [b"OK"]
        assert replica.client.get("k") == b"1"
        replica.kill()
        with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
            client.run(always([("k", ("SET", "k", "2"))]), durable=True)
        assert client.run(always([("k", ("GET", "k"))])) == [b"2"], "the connection is in step"
        client.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    with running_redis(tmp_path_factory.mktemp("redis")) as running:
        yield running
