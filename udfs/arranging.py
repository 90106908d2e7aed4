"""Applies the rules of the shop to ranked items: leave out, boost, spread over categories, limit, pin.

In this order. Items of one category keep their order among each other, but for boosts; scores of a list never increase,
so that whoever sorts by score has the same list. A list is only shorter than asked for if no other items may be in it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from udfs.assortment import ShelfRules


class Candidates(NamedTuple):
    """Ranked items of users, best first: `rows` int[users, k], `scores` float64[users, k] and which of them may be
    used, `kept` bool[users, k]. If scores are `log_odds`, a boost multiplies the odds, otherwise the score."""

    rows: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    kept: npt.NDArray[np.bool_]
    log_odds: bool = False


class Items(NamedTuple):
    """The items of candidates, by row: their fragments object[rows] and codes int64[rows]. And all known codes, as in
    :class:`udfs.assortment.Assortment`."""

    fragments: npt.NDArray[np.object_]
    codes: npt.NDArray[np.int64]
    code_of: Mapping[bytes, int]


class Arranged(NamedTuple):
    """A list: fragments and scores, best first."""

    fragments: list[bytes]
    scores: list[float]


def arrange(
    found: Candidates,
    more: Callable[[int], Iterable[tuple[bytes, float]]],
    shelf: ShelfRules,
    items: Items,
    size: int,
) -> list[Arranged]:
    """For each user, a list of up to `size` items; `more(user)` are items to fill up with, best first."""
    code_of = items.code_of
    may_be = [pin for pin in shelf.pins if pin.place < size]
    pins = [pin for pin in may_be if not shelf.excluded[code_of.get(pin.fragment, 0)]]
    pinned = {pin.fragment for pin in pins}
    used = _used_by(pinned, shelf, code_of)
    places = size - len(pins)
    rows, scores_of, kept, _ = _ordered(found, pinned, used, shelf, items)
    kept = kept & (np.cumsum(kept, axis=1) <= places)
    every, numbers = items.fragments[rows[kept]].tolist(), scores_of[kept].tolist()
    lists, start = [], 0
    for user, length in enumerate(kept.sum(axis=1).tolist()):
        fragments, scores = every[start : start + length], numbers[start : start + length]
        start += length
        if len(fragments) < places:
            fill_up(fragments, scores, more(user), Room(pinned, used, shelf, code_of, places))
        for pin in pins:
            place = min(pin.place, len(fragments))
            fragments.insert(place, pin.fragment)
            scores.insert(place, scores[min(place, len(scores) - 1)] if scores else 0.0)
        lists.append(Arranged(fragments, [*accumulate(scores, min)]))
    return lists


def _used_by(pinned: Iterable[bytes], shelf: ShelfRules, code_of: Mapping[bytes, int]) -> npt.NDArray[np.int64]:
    """By number of category, how many items of it are pinned: they count for its cap."""
    codes = [code_of.get(fragment, 0) for fragment in pinned]
    return np.bincount(shelf.category[codes], minlength=int(shelf.category.max(initial=0)) + 1)


def _ordered(
    found: Candidates,
    pinned: set[bytes],
    used: npt.NDArray[np.int64],
    shelf: ShelfRules,
    items: Items,
) -> Candidates:
    """Candidates in the order of the list, without those that rules leave out."""
    rows, scores, codes = found.rows, found.scores, items.codes[found.rows]
    kept = found.kept & ~shelf.excluded[codes]
    for fragment in pinned:
        kept &= items.fragments[rows] != fragment
    category = shelf.category[codes]
    if shelf.boosts is not None:
        scores = _boosted(scores, shelf.boosts[codes], found.log_odds)
        rows, scores, kept, category = _sorted(scores, rows, scores, kept, category)
    if shelf.caps is None and not shelf.diversity:
        return Candidates(rows, scores, kept)
    before = _earlier_of_category(category, kept)
    if shelf.caps is not None:
        kept &= before < (shelf.caps[: len(used)] - used)[category]
    if shelf.diversity:
        by = _diverse(scores, kept, before, shelf.diversity)
        rows, scores, kept = _sorted(by, rows, scores, kept)
    return Candidates(rows, scores, kept)


def _boosted(
    scores: npt.NDArray[np.float64], factors: npt.NDArray[np.float64], log_odds: bool
) -> npt.NDArray[np.float64]:
    boosted: npt.NDArray[np.float64] = (
        scores + np.log(factors) if log_odds else np.where(scores < 0, scores / factors, scores * factors)
    )
    return boosted


def _sorted(by: npt.NDArray[np.float64], *columns: Any) -> list[Any]:
    order = np.argsort(-by, axis=1, kind="stable")
    return [np.take_along_axis(column, order, axis=1) for column in columns]


def _earlier_of_category(category: npt.NDArray[np.int64], kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """How many kept items of the same list and category come before each: int64[users, k]; 0 without a category."""
    users, size = category.shape
    before = np.zeros(users * size, np.int64)
    places = np.flatnonzero(kept & (category > 0))
    key = category.ravel()[places] + places // size * (int(category.max(initial=0)) + 1)
    order = np.argsort(key, kind="stable")
    grouped = key[order]
    at = np.arange(len(grouped))
    begins = np.ones(len(grouped), np.bool_)
    begins[1:] = grouped[1:] != grouped[:-1]
    before[places[order]] = at - np.maximum.accumulate(np.where(begins, at, 0))
    return before.reshape(users, size)


def _diverse(
    scores: npt.NDArray[np.float64], kept: npt.NDArray[np.bool_], before: npt.NDArray[np.int64], diversity: float
) -> npt.NDArray[np.float64]:
    """What to sort by: maximal marginal relevance, where items are alike that share a category.

    Relevance is the score between those of the best (1) and the last item (0). Each item of the category that comes
    before costs `diversity`. Items of a category keep their order, so one sort finds what choosing one item after the
    other would (Carbonell, Goldstein: "The use of MMR", SIGIR 1998).
    """
    lowest = np.min(scores, axis=1, keepdims=True, where=kept, initial=np.inf)
    highest = np.max(scores, axis=1, keepdims=True, where=kept, initial=-np.inf)
    span = np.maximum(highest - lowest, 1e-12)
    relevance = np.divide(scores - lowest, span, out=np.zeros(scores.shape), where=kept)
    return np.where(kept, (1 - diversity) * relevance - diversity * before, -np.inf)


class Room(NamedTuple):
    """What may still be put into a list."""

    pinned: set[bytes]
    used: npt.NDArray[np.int64]
    shelf: ShelfRules
    code_of: Mapping[bytes, int]
    places: int


def room_beside(shelf: ShelfRules, code_of: Mapping[bytes, int], places: int) -> Room:
    """What may be put beside the items of a list that has its pinned ones."""
    return Room(set(), np.zeros(int(shelf.category.max(initial=0)) + 1, np.int64), shelf, code_of, places)


def fill_up(fragments: list[bytes], scores: list[float], more: Iterable[tuple[bytes, float]], room: Room) -> None:
    """Add items from `more` while there are places for them."""
    shelf, code_of = room.shelf, room.code_of
    counts = room.used.copy()
    for fragment in fragments:
        counts[shelf.category[code_of.get(fragment, 0)]] += 1
    listed = {*fragments, *room.pinned}
    for fragment, score in more:
        if len(fragments) == room.places:
            return
        code = code_of.get(fragment, 0)
        category = shelf.category[code]
        capped = shelf.caps is not None and category and counts[category] >= shelf.caps[category]
        if not capped and not shelf.excluded[code] and fragment not in listed:
            fragments.append(fragment)
            scores.append(score)
            listed.add(fragment)
            counts[category] += 1


def arrange_one(
    fragments: Sequence[bytes], scores: Sequence[float], shelf: ShelfRules, code_of: Mapping[bytes, int], size: int
) -> Arranged:
    """A list that is nobody's own, from its candidates, best first."""
    rows = np.arange(len(fragments))[None]
    found = Candidates(rows, np.array([scores], np.float64), np.ones(rows.shape, np.bool_))
    [arranged] = arrange(found, lambda user: (), shelf, items_of(fragments, code_of), size)
    return arranged


def items_of(fragments: Iterable[bytes], code_of: Mapping[bytes, int]) -> Items:
    """The items of rows, with their codes now."""
    named = list(fragments)
    column = np.empty(len(named), object)
    column[:] = named
    return Items(column, np.fromiter((code_of.get(one, 0) for one in named), np.int64, len(named)), code_of)
