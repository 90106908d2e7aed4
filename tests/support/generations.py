"""Plays the job where a test has none: it marks Redis as up to date, and names the generation for consents."""

from typing import Any

from adapters.redis.address import RedisAddress
from adapters.redis.client import RedisClient
from schemas.consents import Level
from schemas.store import consent_value, proven


def client_for(store: Any, prefix: str) -> RedisClient:
    """Our client for `store`: a redis-py client, an address, or already one of our clients."""
    if isinstance(store, RedisClient):
        return store
    if isinstance(store, RedisAddress):
        return RedisClient(store, prefix=prefix)
    options = store.connection_pool.connection_kwargs
    return RedisClient(RedisAddress((f"redis://{options['host']}:{options['port']}/{options['db']}",)), prefix=prefix)


def generation(store: Any, prefix: str) -> str:
    """The current token for `store`; creates one if there is none."""
    client = client_for(store, prefix)
    try:
        return client.renew_generation()
    finally:
        if client is not store:
            client.close()


def empty(store: Any) -> None:
    """Delete everything but the generation records: a flush would close the server until they are renewed."""
    keys = [key for key in store.scan_iter(count=10_000) if not key.endswith(b"generation")]
    if keys:
        store.delete(*keys)


def a_proven_consent(store: Any, prefix: str, level: Level = Level.FULL, place: int = 1) -> bytes:
    """A consent that is trusted now."""
    return proven(consent_value(level, 0, 1, 0, place), generation(store, prefix))
