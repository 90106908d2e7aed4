"""Readers and a Redis that may be outdated: closed until it is trusted, and no longer than necessary.

One suite for both readers; the asyncio one runs in a loop in a thread, so its connections stay open between calls.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.redis import greeting
from adapters.redis.address import RedisAddress
from adapters.redis.client import RedisClient
from adapters.secrets.key_rings import begin_rotation, new_key_ring
from adapters.waiting import until
from schemas.consents import ConsentChange
from schemas.errors import NotAcknowledged
from schemas.pseudonyms import Pseudonymiser
from schemas.store import mark_of, user_keys
from serving.async_reader import AsyncReader
from serving.consents import Consents, RecordedConsent
from serving.reader import Reader
from tests.support.gateway import give_list, give_popular, running_gateway
from tests.support.generations import generation
from tests.support.redis_kinds import a_pair, fail_over
from tests.support.redis_server import running_redis
from tests.support.tcp_front import TcpFront

pytestmark = pytest.mark.privacy
RING = new_key_ring()
PREFIX = "default:"
DEADLINE_S = 60
"""Waits end with their condition: this is for a machine that is busy."""


class OfAsyncio:
    """An :class:`AsyncReader` whose loop runs all the time."""

    def __init__(self, address: RedisAddress, *arguments: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.reader = AsyncReader(address, *arguments)
        self._run(self.reader.open())

    def recommend(self, user: str) -> Any:
        return self._run(self.reader.recommend(user))

    def closed_because(self) -> str:
        return self.reader.closed_because()

    def close(self) -> None:
        self._run(self.reader.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self, what: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(30)


@pytest.fixture(params=[Reader, OfAsyncio], ids=["threads", "asyncio"])
def reader_of(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    made: list[Any] = []

    def make(url: str, **options: Any) -> Any:
        made.append(request.param(RedisAddress((url,), timeout_ms=2_000, **options), RING, PREFIX))
        return made[-1]

    yield make
    for reader in made:
        reader.close()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def becomes(reader: Any, reason: str, seconds: float = DEADLINE_S) -> None:
    until(lambda: reader.recommend("ada").reason == reason, f"lists that are {reason}", seconds, every_s=0.01)


def test_list_and_consent_from_before_a_crash_are_not_read(tmp_path: Path, reader_of: Any) -> None:
    with running_redis(tmp_path) as server:
        give_list(server.client, RING, "ada", ["tea"])
        give_popular(server.client, ["socks"])
        reader = reader_of(server.url)
        becomes(reader, "personalised")
        server.kill()
        server.start()
        assert server.client.get(user_keys(PREFIX, Pseudonymiser(RING).user("ada"))[0]) is not None, "AOF has both"
        becomes(reader, "popular")
        until(lambda: bool(reader.recommend("ada").items), "what is popular", DEADLINE_S, every_s=0.05)
        assert reader.recommend("ada").reason == "popular"
        until(lambda: reader.recommend("ada") and "generation record" in reader.closed_because(), "why", DEADLINE_S)
        generation(server.client, PREFIX)
        assert reader.recommend("ada").reason == "popular", "the consent still counts in the generation before"
        give_list(server.client, RING, "ada", ["tea"])
        becomes(reader, "personalised")
        assert reader.closed_because() == ""


@pytest.mark.promise("only-a-primary")
def test_reader_leaves_demoted_primary_behind_one_address(tmp_path: Path, reader_of: Any) -> None:
    """E26: three withdrawals got 503, no newer list came, and the user was personalised for half a minute more."""
    with a_pair(tmp_path) as (old, new), TcpFront(old.port) as front:
        give_list(old.client, RING, "ada", ["tea"])
        url = f"redis://127.0.0.1:{front.port}"
        reader = reader_of(url)
        becomes(reader, "personalised")
        consents = Consents(
            RedisAddress((url,)), {"bootstrap_servers": "127.0.0.1:1", "bootstrap_timeout_ms": 100}, RING,
            tombstone_ms=100_000, prefix=PREFIX,
        )  # fmt: skip
        consents._client.standing()
        fail_over(old, new, front)
        with pytest.raises(NotAcknowledged):  # Kafka is unavailable; the fence is what counts
            consents.withdraw("ada")
        consents.close()
        gone = user_keys(PREFIX, Pseudonymiser(RING).user("ada"))[2]
        assert new.client.get(gone) is not None, "fenced on the new primary, with the first call"
        becomes(reader, "popular")


@pytest.mark.promise("acknowledged-withdrawal")
def test_decisions_of_another_tenant_are_not_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another key ring or prefix, a fence has no effect: the lists are elsewhere."""
    monkeypatch.setattr(Consents, "_append", lambda consents, change, headers: RecordedConsent(1, 0, 0))
    another = new_key_ring()
    with running_redis(tmp_path) as server:
        job = RedisClient(RedisAddress((server.url,)), prefix=PREFIX, tenant=mark_of(RING, "shop."))
        token = job.renew_generation()
        for ring, topics, prefix, why in (
            (RING, "shop.", PREFIX, ""),
            (another, "shop.", PREFIX, "has another key ring"),
            (RING, "toys.", PREFIX, "reads topics with the prefix 'shop.', and not 'toys.'"),
            (RING, "shop.", "toys:", "no generation record"),
        ):
            consents = Consents(server.url, {}, ring, tombstone_ms=100_000, topic_prefix=topics, prefix=prefix)
            for change in (ConsentChange("ada", "session", now_ms()), ConsentChange("ada", "none", now_ms())):
                if why:
                    with pytest.raises(NotAcknowledged, match=why):
                        consents.record(change)
                else:
                    consents.record(change)
            consents.close()
        rotated = begin_rotation(RING, 1)
        Consents(server.url, {}, rotated, tombstone_ms=100_000, topic_prefix="shop.", prefix=PREFIX).withdraw("ada")
        job = RedisClient(RedisAddress((server.url,)), prefix=PREFIX, tenant=mark_of(rotated, "shop."))
        assert job.renew_generation() == token, "a new mark takes no consent away"
        Consents(server.url, {}, RING, tombstone_ms=100_000, topic_prefix="shop.", prefix=PREFIX).withdraw("ada")


@pytest.mark.promise("acknowledged-withdrawal")
def test_reader_with_another_key_ring_says_so(tmp_path: Path, reader_of: Any) -> None:
    with running_redis(tmp_path) as server:
        job = RedisClient(RedisAddress((server.url,)), prefix=PREFIX, tenant=mark_of(RING))
        job.renew_generation()
        give_list(server.client, RING, "ada", ["tea"])
        reader = reader_of(server.url)
        becomes(reader, "personalised")
        RedisClient(RedisAddress((server.url,)), prefix=PREFIX, tenant=mark_of(new_key_ring())).renew_generation()
        becomes(reader, "popular")
        until(lambda: "another key ring" in (reader.recommend("ada") and reader.closed_because()), "why", DEADLINE_S)
        if isinstance(reader, OfAsyncio):  # the gateway's, which shows it at /readyz
            assert any("another key ring" in line for line in reader.reader.complaints())
        job.renew_generation()
        becomes(reader, "personalised")


def test_reader_leaves_primary_without_replicas_in_bounded_time(
    tmp_path: Path, reader_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be partitioned from the others, where a new primary has accepted withdrawals since."""
    assert greeting.REPLICA_LAG_MAX_S + 2 * greeting.INSPECT_EVERY_S <= 12, "what README.md promises"
    monkeypatch.setattr(greeting, "REPLICA_LAG_MAX_S", 2)
    with a_pair(tmp_path) as (primary, replica):
        give_list(primary.client, RING, "ada", ["tea"])
        reader, careless = reader_of(primary.url, replicas=1), reader_of(primary.url)
        becomes(reader, "personalised")
        with replica.paused():
            becomes(reader, "popular")
            until(lambda: "0 of 1 replicas" in reader.closed_because(), "why", DEADLINE_S)
            becomes(careless, "personalised")  # that is what `replicas` is for
        becomes(reader, "personalised")


def test_redis_user_without_info_right_gets_popular_lists_and_the_reason(tmp_path: Path, reader_of: Any) -> None:
    with running_redis(tmp_path) as server:
        give_list(server.client, RING, "ada", ["tea"])
        give_popular(server.client, ["socks"])
        rights = ("+get", "+exists", "+evalsha", "+eval")
        server.client.execute_command("ACL", "SETUSER", "shop", "on", ">hush", f"~{PREFIX}*", *rights)
        reader = reader_of(server.url.replace("//", "//shop:hush@"))
        until(lambda: "+info" in (reader.recommend("ada") and reader.closed_because()), "why", DEADLINE_S)
        until(lambda: bool(reader.recommend("ada").items), "what is popular", DEADLINE_S)
        answer = reader.recommend("ada")
        assert (answer.reason, [item.id for item in answer.items]) == ("popular", ["socks"])


def test_gateway_reports_whether_redis_is_trusted_and_fit(tmp_path: Path) -> None:
    with running_redis(tmp_path / "redis") as server:
        server.client.config_set("maxmemory-policy", "allkeys-lru")
        with running_gateway(tmp_path / "gateway", server.url) as gateway:

            def told() -> dict[str, Any]:
                return dict(gateway.get("/readyz", None).json())

            until(lambda: told()["redis"] == "up", "an open Redis", DEADLINE_S)
            until(lambda: "noeviction" in str(told().get("complaints")), "the complaint", DEADLINE_S)
            give_list(server.client, gateway.rings["default"], "ada", ["tea"])
            server.client.flushall()
            until(lambda: told()["redis"] == "closed", "a closed Redis", DEADLINE_S)
            until(
                lambda: 'redis{state="closed",tenant="default"} 1.0' in gateway.get("/metrics", "operator").text,
                "the metric", DEADLINE_S,
            )  # fmt: skip
            assert 'redis{state="complaints",tenant="default"} 1.0' in gateway.get("/metrics", "operator").text
            generation(server.client, PREFIX)
            until(lambda: told()["redis"] == "up", "an open one", DEADLINE_S)
            server.kill()
            until(lambda: told()["redis"] == "away", "no Redis", DEADLINE_S)
