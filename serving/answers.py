"""The rules of a reader's answer: fallbacks, filters, and the cache of popular lists.

The user's own list → the segment's popular list → ``popular:all`` → nothing. Pure: time is an argument.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final, NamedTuple, TypeAlias

import msgspec

from schemas.catalogue import CatalogueItem
from schemas.lists import ListedItem, Reason, RecommendationList, decode_list
from schemas.store import ALL

POPULAR_FRESH_MS: Final = 1_000
"""A popular list that is held longer than this is asked for again: the job writes them each second."""
SEGMENTS_HELD_MAX: Final = 1_000
NONE_LISTED: Final = b'{"v":0,"epoch":0,"model":"","at":0,"reason":"popular","items":[]}'
"""The list of who cannot be told anything, as it would be in Redis."""
_NEXT_ITEM: Final = b'},{"id":'


class Recommendation(msgspec.Struct, frozen=True, gc=False):
    """An answer: at most as many items as were asked for, best first.

    `reason` says which kind of list it is. `version` is the list's, `age_ms` how long ago it was made; both are 0
    where there is no list at all.
    """

    items: tuple[ListedItem, ...]
    reason: Reason
    version: int
    age_ms: int


class Listed(NamedTuple):
    """A list, as stored in Redis and decoded."""

    raw: bytes
    found: RecommendationList


Own: TypeAlias = list[bytes]
"""A user's own list as stored in Redis, and the consent that it stands under, as the script answers them."""


class Filter(msgspec.Struct, frozen=True):
    """Which items of a list may be shown. An item that is not in the catalogue counts as in stock."""

    exclude: Collection[str] = ()
    in_stock: bool = False
    category: str | None = None
    catalogue: Mapping[str, CatalogueItem] = {}

    def __call__(self, item: ListedItem) -> bool:
        """Whether `item` may be shown."""
        if item.id in self.exclude:
            return False
        known = self.catalogue.get(item.id)
        if self.category is not None and (known is None or known.category != self.category):
            return False
        return not self.in_stock or known is None or known.available


def filter_of(
    exclude: Collection[str], in_stock: bool, category: str | None, catalogue: Mapping[str, CatalogueItem]
) -> Filter | None:
    """What takes items out, None where all may be shown."""
    if not exclude and not in_stock and category is None:
        return None
    return Filter(exclude, in_stock, category, catalogue)


def segments_of(surface: str | None = None, segment: str | None = None) -> tuple[str, ...]:
    """The segments whose popular lists may stand in, in that order.

    >>> segments_of("home", "country:GB"), segments_of()
    (('country:GB', 'surface:home', 'all'), ('all',))
    """
    of_surface = None if surface is None else f"surface:{surface}"
    return tuple(name for name in (segment, of_surface, ALL) if name is not None)


def answer(
    lists: Iterable[RecommendationList], n: int, now_ms: int, keep: Callable[[ListedItem], bool] | None = None
) -> Recommendation:
    """The first of `lists` of which something may be shown, cut to `n` items."""
    n = at_least_0(n)
    for one in lists:
        items = one.items[:n] if keep is None else tuple(filter(keep, one.items))[:n]
        if items or not n:
            return Recommendation(items, one.reason, one.v, max(0, now_ms - one.at))
    return Recommendation((), "popular", 0, 0)


def at_least_0(n: int) -> int:
    """How many items an `n` asks for: a negative one asks for none, and not for all but some as a slice would."""
    return max(n, 0)


def cut(raw: bytes, n: int) -> bytes:
    """The bytes of a list with its first `n` items only, without decoding it.

    What begins an item holds a quotation mark that inside of a JSON string would have a backslash before it.

    >>> cut(b'{"v":1,"items":[{"id":"tea","score":0.5},{"id":"cup","score":0.25}]}', 1)
    b'{"v":1,"items":[{"id":"tea","score":0.5}]}'
    """
    if n <= 0:
        head, _, _ = raw.partition(b'"items":[')
        return head + b'"items":[]}'
    if raw.count(_NEXT_ITEM) < n:
        return raw
    return _NEXT_ITEM.join(raw.split(_NEXT_ITEM, n)[:n]) + b"}]}"


def decoded(raw: bytes | None) -> RecommendationList | None:
    """The decoded list; None if it cannot be read."""
    try:
        return None if raw is None else decode_list(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


class _Held(msgspec.Struct, frozen=True):
    popular: Listed | None
    asked_at_ms: int


def steady_ms() -> int:
    """Milliseconds of a clock that is never set: durations are measured with it, times of day are not."""
    return time.monotonic_ns() // 1_000_000


class PopularLists:
    """The popular lists that a process holds, at most :data:`SEGMENTS_HELD_MAX`; they are nobody's own.

    `now_ms` is of a clock that is never set back, such as :func:`steady_ms`.
    """

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        self._holding = threading.Lock()

    def to_ask(self, segments: Iterable[str], now_ms: int) -> list[str]:
        """Those of `segments` that are not held, or for too long."""
        wanted = []
        for name in segments:
            known = self._held.get(name)
            if known is None or now_ms - known.asked_at_ms >= POPULAR_FRESH_MS:
                wanted.append(name)
        return wanted

    def hold(self, segment: str, raw: bytes | None, now_ms: int) -> None:
        """Hold what was read; where Redis has lost its popular lists, the last that was read stays."""
        found = decoded(raw)
        with self._holding:
            known = self._held.pop(segment, None)
            last = None if known is None else known.popular
            popular = last if raw is None or found is None else Listed(raw, found)
            while len(self._held) >= SEGMENTS_HELD_MAX:
                del self._held[next(name for name in self._held if name != ALL)]
            self._held[segment] = _Held(popular, now_ms)

    def asked(self, segment: str, now_ms: int) -> None:
        """Nobody else needs to ask for `segment` now."""
        with self._holding:
            known = self._held.get(segment)
            if known is not None:
                self._held[segment] = _Held(known.popular, now_ms)

    def of(self, segments: Iterable[str]) -> list[Listed]:
        """What is held of `segments`, in their order."""
        held = (self._held.get(name) for name in segments)
        return [one.popular for one in held if one is not None and one.popular is not None]

    def all(self) -> dict[str, Listed]:
        """All that is held, by segment."""
        return {name: one.popular for name, one in list(self._held.items()) if one.popular is not None}
