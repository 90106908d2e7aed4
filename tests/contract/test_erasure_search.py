"""The search for a user in a real Redis finds all keys of its prefix only, with the documented rights."""

from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

import msgspec
import pytest

from adapters.redis.address import RedisSettings
from privacy.erasure_search import in_redis
from privacy.retention import DEFAULTS
from schemas.errors import StoreMisconfigured
from schemas.store import user_keys
from tests.support.documented import redis_rights
from tests.support.redis_server import RealRedis, running_redis

PREFIX = "a*[b]?."


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRedis]:
    with running_redis(tmp_path_factory.mktemp("redis")) as running:
        yield running


def searched(url: str, *names: str) -> Counter[str]:
    return in_redis(msgspec.structs.replace(DEFAULTS, redis=RedisSettings((url,), prefix=PREFIX)), names)


def test_search_finds_every_place_of_one_user_only(server: RealRedis) -> None:
    listed, consent, gone = user_keys(PREFIX, "p1.ada")
    server.client.mset({listed: b"{}", consent: b"{}", gone: b"{}", f"{PREFIX}popular:all": b"[p1.ada]"})
    server.client.mset({f"{PREFIX}{{p1.bob}}:list": b"{}", "axbx.{p1.ada}:list": b"another prefix"})
    server.client.rpush(f"{PREFIX}not-text", b"anything")
    server.client.mset({f"{PREFIX}{number}": b"" for number in range(3_000)})
    expected = {"redis.list": 1, "redis.consent": 1, "redis.gone": 1, "redis.elsewhere": 1}
    assert searched(server.url, "p1.ada") == expected
    assert searched(server.url, "p1.nobody") == {}


def test_redis_user_with_documented_rights_can_search_and_others_get_an_error(server: RealRedis) -> None:
    rights = redis_rights("`freshet erase verify`")
    assert rights[0] == "+scan" and len(rights) == 3
    for user, allowed in (("officer", rights), ("stranger", rights[1:])):
        server.client.execute_command("ACL", "SETUSER", user, "on", ">hush", f"~{_literal(PREFIX)}*", *allowed)
    server.client.set(user_keys(PREFIX, "p1.cyd")[0], b"{}")
    place = urlsplit(server.url).netloc
    assert searched(f"redis://officer:hush@{place}", "p1.cyd") == {"redis.list": 1}
    with pytest.raises(StoreMisconfigured, match="NOPERM"):
        searched(f"redis://stranger:hush@{place}", "p1.cyd")


def _literal(prefix: str) -> str:
    return "".join(f"\\{c}" if c in "*[]?" else c for c in prefix)
