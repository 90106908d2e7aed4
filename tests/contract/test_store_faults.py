"""Failures of Redis: scripts lost, server gone, server back."""

from pathlib import Path

import pytest

from adapters.redis.address import RedisAddress
from adapters.redis.client import RedisClient
from adapters.redis.store import RedisStore
from schemas.errors import StoreUnavailable
from schemas.lists import encode_list, item_fragment
from schemas.store import ListWrite, WriteOutcome, all_user_keys, user_keys
from tests.support.fakes import TOKEN
from tests.support.redis_server import running_redis
from tests.support.vocabulary import a_consent, an_erasure, value_of
from udfs.operators.patience import Patience

PAYLOAD = encode_list(1, 1, b'"m"', 1, "personalised", [item_fragment("tea")], [0.5])
ADA = a_consent("p1.ada")


def test_lost_scripts_are_reloaded_and_dead_server_is_awaited(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        store = RedisStore(server.store_client(timeout_ms=500), epoch=1, tombstone_ms=60_000)
        write = ListWrite("p1.ada", 1, value_of(ADA), "personalised", 60_000, PAYLOAD, "m")
        assert store.write([ADA], [write], want_popular=False, token=TOKEN).lists == [1]

        server.client.script_flush()
        assert store.write([ADA], [write], want_popular=True, token=TOKEN)[:2] == ([1], [1])
        server.client.script_flush()
        assert store.write_popular("all", 1, 1, 60_000, PAYLOAD) == 1

        server.kill()
        with pytest.raises(StoreUnavailable):
            store.write([], [write], want_popular=False, token=TOKEN)
        with pytest.raises(StoreUnavailable):
            store.forget(["p1.ada"])

        failures: list[int] = []

        def start_it_again() -> None:
            failures.append(1)
            if len(failures) == 2:
                server.start()

        written = Patience(60_000)(lambda: store.write([ADA], [write], want_popular=False, token=TOKEN), start_it_again)
        assert written.lists == [1], "scripts are gone with the server, and loaded again"
        assert len(failures) == 2


@pytest.mark.parametrize("place", range(4))
def test_user_key_of_wrong_type_is_removed_and_written(tmp_path: Path, place: int) -> None:
    repaired: list[int] = []
    with running_redis(tmp_path) as server:
        client = RedisClient(RedisAddress(url=server.url), on_repair=repaired.append)
        store = RedisStore(client, epoch=1, tombstone_ms=60_000)
        server.client.lpush(all_user_keys("", "p1.ada")[place], "not one of ours")
        erased, again = an_erasure("p1.ada", offset=20), a_consent("p1.ada", offset=21)
        write = ListWrite("p1.ada", 1, value_of(again), "personalised", 60_000, PAYLOAD, "m")
        written = store.write([a_consent("p1.ada", offset=19), erased, again], [write], want_popular=False, token=TOKEN)
        assert written[:2] == ([1, 1, 1], [1])
        assert server.client.type(all_user_keys("", "p1.ada")[place]) in (b"string", b"none")
        client.close()
    # SET and DEL accept a key of any type; keys that are read are repaired before.
    assert repaired in ([], [1])


def test_errors_do_not_reveal_written_data() -> None:
    store = RedisStore(RedisClient(RedisAddress(url="redis://127.0.0.1:1")), epoch=1, tombstone_ms=60_000)
    with pytest.raises(StoreUnavailable) as caught:
        store.write([a_consent("p1.secret")], [], want_popular=False, token=TOKEN)
    assert "p1.secret" not in str(caught.value)


def test_full_redis_accepts_withdrawals_and_keeps_lists(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running_redis(tmp_path) as server:
        client = server.store_client()
        store = RedisStore(client, epoch=1, tombstone_ms=60_000)
        users = [a_consent(f"p1.{name}", offset=1) for name in ("ada", "bob")]
        lists = [ListWrite(one.pseudonym, 1, value_of(one), "personalised", 60_000, PAYLOAD, "m") for one in users]
        assert store.write(users, lists, want_popular=False, token=TOKEN).lists == [1, 1]
        server.client.config_set("maxmemory", 1)
        newer = [write._replace(version=2) for write in lists]
        withdrawn = a_consent("p1.ada", "none", offset=2)
        written = store.write([withdrawn], newer[1:], want_popular=True, token=TOKEN)
        assert written[:2] == ([1], [WriteOutcome.NO_ROOM])
        assert server.client.get(user_keys("", "p1.ada")[0]) is None
        assert store.write_popular("all", 1, 1, 60_000, PAYLOAD) == WriteOutcome.NO_ROOM
        made = client.renew_generation(by_force=True)
        assert client.standing().token == made, "a full Redis that has restarted is not closed for good"
        store.write([], newer[1:], want_popular=False, token=TOKEN)
        server.client.config_set("maxmemory", 0)
        assert store.write([], newer[1:], want_popular=False, token=TOKEN).lists == [1]
        told = [record.getMessage() for record in caplog.records]
        assert len(told) == 2 and "maxmemory" in told[0] and "room" in told[1], "told once, not at each element"
