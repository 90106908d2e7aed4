"""Reads recommendation lists from asyncio: one round trip for a user, one connection for all, and always an answer.

    async with AsyncReader(RedisAddress(("redis://…",)), load_key_ring("key-ring.json")) as reader:
        answer = await reader.recommend("ada", 10, surface="home")

:mod:`serving.reader` is the same without asyncio.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, Self

import hiredis

from schemas.catalogue import CatalogueItem
from schemas.errors import StoreUnavailable
from schemas.lists import RecommendationList
from schemas.pseudonyms import KeyRing, Pseudonymiser
from schemas.store import READ_LIST, popular_key, user_keys
from serving.answers import Filter, Listed, Own, PopularLists, Recommendation, answer, decoded, segments_of
from serving.links import Links, links_to, pack
from serving.redis_address import RedisAddress

_SHA: Final = hashlib.sha1(READ_LIST.encode(), usedforsecurity=False).hexdigest()


class AsyncReader:
    """Reads the lists under `prefix`. Never raises because of Redis; any number of tasks of one loop share it.

    Open it in the loop that uses it. `catalogue` is what filters know of items, such as
    :class:`serving.catalogue.Catalogue`. `on_read` is told of whose own list was read.
    """

    def __init__(
        self,
        address: RedisAddress,
        key_ring: KeyRing,
        prefix: str = "",
        *,
        password: str | None = None,
        catalogue: Mapping[str, CatalogueItem] | None = None,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        on_read: Callable[[str], None] | None = None,
    ) -> None:
        self._links: Links = links_to(address, password)
        self._pseudonyms = Pseudonymiser(key_ring).all
        self._prefix = prefix
        self._catalogue = {} if catalogue is None else catalogue
        self._clock_ms = clock_ms
        self._on_read = on_read
        self._popular = PopularLists()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect. Where Redis is away this returns all the same, and connects when it is back."""
        await self._links.open()

    async def close(self) -> None:
        """Close the connections."""
        await self._links.close()

    def is_up(self) -> bool:
        """Whether there is a connection to Redis."""
        return self._links.is_up()

    async def recommend(
        self,
        user_id: str,
        n: int = 10,
        surface: str | None = None,
        *,
        segment: str | None = None,
        exclude: Collection[str] = (),
        in_stock: bool = False,
        category: str | None = None,
    ) -> Recommendation:
        """Up to `n` items for `user_id`.

        `surface`, and `segment` such as ``country:GB``, say which popular lists may stand in. Filters take items out
        of whatever list is answered; where they leave nothing of one, the next one is answered.
        """
        now_ms = self._clock_ms()
        own, popular = await self.lists(user_id, segments_of(surface, segment), now_ms)
        found = decoded(own.raw) if own is not None else None
        lists: list[RecommendationList] = [] if found is None else [found]
        lists += [one.found for one in popular]
        keep = Filter(exclude, in_stock, category, self._catalogue) if exclude or in_stock or category else None
        if found is not None and self._on_read is not None:
            self._on_read(user_id)
        return answer(lists, n, now_ms, keep)

    async def lists(self, user_id: str, segments: Sequence[str], now_ms: int) -> tuple[Own | None, list[Listed]]:
        """The user's own list if there is one that may be read, and the popular lists that may stand in for it."""
        popular = self._popular
        asked = [self._ask_popular(name, now_ms) for name in popular.to_ask(segments, now_ms)]
        own = await self._own(user_id)
        if own is None and asked:
            await asyncio.wait(asked)
        return own, popular.of(segments)

    async def popular(self, segments: Sequence[str], now_ms: int) -> list[Listed]:
        """What is popular in `segments`, in their order."""
        asked = [self._ask_popular(name, now_ms) for name in self._popular.to_ask(segments, now_ms)]
        if asked:
            await asyncio.wait(asked)
        return self._popular.of(segments)

    def held(self, segments: Sequence[str]) -> list[Listed]:
        """What is held of `segments` here, without asking anybody."""
        return self._popular.of(segments)

    def all_held(self) -> dict[str, Listed]:
        """Every popular list that is held here, by segment."""
        return self._popular.all()

    def _ask_popular(self, segment: str, now_ms: int) -> "asyncio.Future[Any]":
        """Ask for a popular list, to be held when it comes; whoever has one already need not wait for that."""
        self._popular.asked(segment, now_ms)
        key = popular_key(self._prefix, segment)
        asked = self._links.ask(key, pack(("GET", key)))
        asked.add_done_callback(lambda done: self._hold_popular(segment, done, now_ms))
        return asked

    def _hold_popular(self, segment: str, asked: "asyncio.Future[Any]", now_ms: int) -> None:
        if not asked.cancelled() and asked.exception() is None:
            self._popular.hold(segment, asked.result(), now_ms)

    async def _own(self, user_id: str) -> Own | None:
        """While a rotation is under way a user has two pseudonyms; the list under the current one goes first."""
        names = self._pseudonyms(user_id)
        if len(names) == 1:
            return await self._answered(names[0], self._ask_own("EVALSHA", _SHA, names[0]))
        asked = [self._answered(name, self._ask_own("EVALSHA", _SHA, name)) for name in names]
        found = [own for own in await asyncio.gather(*asked) if own is not None]
        return found[0] if found else None

    async def _answered(self, pseudonym: str, asked: "asyncio.Future[Any]") -> Own | None:
        try:
            found = await asked
        except StoreUnavailable:
            return None
        except hiredis.ReplyError as error:
            found = await self._again(error, pseudonym)
        return None if found is None else Own(*found)

    def _ask_own(self, command: str, script: str, pseudonym: str) -> "asyncio.Future[Any]":
        keys = user_keys(self._prefix, pseudonym)
        return self._links.ask(keys[0], pack((command, script, 3, *keys)))

    async def _again(self, error: hiredis.ReplyError, pseudonym: str) -> list[bytes] | None:
        """The first call after Redis was started sends the script; a slot that moved is looked for once more."""
        if not str(error).startswith(("NOSCRIPT", "MOVED")):
            return None
        try:
            found: list[bytes] | None = await self._ask_own("EVAL", READ_LIST, pseudonym)
        except (StoreUnavailable, hiredis.ReplyError):
            return None
        return found
