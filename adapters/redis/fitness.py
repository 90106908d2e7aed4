"""Checks whether a Redis server is fit for use: it must not evict keys, and its user needs enough rights."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from adapters.redis.client import RedisClient, always
from adapters.redis.greeting import Command, info_of
from adapters.redis.scripts import TRY_RIGHTS
from schemas.errors import StoreMisconfigured

LOOKS: Final[tuple[Command, ...]] = (("INFO", "memory"), ("INFO", "persistence"))


class Fitness(NamedTuple):
    """Problems of a Redis server: `wrong` breaks promises, `weak` makes recovery slow.

    Sentences that say how to fix them.
    """

    wrong: tuple[str, ...]
    weak: tuple[str, ...]


def fitness_of(memory: bytes, persistence: bytes) -> Fitness:
    """Evaluate the replies to :data:`LOOKS`."""
    return evaluate(info_of(memory) | info_of(persistence))


def evaluate(info: Mapping[str, str]) -> Fitness:
    """Evaluate the fields of INFO.

    >>> evaluate({"maxmemory_policy": "noeviction", "aof_enabled": "1"})
    Fitness(wrong=(), weak=())
    """
    wrong, weak = [], []
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        wrong.append(
            f"Redis evicts keys when its memory is full (maxmemory-policy {policy}), and withdrawals are keys: "
            "set maxmemory-policy noeviction"
        )
    if info.get("aof_enabled", "1") != "1":
        weak.append(
            "Redis has no append-only file (appendonly no): after a restart no user has a personal list until the job "
            "has written all of them again; set appendonly yes"
        )
    return Fitness(tuple(wrong), tuple(weak))


def fitness(client: RedisClient) -> Fitness:
    """The combined fitness of all primaries. Raises as :class:`RedisClient` does."""
    found = [fitness_of(*answers) for answers in client.ask_each(*LOOKS)]
    wrong, weak = (tuple(dict.fromkeys(line for one in found for line in one[part])) for part in (0, 1))
    return Fitness(wrong, weak)


def check_rights(client: RedisClient) -> None:
    """Try the job's commands on keys of our own that hold nothing.

    Raises :class:`StoreMisconfigured`, which names the commands that the user lacks, and :class:`StoreUnavailable`.
    """
    keys = [f"{client.prefix}{{freshet-check}}:{name}" for name in ("one", "other")]
    [refused] = client.run(always([(keys[0], TRY_RIGHTS(keys))]))
    if refused:
        names = " ".join(f"+{name.decode()}" for name in refused)
        raise StoreMisconfigured(f"Redis refuses (NOPERM, keys {client.prefix}*): its user needs {names}")
    asked: list[Command] = [("MGET", *keys), ("PTTL", keys[0]), ("GET", keys[0]), ("DEL", *keys)]
    client.run(always([(keys[0], command) for command in asked]), durable=True)
