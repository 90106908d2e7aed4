"""Cache headers (RFC 9111, 5861, 9213), and purge requests when a popular list has changed.

A personalised answer is private: a private cache may keep it but must revalidate it each time (`no-cache`), so that a
withdrawal also takes effect there. A popular list is not personal: shared caches may keep it, and serve it stale while
the gateway is down.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from urllib.parse import quote

from adapters.http_client import HttpClient
from schemas.errors import HttpUnanswered
from serving.answers import Listed
from serving.gateway.gateway_settings import CacheSettings
from serving.gateway.tenants import Tenant

PURGE_EVERY_S = 1.0
PURGE_TIMEOUT_S = 2.0
logger = logging.getLogger("freshet.gateway")


def surrogate_key(tenant: str, segment: str) -> str:
    """The surrogate key of a popular list, in characters allowed in a header.

    >>> surrogate_key("default", "country:GB"), surrogate_key("default", "surface:a b")
    ('popular/default/country:GB', 'popular/default/surface:a%20b')
    """
    return f"popular/{quote(tenant, safe='')}/{quote(segment, safe=':')}"


def shared_headers(
    settings: CacheSettings, tenant: str, segments: Sequence[str], tag: bytes, shared: bool
) -> dict[str, str]:
    """The headers of a list that is nobody's own; unless it is `shared`, every cache must revalidate it.

    `segments` are those whose popular lists the answer depends on: it is purged when one of them changes.
    """
    stale = f"stale-while-revalidate={settings.stale_while_revalidate_s}, stale-if-error={settings.stale_if_error_s}"
    fresh = f"public, max-age={settings.fresh_s}, {stale}"
    headers = {"etag": tag.decode(), "cache-control": fresh if shared else "private, no-cache"}
    if shared:
        headers["cdn-cache-control"] = fresh
        if segments:
            headers["surrogate-key"] = " ".join(surrogate_key(tenant, segment) for segment in segments)
    return headers


class Purger:
    """Notifies `purge_url` of changed surrogate keys: those whose lists have other items than a second ago."""

    def __init__(self, settings: CacheSettings, tenants: Mapping[str, Tenant]) -> None:
        url = settings.purge_url
        self._cache = None if url is None else HttpClient(url, PURGE_TIMEOUT_S)
        self._tenants = tenants
        self._known: dict[str, tuple[str, ...]] = {}

    async def run(self) -> None:
        """Check every second until cancelled; returns at once if there is no URL to notify."""
        while self._cache is not None:
            await asyncio.sleep(PURGE_EVERY_S)
            for tenant in self._tenants.values():  # behind a cache, no other request refreshes them
                await tenant.reader.popular_lists(list(tenant.reader.all_cached()))
            if changed := self.changed():
                await asyncio.to_thread(self._purge, self._cache, changed)

    def changed(self) -> list[str]:
        """The surrogate keys of popular lists whose items changed since the last call."""
        found = {
            surrogate_key(name, segment): _items(listed)
            for name, tenant in self._tenants.items()
            for segment, listed in tenant.reader.all_cached().items()
        }
        known, self._known = self._known, found
        return sorted(key for key, items in found.items() if key in known and known[key] != items)

    def _purge(self, cache: HttpClient, keys: list[str]) -> None:
        try:
            status = cache.ask("POST", body=b"", headers={"Surrogate-Key": " ".join(keys)}).status
            why = f"status {status}" if status >= HTTPStatus.MULTIPLE_CHOICES else ""
        except HttpUnanswered as error:
            why = str(error)
        if why:
            logger.warning("a cache could not be purged (%s): it may serve old popular lists until they expire", why)


def _items(listed: Listed) -> tuple[str, ...]:
    return tuple(item.id for item in listed.found.items)
