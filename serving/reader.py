"""Reads recommendation lists: one round trip per user, and always an answer.

The user's own list → the segment's popular list → ``popular:all`` → the last popular list cached in this process.
Consent is checked in Redis, in the same script that reads the list, so no user's data is ever cached here.
:mod:`serving.async_reader` is the same for asyncio.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Self

from adapters.redis.address import RedisAddress
from adapters.redis.client import Keyed, RedisClient
from adapters.redis.greeting import Standing
from adapters.redis.replies import Remedy
from adapters.redis.scripts import READ_LIST
from schemas.catalogue import CatalogueItem
from schemas.errors import StoreMisconfigured, StoreUnavailable
from schemas.lists import History, ListedItem, RecommendationList
from schemas.pseudonyms import KeyRing, Pseudonymiser
from schemas.store import TRENDING, mark_of, popular_key, proof_of, similar_key, user_keys
from serving.answers import (
    PopularLists,
    Recommendation,
    answer,
    decoded,
    filter_of,
    history_in,
    popular_segments,
    segments_of,
    steady_ms,
)

Keys = tuple[str, str, str]
PAUSE_AFTER_FAILURE_MS: Final = 250
"""How long Redis is not contacted after it did not answer, so that callers do not wait for it one after another."""
URL_TIMEOUT_MS: Final = 250
"""The timeout of a reply if `store` is a plain URL."""
logger = logging.getLogger(__name__)


class Reader:
    """Reads the lists under `prefix`. Never raises because of Redis. Thread-safe.

    `store` is the address of Redis. `catalogue` provides the items for filters, such as
    :class:`serving.catalogue.Catalogue`. `on_read` is called with each user whose personal list was read, such as
    :meth:`serving.accesses.AccessLog.note`.
    """

    def __init__(
        self,
        store: RedisAddress | str,
        key_ring: KeyRing,
        prefix: str = "",
        *,
        password: str | None = None,
        catalogue: Mapping[str, CatalogueItem] | None = None,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        steady_ms: Callable[[], int] = steady_ms,
        on_read: Callable[[str], None] | None = None,
    ) -> None:
        address = RedisAddress((store,), timeout_ms=URL_TIMEOUT_MS) if isinstance(store, str) else store
        self._client = RedisClient(address, password, prefix=prefix, reading=True, tenant=mark_of(key_ring))
        self._pseudonyms = Pseudonymiser(key_ring).all
        self._prefix = prefix
        self._catalogue = {} if catalogue is None else catalogue
        self._clock_ms, self._steady_ms = clock_ms, steady_ms
        self._on_read = on_read
        self._popular = PopularLists()
        self._is_away, self._ask_again_at_ms = False, 0
        self._closed_because = ""

    def recommend(
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
        segments = segments_of(surface, segment)
        found = decoded(
            self._read(segments, users=[user_keys(self._prefix, name) for name in self._pseudonyms(user_id)])
        )
        if found is not None and self._on_read is not None:
            self._on_read(user_id)
        return self._answer(found, segments, n, now_ms, filter_of(exclude, category, self._catalogue))

    def recently_viewed(
        self, user_id: str, n: int = 10, *, exclude: Collection[str] = (), category: str | None = None
    ) -> Recommendation:
        """Return up to `n` items that `user_id` has met last, newest first; none without a list of their own."""
        return self._history("viewed", user_id, n, exclude, category)

    def buy_again(
        self, user_id: str, n: int = 10, *, exclude: Collection[str] = (), category: str | None = None
    ) -> Recommendation:
        """Return up to `n` items that `user_id` has bought, newest first; none without a list of their own."""
        return self._history("bought", user_id, n, exclude, category)

    def _history(
        self, of: History, user_id: str, n: int, exclude: Collection[str], category: str | None
    ) -> Recommendation:
        now_ms = self._clock_ms()
        raw = self._read((), users=[user_keys(self._prefix, name) for name in self._pseudonyms(user_id)])
        found = history_in(raw, of, n, now_ms, filter_of(exclude, category, self._catalogue))
        if found.version and self._on_read is not None:
            self._on_read(user_id)
        return found

    def similar(
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
        found = decoded(self._read(segments, item=similar_key(self._prefix, item_id)))
        keep = filter_of({item_id, *exclude}, category, self._catalogue)
        return self._answer(found, segments, n, now_ms, keep)

    def popular(
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
        self._read(segments)
        lists = [one.found for one in self._popular.of_category(segments, category, self._catalogue)]
        return answer(lists, n, now_ms, filter_of(exclude, None, self._catalogue))

    def trending(
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
        segments = TRENDING, *segments_of(surface, segment)
        self._read(segments)
        return self._answer(None, segments, n, now_ms, filter_of(exclude, category, self._catalogue))

    def _answer(
        self,
        found: RecommendationList | None,
        segments: tuple[str, ...],
        n: int,
        now_ms: int,
        keep: Callable[[ListedItem], bool] | None,
    ) -> Recommendation:
        lists = [] if found is None else [found]
        return answer([*lists, *(one.found for one in self._popular.of(segments))], n, now_ms, keep)

    def closed_because(self) -> str:
        """Why the last read could not use personal lists although Redis answered; empty if it could.

        After a restart, a failover or a flush, Redis may be older than acknowledged withdrawals: personal lists
        return when the job has rewritten consents and lists.
        """
        return self._closed_because

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _read(self, segments: tuple[str, ...], users: Sequence[Keys] = (), item: str | None = None) -> bytes | None:
        """Read the list of the user with the keys `users`, or the one under the key `item`.

        The popular lists of `segments` that are outdated are read with it.
        """
        now_ms = self._steady_ms()
        if self._is_away and now_ms < self._ask_again_at_ms:
            return None
        wanted = self._popular.outdated(segments, now_ms)
        if not (users or item or wanted):
            return None
        try:
            raw, popular = self._ask(users, item, wanted)
        except (StoreUnavailable, StoreMisconfigured) as error:
            if not self._is_away:
                logger.warning("Redis cannot be read (%s): serving cached popular lists", error)
            self._is_away, self._ask_again_at_ms = True, now_ms + PAUSE_AFTER_FAILURE_MS
            return None
        if self._is_away:
            self._is_away = False
            logger.warning("Redis can be read again")
        for segment, raw_popular in zip(wanted, popular, strict=True):
            self._popular.put(segment, raw_popular, now_ms)
        return raw

    def _ask(
        self, users: Sequence[Keys], item: str | None, wanted: list[str]
    ) -> tuple[bytes | None, list[bytes | None]]:
        """The list of a user or an item, and the popular lists `wanted`, in one round trip.

        During a key rotation a user has two pseudonyms; the list of the current one takes precedence.
        """
        made_for: list[Standing] = []
        plain = ([] if item is None else [item]) + [popular_key(self._prefix, segment) for segment in wanted]

        def build(standing: Standing) -> list[Keyed]:
            made_for.append(standing)
            proof = None if standing.token is None else proof_of(standing.token)
            commands: list[Keyed] = [(of_one[0], READ_LIST(of_one, proof) if proof else None) for of_one in users]
            return commands + [(key, ("GET", key)) for key in plain]

        answers = self._client.run(build, leave=(Remedy.REPAIR,))
        self._note(made_for[-1].because)
        own = [found[0] for found in answers[: len(users)] if isinstance(found, list)]
        shared = [found if isinstance(found, bytes) else None for found in answers[len(users) :]]
        if item is not None:
            own = [found for found in shared[:1] if found is not None]
        return own[0] if own else None, shared[len(plain) - len(wanted) :]

    def _note(self, because: str) -> None:
        if because != self._closed_because:
            self._closed_because = because
            logger.warning("personal lists are %s", f"not read from Redis: {because}" if because else "read again")
