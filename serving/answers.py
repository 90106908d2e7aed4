"""The rules of a reader's answer: fallbacks, filters, and the cache of popular lists.

The user's own list → the segment's popular list → ``popular:all`` → nothing. Pure: time is an argument.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

import msgspec

from schemas.catalogue import CatalogueItem
from schemas.lists import (
    History,
    ListedItem,
    Reason,
    RecommendationList,
    decode_list,
    decode_user_list,
    without_history,
)
from schemas.store import ALL, TRENDING, category_segment

POPULAR_FRESH_MS: Final = 1_000
"""How long a popular list is cached before it is read again: the job writes them every second."""
SEGMENTS_CACHED_MAX: Final = 1_000
EMPTY_LIST: Final = b'{"v":0,"epoch":0,"model":"","at":0,"reason":"popular","items":[]}'
"""The list of a user without any list, in the format of Redis."""
_NEXT_ITEM: Final = b'},{"id":'


class Recommendation(msgspec.Struct, frozen=True, gc=False):
    """The answer to a read: at most as many items as requested, best first.

    `reason` is the kind of list. `version` is the list's, `age_ms` the time since it was made; both are 0 if there is
    no list. Send `recommendation_id` back as `request_id` of impressions, clicks and purchases. `model` made the list;
    `arm` is the user's in an experiment, "" for none.
    """

    items: tuple[ListedItem, ...]
    reason: Reason
    version: int
    age_ms: int
    recommendation_id: str = ""
    model: str = ""
    arm: str = ""

    @classmethod
    def of(cls, one: RecommendationList, items: tuple[ListedItem, ...], now_ms: int) -> "Recommendation":
        """`items`, which are of a list."""
        return cls(items, one.reason, one.v, max(0, now_ms - one.at), one.recommendation_id, one.model, one.arm)


class Listed(NamedTuple):
    """A list as bytes and decoded; `shortened` if it is not as stored in Redis, because items were withdrawn."""

    raw: bytes
    found: RecommendationList
    shortened: bool = False


Own: TypeAlias = list[bytes]
"""A user's own list as stored in Redis, and the consent that allows it, as the read script returns them."""


class Filter(msgspec.Struct, frozen=True):
    """Which items of a list may be shown. An item missing from the catalogue counts as available."""

    exclude: Collection[str] = ()
    category: str | None = None
    catalogue: Mapping[str, CatalogueItem] = {}

    def __call__(self, item: ListedItem) -> bool:
        """Whether `item` may be shown."""
        if item.id in self.exclude:
            return False
        known = self.catalogue.get(item.id)
        if self.category is not None and (known is None or known.category != self.category):
            return False
        return known is None or known.available


def filter_of(exclude: Collection[str], category: str | None, catalogue: Mapping[str, CatalogueItem]) -> Filter | None:
    """The filter of a request; None if all items may be shown."""
    if not exclude and category is None and not may_withdraw(catalogue):
        return None
    return Filter(exclude, category, catalogue)


def may_withdraw(catalogue: Mapping[str, CatalogueItem]) -> bool:
    """Whether any item of `catalogue` may be unavailable: a follower of the topic knows, other mappings are asked."""
    withdrawn: Collection[str] | None = getattr(catalogue, "withdrawn", None)
    return bool(catalogue if withdrawn is None else withdrawn)


def available(listed: Listed, catalogue: Mapping[str, CatalogueItem]) -> Listed:
    """`listed` without items that `catalogue` says are not available."""
    if not may_withdraw(catalogue):
        return listed
    keep = Filter(catalogue=catalogue)
    items = tuple(filter(keep, listed.found.items))
    if len(items) == len(listed.found.items):
        return listed
    found = msgspec.structs.replace(listed.found, items=items)
    return Listed(msgspec.json.encode(found), found, shortened=True)


def segments_of(surface: str | None = None, segment: str | None = None) -> tuple[str, ...]:
    """The segments whose popular lists serve as fallbacks, in this order.

    >>> segments_of("home", "country:GB"), segments_of()
    (('country:GB', 'surface:home', 'all'), ('all',))
    """
    of_surface = None if surface is None else f"surface:{surface}"
    return tuple(name for name in (segment, of_surface, ALL) if name is not None)


def answer(
    lists: Iterable[RecommendationList], n: int, now_ms: int, keep: Callable[[ListedItem], bool] | None = None
) -> Recommendation:
    """The first of `lists` that has any items to show, cut to `n` items."""
    n = at_least_0(n)
    for one in lists:
        items = one.items[:n] if keep is None else tuple(filter(keep, one.items))[:n]
        if items or not n:
            return Recommendation.of(one, items, now_ms)
    return Recommendation((), "popular", 0, 0)


def popular_segments(
    surface: str | None = None, segment: str | None = None, category: str | None = None
) -> tuple[str, ...]:
    """The segments whose popular lists answer what is popular, of a category or at all.

    >>> popular_segments(category="tea"), popular_segments()
    (('category:tea', 'all'), ('all',))
    """
    segments = segments_of(surface, segment)
    return segments if category is None else (category_segment(category), *segments)


def of_category(listed: Listed, category: str, catalogue: Mapping[str, CatalogueItem]) -> Listed:
    """The items of a popular list that are of a category: all, if it is the category's own list."""
    in_category = Filter(category=category, catalogue=catalogue)
    found = msgspec.structs.replace(listed.found, items=tuple(filter(in_category, listed.found.items)))
    return Listed(msgspec.json.encode(found), found, shortened=True)


def for_cart(lists: Sequence[RecommendationList], items: Collection[str], n: int) -> RecommendationList | None:
    """Up to `n` items that are similar to several of `items`, none of these; None if there are none.

    `lists` are those of items similar to each; an item's score is the sum of its scores.
    """
    scores: dict[str, float] = {}
    for one in lists:
        for item in one.items:
            if item.id not in items:
                scores[item.id] = scores.get(item.id, 0.0) + item.score
    if not scores:
        return None
    best = sorted(scores, key=lambda item: (-scores[item], item))[:n]
    newest = max(lists, key=lambda one: (one.epoch, one.v))
    return msgspec.structs.replace(newest, items=tuple(ListedItem(item, round(scores[item], 4)) for item in best))


def at_least_0(n: int) -> int:
    """Treat a negative `n` as 0; a slice would return all but some."""
    return max(n, 0)


def cut(raw: bytes, n: int) -> bytes:
    """Cut a stored list to its first `n` items, without decoding it, and without what a user met and bought.

    The separator of items contains a quotation mark, which a JSON string would escape with a backslash.

    >>> cut(b'{"v":1,"items":[{"id":"tea","score":0.5},{"id":"cup","score":0.25}]}', 1)
    b'{"v":1,"items":[{"id":"tea","score":0.5}]}'
    """
    if n <= 0:
        head, _, _ = raw.partition(b'"items":[')
        return head + b'"items":[]}'
    if raw.count(_NEXT_ITEM) < n:
        return without_history(raw)
    return _NEXT_ITEM.join(raw.split(_NEXT_ITEM, n)[:n]) + b"}]}"


def decoded(raw: bytes | None) -> RecommendationList | None:
    """The decoded list; None if it cannot be read."""
    try:
        return None if raw is None else decode_list(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def history_in(
    raw: bytes | None, of: History, n: int, now_ms: int, keep: Callable[[ListedItem], bool] | None = None
) -> Recommendation:
    """What the owner of a stored list met, or bought, last: newest first, at most `n` items; none without a list."""
    try:
        found = None if raw is None else decode_user_list(raw).history(of)
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = None
    if found is None:
        return Recommendation((), of, 0, 0)
    items = tuple(item for item in found.items if keep is None or keep(item))[: at_least_0(n)]
    return Recommendation(items, of, found.v, max(0, now_ms - found.at))


class _Cached(msgspec.Struct, frozen=True):
    popular: Listed | None
    asked_at_ms: int


def steady_ms() -> int:
    """Milliseconds of a monotonic clock: for durations, not for times of day."""
    return time.monotonic_ns() // 1_000_000


class PopularLists:
    """A process's cache of popular lists, at most :data:`SEGMENTS_CACHED_MAX`; they contain no data of a user.

    `now_ms` comes from a monotonic clock, such as :func:`steady_ms`.
    """

    def __init__(self) -> None:
        self._cached: dict[str, _Cached] = {}
        self._lock = threading.Lock()

    def outdated(self, segments: Iterable[str], now_ms: int) -> list[str]:
        """Those of `segments` that are not cached, or for too long."""
        wanted = []
        for name in segments:
            known = self._cached.get(name)
            if known is None or now_ms - known.asked_at_ms >= POPULAR_FRESH_MS:
                wanted.append(name)
        return wanted

    def put(self, segment: str, raw: bytes | None, now_ms: int) -> None:
        """Cache what was read. If Redis has lost its popular lists, the last one stays; an old trend is none."""
        found = decoded(raw)
        with self._lock:
            known = self._cached.pop(segment, None)
            last = None if known is None or segment == TRENDING else known.popular
            popular = last if raw is None or found is None else Listed(raw, found)
            while len(self._cached) >= SEGMENTS_CACHED_MAX:
                del self._cached[next(name for name in self._cached if name != ALL)]
            self._cached[segment] = _Cached(popular, now_ms)

    def mark_requested(self, segment: str, now_ms: int) -> None:
        """Note that `segment` is being read, so that no one else reads it now."""
        with self._lock:
            known = self._cached.get(segment)
            if known is not None:
                self._cached[segment] = _Cached(known.popular, now_ms)

    def of(self, segments: Iterable[str]) -> list[Listed]:
        """The cached lists of `segments`, in their order."""
        held = (self._cached.get(name) for name in segments)
        return [one.popular for one in held if one is not None and one.popular is not None]

    def of_category(
        self, segments: Sequence[str], category: str | None, catalogue: Mapping[str, CatalogueItem]
    ) -> list[Listed]:
        """The cached lists of what :func:`popular_segments` returns; the first is that of the category, if given."""
        if category is None:
            return self.of(segments)
        others = [of_category(one, category, catalogue) for one in self.of(segments[1:])]
        return [*self.of(segments[:1]), *others]

    def all(self) -> dict[str, Listed]:
        """All cached lists, by segment."""
        return {name: one.popular for name, one in list(self._cached.items()) if one.popular is not None}
