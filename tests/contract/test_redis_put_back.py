"""Keys that are dumped and restored into the running server: no reader trusts the old decisions.

The process does not change, nor does the generation record, which was copied with the rest.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.redis.address import RedisAddress
from adapters.redis.greeting import wholesale_resets
from adapters.secrets.key_rings import new_key_ring
from schemas.lists import encode_list, item_fragment
from schemas.pseudonyms import Pseudonymiser
from schemas.store import generation_key, user_keys
from tests.contract.test_reader import KINDS
from tests.support.generations import a_proven_consent, generation
from tests.support.live import until
from tests.support.redis_server import RealRedis, running_redis

pytestmark = pytest.mark.privacy
RING = new_key_ring()
LIST, CONSENT, _ = user_keys("", Pseudonymiser(RING).user("ada"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RealRedis]:
    with running_redis(tmp_path) as running:
        yield running


def copied(redis: Any) -> dict[bytes, bytes]:
    return {key: redis.dump(key) for key in redis.scan_iter()}


def flushed_and_put_back(redis: Any, copy: dict[bytes, bytes]) -> None:
    redis.flushall()
    for key, value in copy.items():
        redis.restore(key, 0, value)


def put_back_over_what_is_there(redis: Any, copy: dict[bytes, bytes]) -> None:
    for key, value in copy.items():
        redis.restore(key, 0, value, replace=True)


def exchanged(redis: Any, copy: dict[bytes, bytes]) -> None:
    """Swaps in a copy from another database."""
    put_back_over_what_is_there(redis, copy)
    redis.swapdb(0, 1)
    redis.swapdb(0, 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("back", [flushed_and_put_back, put_back_over_what_is_there, exchanged])
@pytest.mark.promise("redis-forgets")
def test_list_restored_into_running_redis_is_not_trusted(
    server: RealRedis, kind: Any, back: Callable[[Any, dict[bytes, bytes]], None]
) -> None:
    redis = server.client
    redis.set(CONSENT, a_proven_consent(redis, ""))
    redis.set(LIST, encode_list(1, 1, b'"m"', 1, "personalised", [item_fragment("tea")], [1.0]))
    before = redis.get(generation_key(""))
    reader = kind(RedisAddress((server.url,), timeout_ms=2_000), RING)
    try:
        until(lambda: reader.recommend("ada").reason == "personalised", "her list")
        copy = copied(redis)
        redis.delete(LIST, CONSENT)  # she withdraws
        back(redis, copy)
        assert redis.get(generation_key("")) == before and redis.exists(LIST, CONSENT) == 2
        until(lambda: reader.recommend("ada").reason != "personalised", "the reader to see it")
        token = generation(redis, "")
        assert token.encode() not in before, "the job begins a new generation"
        assert reader.recommend("ada").reason != "personalised", "in which her old consent does not count"
    finally:
        reader.close()


def test_only_restoring_commands_change_the_life() -> None:
    assert wholesale_resets({"cmdstat_set": "calls=7,usec=1", "cmdstat_restore-asking": "calls=3", "uptime": "9"}) == 0
    assert (
        wholesale_resets({"cmdstat_flushdb": "calls=1,usec=1", "cmdstat_restore": "calls=2", "cmdstat_swapdb": "odd"})
        == 3
    )
