"""The list store of the benchmark's job without consent, on Redis: no fence, but the same version order."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.redis.store import RedisStore
from bench.ablation import UncheckedStore
from schemas.lists import encode_list, item_fragment
from schemas.store import ListWrite, WriteOutcome, user_keys
from tests.support.fakes import TOKEN
from tests.support.redis_server import RealRedis, running_redis
from tests.support.vocabulary import a_consent, an_erasure

EPOCH, TOMBSTONE, TTL = 1_000, 600_000, 60_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRedis]:
    directory: Path = tmp_path_factory.mktemp("redis")
    with running_redis(directory) as running:
        yield running


def store_of(server: RealRedis, kind: type[RedisStore]) -> Any:
    return kind(server.store_client("t."), EPOCH, TOMBSTONE)


def a_list(user: str, version: int) -> ListWrite:
    payload = encode_list(version, EPOCH, b'"m"', 5, "personalised", [item_fragment("tea")], [1.0])
    return ListWrite(user, version, b"", "personalised", TTL, payload, "m")


def test_ablation_writes_lists_the_product_refuses_without_consent_or_after_erasure(server: RealRedis) -> None:
    product, ablation = store_of(server, RedisStore), store_of(server, UncheckedStore)
    product.write([an_erasure("bob")], [], want_popular=False, token=TOKEN)
    lists = [a_list("ada", 3), a_list("bob", 3)]
    assert product.write([], lists, False, TOKEN).lists == [WriteOutcome.NO_CONSENT, WriteOutcome.GONE]
    assert ablation.write([], lists, False, TOKEN).lists == [WriteOutcome.WRITTEN, WriteOutcome.WRITTEN]
    for write in lists:
        key = user_keys("t.", write.pseudonym)[0]
        assert server.client.get(key) == write.payload
        assert 0 < server.client.pttl(key) <= TTL


def test_ablation_refuses_older_lists(server: RealRedis) -> None:
    ablation = store_of(server, UncheckedStore)
    outcomes = [ablation.write([], [a_list("cyd", version)], False, TOKEN).lists[0] for version in (3, 2, 3, 4)]
    assert outcomes == [WriteOutcome.WRITTEN, WriteOutcome.STALE, WriteOutcome.WRITTEN, WriteOutcome.WRITTEN]


def test_ablation_reports_consents_in_force_without_writing_them(server: RealRedis) -> None:
    ablation = store_of(server, UncheckedStore)
    [outcome] = ablation.write([a_consent("dan")], [], False, TOKEN).consents
    assert outcome.name == "IN_FORCE"
    assert server.client.exists(*user_keys("t.", "dan")) == 0
