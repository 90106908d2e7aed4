"""Clients of redis-py for the parts that do without asyncio."""

import threading
from collections.abc import Callable
from typing import Any, Final

import redis
import redis.sentinel
from redis.backoff import NoBackoff
from redis.retry import Retry

from adapters.redis.address import READ_TIMEOUT_MS, Place, RedisAddress, parse, tls_context

TIMEOUT_MS: Final = 250
"""Of those who give a plain URL."""


AWAY: Final = (redis.RedisError, redis.exceptions.RedisClusterException)
"""What clients raise where Redis does not answer as it should."""


class LazyCluster:
    """A client of a Cluster that is made when it is first asked for something: the Cluster may be away until then."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._made: Any = None
        self._making = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        with self._making:
            if self._made is None:
                self._made = self._make()
        return getattr(self._made, name)

    def close(self) -> None:
        """Close the connections."""
        if self._made is not None:
            self._made.close()


def client_of(
    store: "RedisAddress | str | redis.Redis[bytes] | redis.RedisCluster", password: str | None = None
) -> Any:
    """A client for `store`, which may be one already."""
    if isinstance(store, str):
        store = RedisAddress((store,), timeout_ms=TIMEOUT_MS)
    return _client(store, password) if isinstance(store, RedisAddress) else store


def _client(address: RedisAddress, password: str | None) -> Any:
    """One retry, for a pooled connection that Redis closed in the meantime; none after a timeout."""
    places = [parse(url) for url in address.urls]
    first = places[0]
    timeouts = {
        "socket_timeout": address.timeout_s(READ_TIMEOUT_MS),
        "socket_connect_timeout": address.connect_timeout_ms / 1000,
    }
    tls = _tls(address, any(place.tls for place in places))
    if address.kind == "sentinel":
        of_sentinels = {**timeouts, **tls, "username": first.username, "password": first.password}
        sentinels = redis.sentinel.Sentinel(
            [(place.host, place.port) for place in places], sentinel_kwargs=of_sentinels
        )
        options = {**timeouts, **tls, "username": address.username, "password": password, "db": first.database}
        return sentinels.master_for(str(address.service), **options, retry=_retry(), retry_on_error=[])
    options = {**timeouts, **tls, **_login(address, first, password)}
    if address.kind == "cluster":
        nodes = [redis.cluster.ClusterNode(place.host, place.port) for place in places]
        return LazyCluster(lambda: redis.RedisCluster(startup_nodes=nodes, cluster_error_retry_attempts=1, **options))
    return redis.Redis(
        first.host,
        first.port,
        first.database,
        **options,
        retry=_retry(),
        retry_on_error=[],
    )


def _login(address: RedisAddress, place: Place, password: str | None) -> dict[str, Any]:
    return {"username": address.username or place.username, "password": password or place.password}


def _retry() -> Retry:
    return Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))


def _tls(address: RedisAddress, tls: bool) -> dict[str, Any]:
    if not tls:
        return {}
    tls_context(address, tls)  # says what is wrong with the files before anybody connects
    files = {"ssl_ca_certs": address.ca_file, "ssl_certfile": address.cert_file, "ssl_keyfile": address.key_file}
    return {"ssl": True, **{name: path for name, path in files.items() if path}}
