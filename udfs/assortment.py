"""What the catalogue and the rules of the shop say of items, in the form that ranking uses.

An item is known by the bytes that lists have of it (:func:`schemas.lists.item_fragment`), and has a code: a number that
it shares with all items of which the same is said, 0 for items of which nothing is.
"""

import math
from bisect import bisect_right
from typing import Final, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt

from schemas.catalogue import CatalogueItem
from schemas.lists import item_fragment
from schemas.shop_rules import NO_RULES, Boost, Exclusion, ShopRules

ITEMS_MAX: Final = 2_000_000
NO_CAP: Final = 1 << 30
SIMILAR: Final = "similar"
"""The kind of list that only leaves items out; the others are :data:`schemas.shop_rules.LISTS`."""
CATEGORY: Final = "category"
"""In `popularity.segments`: each category has a popular list, that of the segment `category:<category>`."""


class Following(Protocol):
    """An assortment that follows the catalogue between :meth:`start` and :meth:`stop`; :class:`Unfollowed` does not."""

    @property
    def assortment(self) -> "Assortment": ...  # noqa: D102
    def start(self) -> None: ...  # noqa: D102
    def stop(self) -> None: ...  # noqa: D102
    def take_unread(self) -> int: ...  # noqa: D102


class _Said(NamedTuple):
    """What is said of all items with a code; `item` is set for those that rules name."""

    category: str | None = None
    available: bool = True
    item: str | None = None


class Pinned(NamedTuple):
    """An item at a place, from 0, of a list."""

    place: int
    fragment: bytes


class _Selected(NamedTuple):
    """The items and categories that a rule is about."""

    items: frozenset[str]
    categories: frozenset[str]

    @classmethod
    def by(cls, rule: Boost | Exclusion) -> Self:
        return cls(frozenset(rule.items), frozenset(rule.categories))

    def has(self, said: _Said) -> bool:
        return said.item in self.items or said.category in self.categories


class ShelfRules(NamedTuple):
    """The rules of one list at a moment; arrays are by code, but `caps` is by number of category, 0 for none."""

    excluded: npt.NDArray[np.bool_]
    category: npt.NDArray[np.int64]
    boosts: npt.NDArray[np.float64] | None
    caps: npt.NDArray[np.int64] | None
    diversity: float
    pins: tuple[Pinned, ...]


class Assortment:
    """Follows the catalogue: `note` may be called from another thread. At most :data:`ITEMS_MAX` items are known."""

    def __init__(self, rules: ShopRules = NO_RULES) -> None:
        self._rules = rules
        self._named = frozenset(rules.named_items())
        self._moments_ms = rules.moments_ms()
        named = [one.segments for one in rules.exclusions] + [one.segments for one in rules.pins]
        self._segments = {segment for segments in named for segment in segments}
        self._said: list[_Said] = [_Said()]
        self._codes: dict[_Said, int] = {_Said(): 0}
        self._categories: dict[str | None, int] = {None: 0}
        self.changes = 0
        """Counts up with each call of :meth:`note`, once `code_of` has changed."""
        self.code_of: dict[bytes, int] = {}
        """The code of each known item; look them up before :meth:`shelf`, which then has all of them."""
        self._shelves: dict[tuple[str, str | None], tuple[tuple[int, int], ShelfRules | None]] = {}
        for item in self._named:
            self.note(item, None)

    def note(self, item_id: str, item: CatalogueItem | None) -> None:
        """What the catalogue says of an item now, None for nothing."""
        fragment, named = item_fragment(item_id), item_id if item_id in self._named else None
        said = _Said(None, True, named) if item is None else _Said(item.category or None, item.available, named)
        code = self._codes.get(said)
        if code is None:
            self._categories.setdefault(said.category, len(self._categories))
            self._said.append(said)
            code = self._codes[said] = len(self._said) - 1
        if code == 0:
            self.code_of.pop(fragment, None)
        elif fragment in self.code_of or len(self.code_of) < ITEMS_MAX:
            self.code_of[fragment] = code
        self.changes += 1

    def category_of(self, item_id: str) -> str | None:
        """The category of an item, if it is known."""
        if not self.code_of:
            return None
        return self._said[self.code_of.get(item_fragment(item_id), 0)].category

    def shelf(self, kind: str, now_ms: int, segment: str | None = None) -> ShelfRules | None:
        """The rules of a kind of list, and of a segment's popular list; None if they change nothing."""
        place = kind, segment if segment in self._segments else None
        state = len(self._said), bisect_right(self._moments_ms, now_ms)
        known = self._shelves.get(place)
        if known is None or known[0] != state:
            known = self._shelves[place] = state, self._made(self._said[: state[0]], *place, now_ms)
        return known[1]

    def without_rules(self) -> ShelfRules:
        """A shelf that changes nothing: there are no rules, and nothing is withdrawn."""
        codes = len(self._said)
        return ShelfRules(np.zeros(codes, np.bool_), np.zeros(codes, np.int64), None, None, 0.0, ())

    def _made(self, said: list[_Said], kind: str, segment: str | None, now_ms: int) -> ShelfRules | None:
        rules, arranged = self._rules, kind != SIMILAR
        active = (one for one in rules.exclusions if one.holds_at(now_ms))
        out = [_Selected.by(one) for one in active if not one.segments or segment in one.segments]
        excluded = np.array([not one.available or any(rule.has(one) for rule in out) for one in said])
        category = np.array([self._categories[one.category] for one in said], np.int64)
        boosts = self._boosts(said, now_ms) if arranged else None
        caps = self._caps() if arranged else None
        pins = self._pins(kind, segment, now_ms)
        diversity = rules.diversity if arranged else 0.0
        if not excluded.any() and boosts is None and caps is None and not pins and not diversity:
            return None
        return ShelfRules(excluded, category, boosts, caps, diversity, pins)

    def _boosts(self, said: list[_Said], now_ms: int) -> npt.NDArray[np.float64] | None:
        active = [(boost.factor, _Selected.by(boost)) for boost in self._rules.boosts if boost.holds_at(now_ms)]
        if not active:
            return None
        return np.array([math.prod(factor for factor, rule in active if rule.has(one)) for one in said], np.float64)

    def _caps(self) -> npt.NDArray[np.int64] | None:
        rules = self._rules
        if rules.category_items_max is None and not rules.caps:
            return None
        caps = [None if name is None else rules.cap_of(name) for name in list(self._categories)]
        return np.array([NO_CAP if cap is None else cap for cap in caps], np.int64)

    def _pins(self, kind: str, segment: str | None, now_ms: int) -> tuple[Pinned, ...]:
        """The pins of a list, by place."""
        pins = [pin for pin in self._rules.pins if pin.holds_at(now_ms) and pin.is_for(kind, segment)]
        return tuple(sorted(Pinned(pin.position - 1, item_fragment(pin.item)) for pin in pins))


class Unfollowed:
    """A :class:`Following` of an assortment that changes by other means, or not at all."""

    def __init__(self, assortment: Assortment | None = None) -> None:
        self.assortment = assortment or Assortment()

    def start(self) -> None:
        """Nothing to follow."""

    def stop(self) -> None:
        """Nothing to stop."""

    def take_unread(self) -> int:
        """Nothing to read."""
        return 0
