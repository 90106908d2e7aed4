"""What a frontend reads from a real Redis: consent decides in the store, and there is always a list.

One suite for both readers: the synchronous one, and the asyncio one, which runs in its own loop here.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from adapters.redis.address import RedisAddress
from adapters.secrets.key_rings import begin_rotation, new_key_ring
from schemas.catalogue import CatalogueItem
from schemas.consents import Level
from schemas.lists import Reason, encode_list, item_fragment, with_history
from schemas.pseudonyms import KeyRing, Pseudonymiser
from schemas.store import TRENDING, consent_value, popular_key, similar_key, user_keys
from serving import answers
from serving.answers import POPULAR_FRESH_MS, Recommendation
from serving.async_reader import AsyncReader
from serving.reader import PAUSE_AFTER_FAILURE_MS, Reader
from tests.support.documented import redis_rights
from tests.support.generations import a_proven_consent, generation
from tests.support.redis_server import RealRedis, running_redis

NOW = 1_750_000_000_000
RING = new_key_ring()
LIST, CONSENT, GONE = user_keys("shop:", Pseudonymiser(RING).user("ada"))


class Clock:
    def __init__(self) -> None:
        self.now_ms, self.set_back_ms = NOW, 0

    def __call__(self) -> int:
        return self.now_ms

    def pass_ms(self, ms: int) -> None:
        self.now_ms += ms

    def steady(self) -> int:
        """The same moments by a monotonic clock."""
        return self.now_ms + self.set_back_ms

    def set_back(self, ms: int) -> None:
        self.now_ms, self.set_back_ms = self.now_ms - ms, self.set_back_ms + ms


class OfAsyncio:
    """An :class:`AsyncReader` whose loop runs only during a call."""

    def __init__(self, address: RedisAddress, *arguments: Any, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self.reader = AsyncReader(address, *arguments, **options)
        self._runner.run(self.reader.open())
        self._popular = self.reader._popular

    def recommend(self, *arguments: Any, **options: Any) -> Recommendation:
        return self._runner.run(self.reader.recommend(*arguments, **options))

    def similar(self, *arguments: Any, **options: Any) -> Recommendation:
        return self._runner.run(self.reader.similar(*arguments, **options))

    def recently_viewed(self, *arguments: Any, **options: Any) -> Recommendation:
        return self._runner.run(self.reader.recently_viewed(*arguments, **options))

    def buy_again(self, *arguments: Any, **options: Any) -> Recommendation:
        return self._runner.run(self.reader.buy_again(*arguments, **options))

    def popular(self, *arguments: Any, **options: Any) -> Recommendation:
        return self._runner.run(self.reader.popular(*arguments, **options))

    def trending(self, *arguments: Any, **options: Any) -> Recommendation:
        return self._runner.run(self.reader.trending(*arguments, **options))

    def come_back(self) -> None:
        async def until_up() -> None:
            while not self.reader.is_up():
                await asyncio.sleep(0.01)

        self._runner.run(asyncio.wait_for(until_up(), 10))

    def close(self) -> None:
        self._runner.run(self.reader.close())
        self._runner.close()


AnyReader = Reader | OfAsyncio
KINDS = [pytest.param(Reader, id="threads"), pytest.param(OfAsyncio, id="asyncio")]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRedis]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def store(server: RealRedis) -> "redis.Redis[bytes]":
    server.client.flushall()
    server.client.script_flush()
    generation(server.client, "shop:")
    return server.client


@pytest.fixture
def clock() -> Clock:
    return Clock()


def connected(kind: Any, url: str, clock: Clock, ring: KeyRing = RING, **options: Any) -> AnyReader:
    """A reader that has connected to Redis, and tolerates short pauses of the machine."""
    address = RedisAddress((url,), timeout_ms=2_000)
    reader: AnyReader = kind(address, ring, "shop:", clock_ms=clock, steady_ms=clock.steady, **options)
    if isinstance(reader, OfAsyncio):
        reader.come_back()
    return reader


@pytest.fixture
def reader(kind: Any, server: RealRedis, store: "redis.Redis[bytes]", clock: Clock) -> Iterator[AnyReader]:
    reader = connected(kind, server.url, clock)
    yield reader
    reader.close()


def a_list(*items: str, reason: Reason = "personalised", version: int = 7, at: int = NOW) -> bytes:
    fragments = [item_fragment(item) for item in items]
    return encode_list(version, 1, b'"model"', at, reason, fragments, [1.0] * len(items))


def consent(store: "redis.Redis[bytes]", level: Level = Level.FULL) -> None:
    store.set(CONSENT, a_proven_consent(store, "shop:", level))


def popular(store: "redis.Redis[bytes]", segment: str, *items: str) -> None:
    store.set(popular_key("shop:", segment), a_list(*items, reason="popular"))


def ids(reader: AnyReader, segment: str | None = None, n: int = 10) -> list[str]:
    return [item.id for item in reader.recommend("ada", n, segment=segment).items]


def test_consenting_user_gets_personal_list(store: "redis.Redis[bytes]", reader: AnyReader, clock: Clock) -> None:
    consent(store)
    store.set(LIST, a_list("tea", "cup", "pot", version=9, at=NOW - 40))
    answer = reader.recommend("ada", n=2)
    assert [item.id for item in answer.items] == ["tea", "cup"]
    assert (answer.reason, answer.version, answer.age_ms) == ("personalised", 9, 40)


def test_session_list_has_reason_session(store: "redis.Redis[bytes]", reader: AnyReader) -> None:
    consent(store, Level.SESSION)
    store.set(LIST, a_list("tea", reason="session"))
    assert reader.recommend("ada").reason == "session"


@pytest.mark.parametrize("state", ["none", "absent", "gone"])
def test_no_personal_list_is_read_without_consent(store: "redis.Redis[bytes]", reader: AnyReader, state: str) -> None:
    store.set(LIST, a_list("secret"))
    if state == "none":
        consent(store, Level.NONE)
    if state == "gone":
        consent(store)
        store.set(GONE, b"1")
    popular(store, "all", "socks")
    answer = reader.recommend("ada")
    assert [item.id for item in answer.items] == ["socks"]
    assert answer.reason == "popular"


def test_withdrawal_takes_effect_on_the_next_read(store: "redis.Redis[bytes]", reader: AnyReader) -> None:
    consent(store)
    store.set(LIST, a_list("tea"))
    assert ids(reader) == ["tea"]
    consent(store, Level.NONE)
    assert ids(reader) == []


def test_segment_list_precedes_global_fallback(store: "redis.Redis[bytes]", reader: AnyReader) -> None:
    popular(store, "all", "socks")
    popular(store, "country:GB", "umbrella")
    assert ids(reader, "country:GB") == ["umbrella"]
    assert ids(reader, "country:PT") == ["socks"]
    assert ids(reader) == ["socks"]


def test_similar_items_are_read_for_anybody(store: "redis.Redis[bytes]", reader: AnyReader) -> None:
    store.set(similar_key("shop:", "tea"), a_list("cup", "pot", "jam", reason="similar"))
    popular(store, "all", "tea", "socks")
    found = reader.similar("tea", n=2, exclude=["cup"])
    assert ([item.id for item in found.items], found.reason) == (["pot", "jam"], "similar")
    store.delete(similar_key("shop:", "tea"))
    found = reader.similar("tea")
    assert ([item.id for item in found.items], found.reason) == (["socks"], "popular"), "not what the page shows"
    popular(store, "country:GB", "umbrella")
    assert [item.id for item in reader.similar("tea", segment="country:GB").items] == ["umbrella"]
    store.set(similar_key("shop:", "tea"), b"not a list")
    assert reader.similar("tea").reason == "popular"


def test_trending_items_are_read_for_anybody(store: "redis.Redis[bytes]", reader: AnyReader, clock: Clock) -> None:
    popular(store, "all", "socks")
    assert reader.trending().reason == "popular"
    clock.pass_ms(1_000)
    store.set(popular_key("shop:", TRENDING), a_list("lamp", "tea", reason="trending"))
    for _ in range(2):  # read, then cached
        found = reader.trending(n=1)
        assert ([item.id for item in found.items], found.reason) == (["lamp"], "trending")
    store.delete(popular_key("shop:", TRENDING))
    clock.pass_ms(1_000)
    assert reader.trending().reason == "popular", "what has expired is no trend"


def test_what_a_user_met_and_bought_is_read_under_consent(store: "redis.Redis[bytes]", reader: AnyReader) -> None:
    raw = a_list("cup", version=4, at=NOW - 40)
    store.set(LIST, with_history(raw, ["tea", "pot", "jam"], ["pot"]))
    popular(store, "all", "socks")
    assert reader.recently_viewed("ada").items == (), "no consent"
    consent(store)
    viewed, bought = reader.recently_viewed("ada", 2, exclude=["pot"]), reader.buy_again("ada")
    assert ([item.id for item in viewed.items], viewed.reason) == (["tea", "jam"], "viewed")
    assert (viewed.version, viewed.age_ms) == (4, 40)
    assert ([item.id for item in bought.items], bought.reason) == (["pot"], "bought")
    assert [item.id for item in reader.recommend("ada").items] == ["cup"]
    for unusable in (raw, b"not a list"):
        store.set(LIST, unusable)
        assert reader.recently_viewed("ada").items == () == reader.buy_again("ada").items
    assert reader.recently_viewed("bob").items == (), "and nothing popular instead"
    store.set(LIST, with_history(raw, ["tea"], []))
    consent(store, Level.NONE)
    assert reader.recently_viewed("ada").items == ()


def test_popular_items_of_a_category(kind: Any, server: RealRedis, store: "redis.Redis[bytes]", clock: Clock) -> None:
    catalogue = {"socks": CatalogueItem("socks", "Socks", "wool"), "tea": CatalogueItem("tea", "Tea", "drinks")}
    popular(store, "all", "tea", "socks", "lamp")
    with_catalogue = connected(kind, server.url, clock, catalogue=catalogue)
    without = connected(kind, server.url, clock)

    def found(reader: AnyReader, **options: Any) -> list[str]:
        return [item.id for item in reader.popular(**options).items]

    assert found(without) == ["tea", "socks", "lamp"] and found(without, n=1, exclude=["tea"]) == ["socks"]
    assert found(with_catalogue, category="wool") == ["socks"], "from the popular items in general"
    assert found(without, category="wool") == [], "nobody knows what is of wool"
    popular(store, "category:wool", "scarf", "socks")
    clock.pass_ms(1_000)
    assert found(without, category="wool") == ["scarf", "socks"] == found(with_catalogue, category="wool")
    assert found(without, category="wool", exclude=["scarf"]) == ["socks"]
    for one in (with_catalogue, without):
        one.close()


def test_withdrawn_item_is_in_no_list(kind: Any, server: RealRedis, store: "redis.Redis[bytes]", clock: Clock) -> None:
    catalogue = {"tea": CatalogueItem("tea", "Tea")}
    consent(store)
    store.set(LIST, a_list("tea", "cup"))
    store.set(similar_key("shop:", "jam"), a_list("tea", "pot", reason="similar"))
    store.set(popular_key("shop:", TRENDING), a_list("tea", "lamp", reason="trending"))
    popular(store, "all", "tea", "socks")
    reader = connected(kind, server.url, clock, catalogue=catalogue)

    def first_items() -> list[str]:
        found = reader.recommend("ada"), reader.similar("jam"), reader.trending(), reader.recommend("bob")
        return [one.items[0].id for one in found]

    assert first_items() == ["tea"] * 4
    catalogue["tea"] = CatalogueItem("tea", "Tea", available=False)
    assert first_items() == ["cup", "pot", "lamp", "socks"]
    store.set(LIST, a_list("tea"))
    assert reader.recommend("ada").reason == "popular", "its list has nothing left"
    reader.close()


def test_missing_lists_give_an_empty_popular_answer(reader: AnyReader, store: "redis.Redis[bytes]") -> None:
    answer = reader.recommend("ada")
    assert (answer.items, answer.reason, answer.version) == ((), "popular", 0)


def test_popular_lists_are_cached_for_a_second(store: "redis.Redis[bytes]", reader: AnyReader, clock: Clock) -> None:
    popular(store, "all", "socks")
    assert ids(reader) == ["socks"]
    popular(store, "all", "scarf")
    clock.pass_ms(POPULAR_FRESH_MS - 1)
    assert ids(reader) == ["socks"]
    clock.pass_ms(1)
    assert ids(reader) == ["scarf"]


def test_clock_set_back_does_not_stop_popular_refresh(
    store: "redis.Redis[bytes]", reader: AnyReader, clock: Clock
) -> None:
    popular(store, "all", "socks")
    assert ids(reader) == ["socks"]
    popular(store, "all", "scarf")
    clock.set_back(3_600_000)
    clock.pass_ms(POPULAR_FRESH_MS)
    assert ids(reader) == ["scarf"]


@pytest.mark.parametrize("n", [0, -1, -10])
def test_negative_n_returns_no_items(store: "redis.Redis[bytes]", reader: AnyReader, n: int) -> None:
    popular(store, "all", "socks", "scarf")
    assert ids(reader, n=n) == []
    consent(store)
    store.set(LIST, a_list("tea", "cup", "pot"))
    answer = reader.recommend("ada", n)
    assert (answer.items, answer.reason) == ((), "personalised")
    assert reader.recommend("ada", n, exclude=["tea"]).items == ()


def test_each_read_takes_one_round_trip(
    server: RealRedis, store: "redis.Redis[bytes]", clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader(server.url, RING, "shop:", clock_ms=clock, steady_ms=clock.steady)
    consent(store)
    store.set(LIST, a_list("tea"))
    ids(reader)
    sent: list[int] = []
    [[connection]] = reader._client._idle.values()
    send = connection.send
    monkeypatch.setattr(connection, "send", lambda commands: (sent.append(len(commands)), send(commands)))
    ids(reader)
    clock.pass_ms(POPULAR_FRESH_MS)
    ids(reader, "country:GB")
    connection._inspected_at_s = 0.0  # the look at the server comes along
    ids(reader)
    assert sent == [1, 3, 4]
    reader.close()


def test_unreadable_list_falls_back(store: "redis.Redis[bytes]", reader: AnyReader) -> None:
    consent(store)
    store.set(LIST, b'{"v":1,')
    popular(store, "all", "socks")
    assert ids(reader) == ["socks"]


def test_cached_segments_are_bounded(
    store: "redis.Redis[bytes]", reader: AnyReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "SEGMENTS_CACHED_MAX", 3)
    popular(store, "all", "socks")
    for country in range(10):
        ids(reader, f"country:{country}")
    assert len(reader._popular._cached) == 3
    assert ids(reader) == ["socks"]


def test_redis_outage_serves_cached_lists_and_recovers(
    kind: Any, tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    with running_redis(tmp_path_factory.mktemp("falls")) as server:
        consent(server.client)
        server.client.set(LIST, a_list("tea"))
        popular(server.client, "all", "socks")
        reader = connected(kind, server.url, clock)
        assert ids(reader) == ["tea"]
        server.kill()
        answer = reader.recommend("ada")
        assert ([item.id for item in answer.items], answer.reason) == (["socks"], "popular")
        server.start()
        assert ids(reader) == ["socks"], "left alone for a moment"
        consent(server.client)  # the job rewrites them: a restarted Redis may be outdated
        clock.set_back(3_600_000)
        clock.pass_ms(PAUSE_AFTER_FAILURE_MS)
        if isinstance(reader, OfAsyncio):
            reader.come_back()
        assert ids(reader) == ["tea"], "and asked again after it"
        ours = [record for record in caplog.records if {"serving", "adapters"} & set(record.name.split("."))]
        told = [record.getMessage() for record in ours]
        assert len(told) == 2, "operators are told once that it is away, and once that it is back"
        reader.close()


def test_redis_never_available_gives_an_empty_popular_answer(kind: Any) -> None:
    reader = kind(RedisAddress(("redis://127.0.0.1:1/0",)), RING)
    assert reader.recommend("ada").items == ()
    reader.close()


def test_redis_user_with_documented_rights_can_read(
    kind: Any, server: RealRedis, store: "redis.Redis[bytes]", clock: Clock
) -> None:
    store.execute_command("ACL", "SETUSER", "shop", "on", ">hush", "~shop:*", *redis_rights("reading lists"))
    reading = connected(kind, server.url.replace("//", "//shop:hush@"), clock)
    store.set(CONSENT, a_proven_consent(store, "shop:"))
    store.set(LIST, a_list("tea"))
    for _ in range(2):
        assert reading.recommend("ada").reason == "personalised"
        store.script_flush()
    assert len(redis_rights("reading lists")) == 5
    reading.close()


def test_list_is_found_under_either_pseudonym_during_rotation(
    kind: Any, server: RealRedis, store: "redis.Redis[bytes]", clock: Clock
) -> None:
    ring = begin_rotation(RING, NOW)
    rotating = connected(kind, server.url, clock, ring)
    current, previous = Pseudonymiser(ring).all("ada")
    for pseudonym, item in ((previous, "old"), (current, "new")):
        keys = user_keys("shop:", pseudonym)
        store.set(keys[1], a_proven_consent(store, "shop:"))
        store.set(keys[0], a_list(item))
        assert [found.id for found in rotating.recommend("ada").items] == [item], "the current one goes first"
    store.delete(user_keys("shop:", current)[1])
    store.set(user_keys("shop:", previous)[1], consent_value(Level.NONE, 0, NOW, 0, 1))
    assert rotating.recommend("ada").reason == "popular"
    rotating.close()
