"""Connections that reconnect, on real servers: what callers see while Redis is unavailable, slow or moved."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.redis.address import RedisAddress
from adapters.redis.links import Links, links_to, pack, slot_of
from adapters.redis.pipe import WAITING_MAX, awaited
from schemas.errors import SettingsError, StoreUnavailable
from tests.support.redis_kinds import HALF, Watched, move_slot, running_cluster
from tests.support.redis_server import RealRedis, running_redis

TIMEOUT_MS = 100


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRedis]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


def run(address: RedisAddress, story: Callable[[Links], Awaitable[None]]) -> None:
    """Open links, run the story, close them; no task may be left running."""

    async def all_of_it() -> None:
        links = links_to(address)
        await links.open()
        try:
            await story(links)
        finally:
            await links.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(all_of_it())


async def get(links: Links, key: str) -> Any:
    return await awaited(links.ask, key, pack(("GET", key)))


async def until(question: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not await question():
            await asyncio.sleep(0.01)


async def answers(links: Links, key: str) -> bool:
    try:
        await get(links, key)
    except Exception:
        return False
    return True


def test_each_caller_gets_its_own_reply(server: RealRedis) -> None:
    server.client.mset({f"k{number}": number for number in range(500)})

    async def story(links: Links) -> None:
        found = await asyncio.gather(*(get(links, f"k{number}") for number in range(500)))
        assert [int(value) for value in found] == list(range(500))
        assert server.client.info("clients")["connected_clients"] <= 2

    run(RedisAddress((server.url,)), story)


def test_cancelled_caller_does_not_shift_replies(server: RealRedis) -> None:
    server.client.mset({"a": "1", "b": "2"})

    async def story(links: Links) -> None:
        given_up = asyncio.create_task(get(links, "a"))
        waited_for = asyncio.create_task(get(links, "b"))
        await asyncio.sleep(0)
        given_up.cancel()
        assert await waited_for == b"2"

    run(RedisAddress((server.url,)), story)


def test_redis_error_reaches_its_caller_only(server: RealRedis) -> None:
    async def story(links: Links) -> None:
        asked = [awaited(links.ask, "", pack((command,))) for command in ("NOSUCH", "PING")]
        wrong, right = await asyncio.gather(*asked, return_exceptions=True)
        assert "unknown command" in str(wrong)
        assert right == b"PONG"

    run(RedisAddress((server.url,)), story)


def test_invalid_call_does_not_affect_other_callers(server: RealRedis) -> None:
    def mistaken(answer: Any) -> None:
        raise ValueError

    async def story(links: Links) -> None:
        said: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, what: said.append(what["exception"]))
        links.ask("", pack(("PING",)), mistaken)
        assert await awaited(links.ask, "", pack(("PING",))) == b"PONG"
        assert [type(error) for error in said] == [ValueError]

    run(RedisAddress((server.url,)), story)


def test_paused_server_times_out_then_fails_fast_then_recovers(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with running_redis(tmp_path_factory.mktemp("paused")) as paused:

        async def story(links: Links) -> None:
            with paused.paused():
                with pytest.raises(StoreUnavailable):
                    async with asyncio.timeout(20 * TIMEOUT_MS / 1000):
                        await get(links, "a")
                assert not links.is_up()
                # No caller waits again, although the connection is being retried.
                begun = time.process_time()
                for _ in range(100):
                    with pytest.raises(StoreUnavailable):
                        await get(links, "a")
                assert time.process_time() - begun < 1.0
            await until(lambda: answers(links, "a"))

        run(RedisAddress((paused.url,), timeout_ms=TIMEOUT_MS), story)


def test_callers_beyond_the_limit_are_refused(server: RealRedis) -> None:
    async def story(links: Links) -> None:
        asked = [awaited(links.ask, "a", pack(("GET", "a"))) for _ in range(WAITING_MAX + 1)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(one) for one in found if isinstance(one, Exception)] == [StoreUnavailable]

    run(RedisAddress((server.url,), timeout_ms=10_000), story)


def test_non_redis_server_is_rejected() -> None:
    async def story() -> None:
        async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        server = await asyncio.start_server(nonsense, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        links = links_to(RedisAddress((f"redis://127.0.0.1:{port}",), timeout_ms=TIMEOUT_MS))
        await links.open()
        assert not links.is_up()
        await links.close()
        server.close()

    asyncio.run(story())


def test_cluster_client_follows_moved_keys(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as nodes:
        keys = [f"{{p1.{number}}}:list" for number in range(60)]
        sides = {slot_of(key) < HALF for key in keys}
        assert sides == {True, False}

        async def story(links: Links) -> None:
            assert all([await answers(links, key) for key in keys])
            moved = next(key for key in keys if slot_of(key) < HALF)
            move_slot(nodes, slot_of(moved))
            with pytest.raises(Exception, match="MOVED"):
                await get(links, moved)
            await until(lambda: answers(links, moved))
            assert all([await answers(links, key) for key in keys])
            nodes[0].kill()
            await until(lambda: answers(links, moved))
            left_alone = next(key for key in keys if slot_of(key) >= HALF)
            assert await answers(links, left_alone), "the other node is not to blame"

        run(RedisAddress((nodes[0].url, nodes[1].url), kind="cluster", timeout_ms=500), story)


def test_client_follows_failover_to_new_primary(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    try:
        watched.primary.client.set("a", "1")

        async def story(links: Links) -> None:
            assert await get(links, "a") == b"1"
            watched.primary.kill()
            await until(lambda: answers(links, "a"), 60)
            assert await awaited(links.ask, "b", pack(("SET", "b", "2"))) == b"OK", "a primary takes writes"
            assert watched.replica.client.get("b") == b"2"

        address = RedisAddress((watched.sentinel.url,), kind="sentinel", service="lists", timeout_ms=500)
        run(address, story)
    finally:
        watched.end()


@pytest.mark.parametrize("url", ["http://host", "redis://", "host:6379", "redis://host:port", "redis://host/db"])
def test_invalid_address_is_refused_without_echo(url: str) -> None:
    with pytest.raises((SettingsError, ValueError)) as raised:
        RedisAddress((url.replace("//", "//user:hush@"),))
    assert "hush" not in str(raised.value)


def test_missing_tls_files_are_reported_at_once() -> None:
    with pytest.raises(SettingsError, match="TLS files"):
        links_to(RedisAddress(("rediss://127.0.0.1:1",), ca_file="/nowhere"))
