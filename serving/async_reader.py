"""Reads recommendation lists with asyncio: one round trip per user, one shared connection, and always an answer.

    async with AsyncReader(RedisAddress(("redis://…",)), load_key_ring("key-ring.json")) as reader:
        reply = await reader.recommend("ada", 10, surface="home")

:mod:`serving.reader` is the same without asyncio.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, Self

import hiredis

from adapters.redis.address import RedisAddress
from adapters.redis.links import Links, links_to, pack
from adapters.redis.pipe import OnReply, awaited
from adapters.redis.scripts import READ_LIST
from schemas.catalogue import CatalogueItem
from schemas.errors import StoreUnavailable
from schemas.lists import History
from schemas.pseudonyms import KeyRing, Pseudonymiser
from schemas.store import TRENDING, mark_of, popular_key, similar_key, user_keys
from serving.answers import (
    Listed,
    Own,
    PopularLists,
    Recommendation,
    answer,
    at_least_0,
    available,
    decoded,
    filter_of,
    history_in,
    may_withdraw,
    popular_segments,
    segments_of,
    steady_ms,
)

EVERYBODY: Final = segments_of()


class AsyncReader:
    """Reads the lists under `prefix`. Never raises because of Redis. All tasks of one event loop may share it.

    Open it in the loop that uses it. `catalogue` provides the items for filters, such as
    :class:`serving.catalogue.Catalogue`. `on_read` is called with each user whose personal list was read.
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
        steady_ms: Callable[[], int] = steady_ms,
        on_read: Callable[[str], None] | None = None,
    ) -> None:
        self._links: Links = links_to(address, password, prefix, mark_of(key_ring))
        pseudonymiser = Pseudonymiser(key_ring)
        self._pseudonym, self._pseudonyms = pseudonymiser.user, pseudonymiser.all
        self._rotating = key_ring.previous is not None
        self._prefix = prefix
        self._example = pseudonymiser.user("")
        self._proof, self._command = b"", _command(prefix, self._example, b"")
        self._catalogue = {} if catalogue is None else catalogue
        self._clock_ms, self._steady_ms = clock_ms, steady_ms
        self._on_read = on_read
        self._popular = PopularLists()
        self._future: Callable[[], asyncio.Future[Any]] = lambda: asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect. If Redis is unavailable, this returns anyway, and connects when Redis is back."""
        # Asking asyncio for the running loop costs a system call each time (`getpid`).
        self._future = asyncio.get_running_loop().create_future
        await self._links.open()

    async def close(self) -> None:
        """Close the connections."""
        await self._links.close()

    def is_up(self) -> bool:
        """Whether there is a connection to Redis."""
        return self._links.is_up()

    def state(self) -> str:
        """`up`, `closed` (popular lists only, see :meth:`closed_because`) or `away`."""
        return "away" if not self.is_up() else "closed" if self.closed_because() else "up"

    def closed_because(self) -> str:
        """Why personal lists cannot be used although Redis may be up; empty while they can.

        After a restart, a failover or a flush, Redis may be older than acknowledged withdrawals: personal lists
        return when the job has rewritten consents and lists.
        """
        return self._links.closed_because()

    def complaints(self) -> tuple[str, ...]:
        """What is wrong with the configuration of Redis, in sentences that say how to fix it."""
        return self._links.complaints()

    async def recommend(
        self,
        user_id: str,
        n: int = 10,
        surface: str | None = None,
        *,
        segment: str | None = None,
        exclude: Collection[str] = (),
        category: str | None = None,
    ) -> Recommendation:
        """Return up to `n` items for `user_id`; none if `n` is negative.

        `surface`, and `segment` such as ``country:GB``, name the popular lists to fall back to. Filters apply to
        every list; if they leave nothing, the next fallback is used.
        """
        now_ms = self._clock_ms()
        segments = EVERYBODY if surface is None and segment is None else segments_of(surface, segment)
        keep = filter_of(exclude, category, self._catalogue)
        own = await self.own(user_id, segments)
        found = None if own is None else decoded(own[0])
        if found is None:
            return answer([one.found for one in self._popular.of(segments)], n, now_ms, keep)
        if self._on_read is not None:
            self._on_read(user_id)
        if keep is None:
            return Recommendation.of(found, found.items[: at_least_0(n)], now_ms)
        return answer([found, *(one.found for one in self._popular.of(segments))], n, now_ms, keep)

    async def recently_viewed(
        self, user_id: str, n: int = 10, *, exclude: Collection[str] = (), category: str | None = None
    ) -> Recommendation:
        """Return up to `n` items that `user_id` has met last, newest first; none without a list of their own."""
        return await self._history("viewed", user_id, n, exclude, category)

    async def buy_again(
        self, user_id: str, n: int = 10, *, exclude: Collection[str] = (), category: str | None = None
    ) -> Recommendation:
        """Return up to `n` items that `user_id` has bought, newest first; none without a list of their own."""
        return await self._history("bought", user_id, n, exclude, category)

    async def _history(
        self, of: History, user_id: str, n: int, exclude: Collection[str], category: str | None
    ) -> Recommendation:
        now_ms = self._clock_ms()
        own = await self.own(user_id, ())
        keep = filter_of(exclude, category, self._catalogue)
        found = history_in(None if own is None else own[0], of, n, now_ms, keep)
        if found.version and self._on_read is not None:
            self._on_read(user_id)
        return found

    async def similar(
        self,
        item_id: str,
        n: int = 10,
        surface: str | None = None,
        *,
        segment: str | None = None,
        exclude: Collection[str] = (),
        category: str | None = None,
    ) -> Recommendation:
        """Return up to `n` items similar to `item_id`, for anybody; popular ones if none are known.

        Parameters are as for :meth:`recommend`. `item_id` itself is left out.
        """
        now_ms = self._clock_ms()
        segments = segments_of(surface, segment)
        own = await self.similar_list(item_id, segments)
        lists = [*([] if own is None else [own]), *self._popular.of(segments)]
        keep = filter_of({item_id, *exclude}, category, self._catalogue)
        return answer([one.found for one in lists], n, now_ms, keep)

    async def popular(
        self,
        n: int = 10,
        surface: str | None = None,
        *,
        segment: str | None = None,
        category: str | None = None,
        exclude: Collection[str] = (),
    ) -> Recommendation:
        """Return up to `n` popular items, for anybody; of a `category` of the catalogue, if it is given.

        If a category has no list yet, its items are looked for among those that are popular in general; this needs a
        `catalogue`.
        """
        now_ms = self._clock_ms()
        segments = popular_segments(surface, segment, category)
        await self.popular_lists(segments)
        lists = [one.found for one in self._popular.of_category(segments, category, self._catalogue)]
        return answer(lists, n, now_ms, filter_of(exclude, None, self._catalogue))

    async def trending(
        self,
        n: int = 10,
        surface: str | None = None,
        *,
        segment: str | None = None,
        exclude: Collection[str] = (),
        category: str | None = None,
    ) -> Recommendation:
        """Return up to `n` items that rise at the moment; popular ones if none do.

        Parameters are as for :meth:`recommend`.
        """
        now_ms = self._clock_ms()
        lists = await self.popular_lists((TRENDING, *segments_of(surface, segment)))
        keep = filter_of(exclude, category, self._catalogue)
        return answer([one.found for one in lists], n, now_ms, keep)

    async def similar_list(self, item_id: str, segments: Sequence[str]) -> Listed | None:
        """The list of items similar to `item_id`, if there is one that can be read.

        If not, :meth:`cached` has the fallbacks once this returns.
        """
        refreshing = self._refresh(segments)
        asking, key = self._future(), similar_key(self._prefix, item_id)
        self._links.ask(key, pack(("GET", key)), asking.set_result)
        reply = await asking
        raw = reply if isinstance(reply, bytes) else None
        found = decoded(raw)
        if raw is not None and found is not None:
            listed = available(Listed(raw, found), self._catalogue)
            if listed.found.items:
                return listed
        if refreshing:
            await asyncio.wait(refreshing)
        return None

    async def own(self, user_id: str, segments: Sequence[str]) -> Own | None:
        """The user's own list if there is one that may be read.

        If not, :meth:`cached` has the fallbacks once this returns.
        """
        if self._rotating:
            refreshing = self._refresh(segments)
            reply = await self._own_during_rotation(user_id)
        else:
            asking = self._future()
            refreshing = self.request_own(user_id, segments, asking.set_result)
            reply = await asking
        return reply if isinstance(reply, list) else await self._retry_or_wait(reply, user_id, refreshing)

    def can_request_own(self) -> bool:
        """Whether :meth:`request_own` may be used: one read is enough unless a key rotation is in progress."""
        return not self._rotating

    def request_own(self, user_id: str, segments: Sequence[str], on_reply: OnReply) -> "list[asyncio.Future[Any]]":
        """As :meth:`own`, for callers without a task: calls `on_reply` with Redis' reply, or with its error.

        After an error, await :meth:`own`. The returned futures are done once missing or outdated popular lists were
        read.
        """
        refreshing = self._refresh(segments)
        pseudonym = self._pseudonym(user_id)
        pipe = self._links.personal(pseudonym)
        if pipe is None:
            on_reply(None)
        elif pipe.proof is self._proof:
            pipe.ask(self._command(pseudonym), on_reply)
        else:
            self._send_request(pseudonym, on_reply)
        return refreshing

    async def popular_lists(self, segments: Sequence[str]) -> list[Listed]:
        """The popular lists of `segments`, in their order."""
        refreshing = self._refresh(segments)
        if refreshing:
            await asyncio.wait(refreshing)
        return self.cached(segments)

    def cached(self, segments: Sequence[str]) -> list[Listed]:
        """The cached popular lists of `segments`, without reading from Redis; no withdrawn items are in them."""
        found = self._popular.of(segments)
        if not may_withdraw(self._catalogue):
            return found
        shown = [available(listed, self._catalogue) for listed in found]
        return [listed for listed in shown if listed.found.items]

    def all_cached(self) -> dict[str, Listed]:
        """All cached popular lists, by segment, without withdrawn items."""
        return {name: available(listed, self._catalogue) for name, listed in self._popular.all().items()}

    def _refresh(self, segments: Sequence[str]) -> "list[asyncio.Future[Any]]":
        """Read missing or outdated popular lists; callers with a cached list need not wait for the returned futures."""
        now_ms = self._steady_ms()
        wanted = self._popular.outdated(segments, now_ms)
        return [self._ask_popular(name, now_ms) for name in wanted] if wanted else []

    def _ask_popular(self, segment: str, now_ms: int) -> "asyncio.Future[Any]":
        """Read a popular list; the future is done when it is cached, or cannot be read."""
        done = self._future()

        def put(reply: Any) -> None:
            if not isinstance(reply, Exception):
                self._popular.put(segment, reply, now_ms)
            done.set_result(None)

        self._popular.mark_requested(segment, now_ms)
        key = popular_key(self._prefix, segment)
        self._links.ask(key, pack(("GET", key)), put)
        return done

    async def _retry_or_wait(self, reply: Any, user_id: str, refreshing: "list[asyncio.Future[Any]]") -> Own | None:
        """What to do if the first reply is not a list."""
        own = await self._retry(reply, self._pseudonym(user_id)) if isinstance(reply, Exception) else None
        if own is None and refreshing:
            await asyncio.wait(refreshing)
        return own

    def _request_own(self, pseudonym: str) -> "asyncio.Future[Any]":
        """Redis' reply, or its error, for one pseudonym."""
        future = self._future()
        self._send_request(pseudonym, future.set_result)
        return future

    def _send_request(self, pseudonym: str, on_reply: OnReply) -> None:
        """Read a user's own list on a connection whose Redis is known to be up to date."""
        pipe = self._links.personal(pseudonym)
        if pipe is None:
            on_reply(None)
            return
        if pipe.proof is not self._proof:
            self._proof, self._command = pipe.proof, _command(self._prefix, self._example, pipe.proof)
        pipe.ask(self._command(pseudonym), on_reply)

    async def _own_during_rotation(self, user_id: str) -> Own | None:
        """During a key rotation a user has two pseudonyms; the list of the current one takes precedence."""
        for name, asking in [(name, self._request_own(name)) for name in self._pseudonyms(user_id)]:
            reply = await asking
            own = await self._retry(reply, name) if isinstance(reply, Exception) else reply
            if own is not None:
                return own
        return None

    async def _retry(self, error: Exception, pseudonym: str) -> Own | None:
        """Retry once: after a restart of Redis, send the script; after a slot has moved, look it up."""
        if not isinstance(error, hiredis.ReplyError) or not str(error).startswith(("NOSCRIPT", "MOVED")):
            return None
        keys = user_keys(self._prefix, pseudonym)
        if (pipe := self._links.personal(keys[0])) is None:
            return None
        try:
            own: Own | None = await awaited(pipe.ask, pack(("EVAL", READ_LIST.text, 3, *keys, pipe.proof)))
        except (StoreUnavailable, hiredis.ReplyError):
            return None
        return own


def _command(prefix: str, example: str, proof: bytes) -> Callable[[str], bytes]:
    """The packed read command as a function of the pseudonym: packed once, and filled in.

    Pseudonyms of one key have the same length; others are packed individually.
    """
    marked = pack(("EVALSHA", READ_LIST.sha, 3, *user_keys(prefix, "\0" * len(example)), proof))
    template = marked.replace(b"%", b"%%").replace(b"\0" * len(example), b"%b")

    def command(pseudonym: str) -> bytes:
        if len(pseudonym) != len(example):
            return pack(("EVALSHA", READ_LIST.sha, 3, *user_keys(prefix, pseudonym), proof))
        name = pseudonym.encode()
        return template % (name, name, name)

    return command
