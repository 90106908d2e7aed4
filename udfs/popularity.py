"""Recency-weighted popularity: collected where consent is known, summed per segment, published as top lists.

Forward decay (Cormode, Shkapenyuk, Srivastava, Xu: "Forward Decay", ICDE 2009): an interaction at time t weighs w ·
2^((t − L) / half-life) for a landmark L, so sums merge in any order and need no update as time passes.

An item is published only once at least k users have interacted with it. Each user sets one of 64 bits of the item,
chosen by a keyed hash. Distinct bits never outnumber distinct users, so k bits prove k users, and 6 bits of a hash
identify nobody.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Final

import msgspec
import numpy as np
from msgspec import Meta

from models.online.dimensions import USER_BITS
from models.online.item_popularity import users_of
from schemas.errors import SchemaError
from schemas.lists import item_fragment
from schemas.store import ALL, category_segment
from schemas.topics import HOUR_MS
from udfs.arranging import Arranged, arrange_one
from udfs.assortment import CATEGORY, Assortment
from udfs.elements import EventRecord
from udfs.profile import WEIGHT_OF_KIND, AtLeastOne

WEIGHT_OF_A_USER: Final = 10.0
"""What the users of an item can add to its weight on average, at most: more than one who views, puts into the cart and
buys, and less than a flood of clicks."""


def user_bit_of(route: int, bits_by: int) -> int:
    """Which of the 64 bits a user sets, from the keyed hash that also chooses the bucket.

    Whatever counts users must take it from here: a user with two bits would count as two. So `bits_by` is the number of
    buckets that the deployment began with, also when it has another number now.
    """
    return route // bits_by % USER_BITS


ItemSums = dict[str, tuple[float, int]]
"""item → (weight as of the sums' reference time, user bits)"""


class PopularitySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How popularity is computed and published."""

    segments: tuple[str, ...] = ("surface", "context.country", "category")
    """What gets popular lists of its own: `surface`, `context.<key>`, or `category`, that of the item in the topic
    `catalogue`. The list of a category has only items of it.
    """
    segments_max: AtLeastOne = 500
    """How many segments one bucket passes on. Events of further segments count for the overall list only."""
    half_life_ms: AtLeastOne = 24 * HOUR_MS
    """After this time an event counts half."""
    users_min: Annotated[int, Meta(ge=1, le=USER_BITS)] = 5
    """An item is published once at least this many users have interacted with it."""
    list_items: AtLeastOne = 50
    """Items in a popular list."""
    items_max: Annotated[int, Meta(ge=2)] = 20_000
    """Items tracked per segment."""
    publish_every_ms: AtLeastOne = 1_000
    """How often popular lists are published."""
    list_ttl_ms: AtLeastOne = 7 * 24 * HOUR_MS
    """How long a popular list stays in Redis after it was last published."""

    def __post_init__(self) -> None:
        if CATEGORY in self.segments and f"context.{CATEGORY}" in self.segments:
            raise ValueError("`category` and `context.category` would share popular lists: leave one of them out")


class Weighing(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What popularity needs of an accepted interaction that counts for its item; it contains no user."""

    item: str
    kind: int
    ts: int
    user_bit: int
    segments: tuple[str, ...]


def weighing(accepted: Iterable[EventRecord], category_of: Callable[[str], str | None] | None = None) -> list[Weighing]:
    """The accepted interactions that count for an item; with `category_of`, the item's category is a segment."""
    found = []
    for event in accepted:
        if event.item is not None and WEIGHT_OF_KIND[event.kind]:
            category = None if category_of is None else category_of(event.item)
            segments = event.segments if category is None else (*event.segments, category_segment(category))
            found.append(Weighing(event.item, event.kind, event.ts, event.user_bit, segments))
    return found


class SegmentSums(msgspec.Struct, array_like=True, gc=False):
    """One bucket's contribution to one segment: weights as of `reference_ts`."""

    segment: str
    reference_ts: int
    items: ItemSums


NO_SUMS: Final = SegmentSums(ALL, 0, {})
"""Makes the overall list be published again, after Redis has lost it. Other segments return with their next event."""


def sum_by_segment(events: Sequence[Weighing], half_life_ms: int) -> list[SegmentSums]:
    """Sum events, one record per segment, the overall one first."""
    if not events:
        return []
    reference = max(event.ts for event in events)
    sums: dict[str, ItemSums] = {ALL: {}}
    of_segments: dict[tuple[str, ...], list[ItemSums]] = {}
    """The sums that events with these segments count for; few combinations occur."""
    for event in events:
        weight = WEIGHT_OF_KIND[event.kind] * 2.0 ** ((event.ts - reference) / half_life_ms)
        bit = 1 << event.user_bit
        counted = of_segments.get(event.segments)
        if counted is None:
            counted = [sums.setdefault(segment, {}) for segment in (ALL, *event.segments)]
            of_segments[event.segments] = counted
        item = event.item
        for items in counted:
            known = items.get(item)
            items[item] = (weight, bit) if known is None else (known[0] + weight, known[1] | bit)
    return [SegmentSums(segment, reference, items) for segment, items in sums.items()]


class Popularity(msgspec.Struct, array_like=True, gc=False):
    """A segment's popularity: parallel columns, weights as of the landmark `reference_ts`."""

    reference_ts: int = 0
    version: int = 0
    items: list[str] = []
    weights: bytes = b""
    users: bytes = b""


class PopularityTable:
    """A :class:`Popularity` decoded for merging. Columns: weights float64[items], users uint64[items]."""

    def __init__(self, popularity: Popularity, settings: PopularitySettings) -> None:
        self._settings = settings
        self.version = popularity.version
        """When something was merged last, ms since the epoch; 0 for never."""
        self._reference_ts = popularity.reference_ts
        self._items = popularity.items
        self._place = {item: place for place, item in enumerate(self._items)}
        self._weights = np.frombuffer(popularity.weights, np.float64).copy()
        self._users = np.frombuffer(popularity.users, np.uint64).copy()

    def merge(self, pending: Iterable[SegmentSums], at_ms: int) -> None:
        """Add sums, in any order.

        The version becomes `at_ms`, the time of the merge. A count of merges would fall behind Redis after a restore,
        and Redis would refuse every list until as many merges were made again.
        """
        pending = list(pending)
        if not pending:
            return
        self._move_landmark(max(sums.reference_ts for sums in pending))
        added: dict[str, tuple[float, int]] = {}
        for sums in pending:
            fading = 2.0 ** ((sums.reference_ts - self._reference_ts) / self._settings.half_life_ms)
            for item, (weight, bits) in sums.items.items():
                known = added.get(item)
                faded = weight * fading
                added[item] = (faded, bits) if known is None else (known[0] + faded, known[1] | bits)
        self._add(added)
        self.version = max(self.version + 1, at_ms)

    def _move_landmark(self, newest_ts: int) -> None:
        if newest_ts <= self._reference_ts:
            return
        self._weights *= 2.0 ** ((self._reference_ts - newest_ts) / self._settings.half_life_ms)
        self._reference_ts = newest_ts

    def _add(self, added: Mapping[str, tuple[float, int]]) -> None:
        place_of = self._place
        if new := [item for item in added if item not in place_of]:
            place_of.update(zip(new, range(len(self._items), len(self._items) + len(new)), strict=True))
            self._items += new
            self._weights = np.append(self._weights, np.zeros(len(new)))
            self._users = np.append(self._users, np.zeros(len(new), np.uint64))
        places = np.fromiter(map(place_of.__getitem__, added), np.int64, len(added))
        self._weights[places] += np.array([weight for weight, _ in added.values()], np.float64)
        self._users[places] |= np.array([bits for _, bits in added.values()], np.uint64)
        if len(self._items) > self._settings.items_max:
            self._keep(np.argsort(-self._weights, kind="stable")[: self._settings.items_max // 2])

    def _keep(self, places: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> None:
        self._items = [self._items[place] for place in places]
        self._place = {item: place for place, item in enumerate(self._items)}
        self._weights, self._users = self._weights[places], self._users[places]

    def top(self, size: int | None = None) -> list[tuple[str, float]]:
        """The items to publish with their weights, best first; ties by item id. By default, as many as a list has.

        Only items that at least k users met. Their number limits the weight: a flood of clicks by one leads no list.
        """
        enough = np.flatnonzero(np.bitwise_count(self._users) >= self._settings.users_min)
        size = min(len(enough), self._settings.list_items if size is None else size)
        if not size:
            return []
        weights = np.minimum(self._weights[enough], WEIGHT_OF_A_USER * users_of(self._users[enough]))
        best = np.flatnonzero(weights >= np.partition(weights, -size)[-size])
        ranked = sorted((-float(weights[place]), self._items[enough[place]]) for place in best)
        return [(item, -weight) for weight, item in ranked[:size]]

    def listed(self, assortment: Assortment, segment: str, now_ms: int) -> Arranged:
        """The list to publish: what is popular, by the rules of the shop."""
        shelf = assortment.shelf("popular", now_ms, segment)
        asked = size = self._settings.list_items
        while True:
            top = self.top(asked)
            fragments, weights = [item_fragment(item) for item, _ in top], [weight for _, weight in top]
            if shelf is None:
                return Arranged(fragments, weights)
            found = arrange_one(fragments, weights, shelf, assortment.code_of, size)
            if len(found.fragments) == size or len(top) < asked:
                return found if top else Arranged([], [])
            asked *= 2

    def close(self) -> Popularity:
        """Encode the columns."""
        return Popularity(self._reference_ts, self.version, self._items, self._weights.tobytes(), self._users.tobytes())


_encoder: Final = msgspec.msgpack.Encoder()
_weighing_decoder: Final = msgspec.msgpack.Decoder(list[Weighing])
_sums_decoder: Final = msgspec.msgpack.Decoder(SegmentSums)
_table_decoder: Final = msgspec.msgpack.Decoder(Popularity)
POPULARITY_VERSION: Final = 1


def encode_weighing(events: Sequence[Weighing]) -> bytes:
    """Encode `events` for `weighing-v1`, which stores them for a second."""
    return _encoder.encode(events)


def decode_weighing(raw: bytes) -> list[Weighing]:
    """Decode events."""
    return _weighing_decoder.decode(raw)


def encode_sums(sums: SegmentSums) -> bytes:
    """Encode `sums` for the next operator."""
    return _encoder.encode(sums)


def decode_sums(raw: bytes) -> SegmentSums:
    """Decode sums."""
    return _sums_decoder.decode(raw)


def encode_popularity(popularity: Popularity) -> bytes:
    """Versioned bytes for `popularity-v1`."""
    return bytes([POPULARITY_VERSION]) + _encoder.encode(popularity)


def decode_popularity(raw: bytes | None) -> Popularity:
    """Decode popularity; an empty one for None. Raises :class:`SchemaError` for an unknown version."""
    if raw is None:
        return Popularity()
    if raw[0] != POPULARITY_VERSION:
        raise SchemaError(
            f"popularity of version {raw[0]}, this release reads {POPULARITY_VERSION}: upgrade step by step"
        )
    return _table_decoder.decode(memoryview(raw)[1:])
