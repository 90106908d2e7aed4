"""The rules of the shop for its lists: what is left out, boosted, pinned and limited. They are in a file of their own.

Every error is a sentence that says what is wrong, and how to fix it; the decoder adds where.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import combinations
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from schemas.events import ItemId, ShortText
from schemas.ids import is_id

ListKind = Literal["own", "popular", "trending"]
LISTS: Final[tuple[ListKind, ...]] = ("own", "popular", "trending")
"""A user's own list, the popular list of a segment, and trending items."""
RULES_MAX: Final = 1_000
NAMES_MAX: Final = 10_000
Moment = Annotated[datetime, Meta(tz=True)]
Category = Annotated[ShortText, Meta(min_length=1)]
Names = Annotated[tuple[ItemId, ...], Meta(max_length=NAMES_MAX)]
Categories = Annotated[tuple[Category, ...], Meta(max_length=NAMES_MAX)]
Cap = Annotated[int, Meta(ge=1, le=1_000)]
NO_END_MS: Final = 1 << 62


def _check_ids(items: Iterable[str]) -> None:
    for item in items:
        if not is_id(item):
            raise ValueError(f"item {item!r} has a character that no item id has: write the id as the catalogue does")


def _check_segments(segments: Iterable[str]) -> None:
    for segment in segments:
        kind, _, value = segment.partition(":")
        if segment != "all" and not (kind and value):
            raise ValueError(
                f"there is no segment {segment!r}, so the rule would have no effect: write `all`, or kind and value, "
                "such as `surface:home`, `country:GB` or `category:tea`"
            )


class _Timed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"since": "from"}):
    """A rule that may be limited in time: it holds from `from` (inclusive) to `until` (exclusive)."""

    since: Moment | None = None
    until: Moment | None = None

    def __post_init__(self) -> None:
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise ValueError("`from` must be before `until`")

    def begin_ms(self) -> int:
        """When it begins, in ms since the epoch."""
        return 0 if self.since is None else int(self.since.timestamp() * 1000)

    def end_ms(self) -> int:
        """When it ends."""
        return NO_END_MS if self.until is None else int(self.until.timestamp() * 1000)

    def holds_at(self, now_ms: int) -> bool:
        """Whether it holds."""
        return self.begin_ms() <= now_ms < self.end_ms()

    def meets(self, other: "_Timed") -> bool:
        """Whether there is a moment at which both hold."""
        return self.begin_ms() < other.end_ms() and other.begin_ms() < self.end_ms()


class _Selection(_Timed, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A rule about items, and items of categories."""

    items: Names = ()
    categories: Categories = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.items and not self.categories:
            raise ValueError("without `items` or `categories` it would have no effect: set one, or remove the table")
        _check_ids(self.items)


class Boost(_Selection, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Ranks items higher (`factor` above 1) or lower (below 1)."""

    factor: Annotated[float, Meta(ge=0.1, le=10)]


class Exclusion(_Selection, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Leaves items out: of all lists, or only of the popular lists of `segments`."""

    segments: Annotated[tuple[Category, ...], Meta(max_length=RULES_MAX)] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_segments(self.segments)


class Pin(_Timed, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Puts an item at a position (1 is the first) of `lists`; with `segments`, only of their popular lists."""

    item: ItemId
    position: Annotated[int, Meta(ge=1, le=100)]
    lists: Annotated[tuple[ListKind, ...], Meta(min_length=1)] = LISTS
    segments: Annotated[tuple[Category, ...], Meta(max_length=RULES_MAX)] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_ids([self.item])
        _check_segments(self.segments)
        if self.segments and self.lists not in (LISTS, ("popular",)):
            raise ValueError('`segments` are those of popular lists: set `lists = ["popular"]`, or leave it out')

    def is_for(self, kind: str, segment: str | None) -> bool:
        """Whether it is for such a list."""
        return (kind == "popular" and segment in self.segments) if self.segments else kind in self.lists

    def collides_with(self, other: "Pin") -> bool:
        """Whether both want one place, or are about one item, in one list."""
        if not (self.position == other.position or self.item == other.item) or not self.meets(other):
            return False
        if self.segments and other.segments:
            return bool({*self.segments} & {*other.segments})
        if self.segments or other.segments:
            return "popular" in (other if self.segments else self).lists
        return bool({*self.lists} & {*other.lists})


class ShopRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The contents of the file. Without rules, lists are as the models make them, without unavailable items."""

    category_items_max: Cap | None = None
    caps: Annotated[dict[Category, Cap], Meta(max_length=NAMES_MAX)] = {}
    diversity: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    boosts: Annotated[tuple[Boost, ...], Meta(max_length=RULES_MAX)] = ()
    exclusions: Annotated[tuple[Exclusion, ...], Meta(max_length=RULES_MAX)] = ()
    pins: Annotated[tuple[Pin, ...], Meta(max_length=RULES_MAX)] = ()

    def __post_init__(self) -> None:
        numbered = enumerate(self.pins)
        for (first, one), (second, other) in combinations(numbered, 2):
            if one.collides_with(other):
                what = f"item {one.item!r}" if one.item == other.item else f"position {one.position}"
                raise ValueError(f"pins {first + 1} and {second + 1} are about {what} of one list: remove one of them")
        for place, pin in enumerate(self.pins):
            if any(pin.item in one.items and not one.segments and one.meets(pin) for one in self.exclusions):
                raise ValueError(f"pin {place + 1} is of {pin.item!r}, which is excluded: remove one of the two")

    def cap_of(self, category: str) -> int | None:
        """How many items of a category a list may have; None for any number."""
        return self.caps.get(category, self.category_items_max)

    def moments_ms(self) -> list[int]:
        """When rules begin or end, in order."""
        timed: Iterable[_Timed] = (*self.boosts, *self.exclusions, *self.pins)
        return sorted({ms for one in timed for ms in (one.begin_ms(), one.end_ms())} - {0, NO_END_MS})

    def named_items(self) -> Iterator[str]:
        """All items that rules name."""
        for one in (*self.boosts, *self.exclusions):
            yield from one.items
        yield from (pin.item for pin in self.pins)


NO_RULES: Final = ShopRules()


def parse_rules(text: bytes) -> ShopRules:
    """The rules in the TOML `text`; raises ValueError naming the place of an error."""
    return msgspec.toml.decode(text, type=ShopRules)
