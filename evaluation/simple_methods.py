"""Simple methods, kept online: what the online model must beat.

Each gives all items a score; the best 20 are the list. Popularity at 7 days decides between equal scores and fills up
short lists, so that no method loses for want of an answer. Pair counts are dense: with more than `PAIRED_ITEMS_MAX`
items, the methods that need them are left out.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from evaluation.job_twin import Took
from evaluation.measures import LISTED
from evaluation.side_by_side import Asked, Method, Past
from models.online.dimensions import LAG_DECAY, LAGS, POPULARITY_HALF_LIVES_MS
from schemas.topics import HOUR_MS

PAIRED_ITEMS_MAX: Final = 10_000
FILLING: Final = "popularity 7 d"
_TINY: Final = 1e-9

Scores = npt.NDArray[Any]
"""float[items]."""
Score = Callable[[Asked], Scores]


class Way(NamedTuple):
    """A :class:`evaluation.side_by_side.Method` of two functions."""

    rank: Callable[[Asked], list[int]]
    learn: Callable[[Asked, list[int], Took], None]


class SimpleMethods:
    """Learns each step once for all methods: replay all `methods` together, in their order."""

    def __init__(self, items: int, new_items: bool) -> None:
        self._are_paired = items <= PAIRED_ITEMS_MAX
        paired = items if self._are_paired else 0
        self._new_items = new_items
        self._popularity = {_name_of(ms): DecayedCounts(items, ms) for ms in POPULARITY_HALF_LIVES_MS}
        self._next = np.zeros((paired, paired), np.float32)
        self._follows = np.zeros((paired, paired), np.float32)
        self._together = np.zeros((paired, paired), np.float32)
        self._users = np.zeros(items, np.float32)
        self._lags = LAG_DECAY ** np.arange(LAGS)

    def methods(self) -> dict[str, Method]:
        """The methods by name."""
        ways: dict[str, Score] = {
            **{name: self._popular(counts) for name, counts in self._popularity.items()},
            "own items, most recent first": self._recent,
            "own items, most often first": self._often,
        }
        if self._are_paired:
            ways |= {
                "transitions from the last item": lambda asked: self._next[asked.past.recents[-1]],
                "transitions from the last 10 items": self._transitions,
                "item kNN, cosine": self._neighbours,
            }
        # The last one learns, for all: the methods before it must not rank with the step that they are asked about.
        last = list(ways)[-1]
        return {
            name: Way(self._listing(score), self.learn if name == last else _nothing) for name, score in ways.items()
        }

    def learn(self, asked: Asked, items: list[int], took: Took) -> None:
        """Take a step: each item follows those before it, also of its step, and is together with all the user had."""
        past = asked.past
        for counts in self._popularity.values():
            counts.add(items, asked.at_ms)
        if self._are_paired:
            self._learn_pairs(past, items)

    def _learn_pairs(self, past: Past, items: list[int]) -> None:
        recents = list(past.recents)
        for item in items:
            before = recents[: -LAGS - 1 : -1]
            if before:
                self._next[before[0], item] += 1
                self._follows[before, item] += self._lags[: len(before)]
            if item in recents:
                recents.remove(item)
            recents.append(item)
        new = [item for item in dict.fromkeys(items) if item not in past.had]
        had = list(past.had)
        self._users[new] += 1
        self._together[np.ix_(new, had)] += 1
        self._together[np.ix_(had, new)] += 1
        self._together[np.ix_(new, new)] += 1 - np.eye(len(new), dtype=np.float32)

    def _listing(self, score: Score) -> Callable[[Asked], list[int]]:
        def listed(asked: Asked) -> list[int]:
            scores = score(asked) + _TINY * self._popularity[FILLING].shares()
            return best_items(scores, asked.past if self._new_items else None)

        return listed

    def _popular(self, counts: "DecayedCounts") -> Score:
        return lambda _: counts.shares()

    def _recent(self, asked: Asked) -> Scores:
        scores = np.zeros(len(self._users))
        scores[list(asked.past.had)] = np.arange(1, len(asked.past.had) + 1)
        return scores

    def _often(self, asked: Asked) -> Scores:
        """By count, the more recent first among equals."""
        scores, had = np.zeros(len(self._users)), asked.past.had
        scores[list(had)] = np.array(list(had.values())) + np.arange(len(had)) / (len(had) + 1)
        return scores

    def _transitions(self, asked: Asked) -> Scores:
        newest_first = asked.past.recents[: -LAGS - 1 : -1]
        totals = np.maximum(self._follows[newest_first].sum(axis=1), 1.0)
        scores: Scores = (self._lags[: len(newest_first)] / totals) @ self._follows[newest_first]
        return scores

    def _neighbours(self, asked: Asked) -> Scores:
        roots: Scores = 1 / np.sqrt(np.maximum(self._users, 1.0))
        recents = asked.past.recents
        scores: Scores = (roots[recents] @ self._together[recents]) * roots
        return scores


class DecayedCounts:
    """Counts of items that halve with time."""

    def __init__(self, items: int, half_life_ms: int) -> None:
        self._half_life_ms, self._at_ms = half_life_ms, 0
        self._counts = np.zeros(items)

    def add(self, items: list[int], at_ms: int) -> None:
        """One event of each of `items`."""
        self._counts *= 2.0 ** -((at_ms - (self._at_ms or at_ms)) / self._half_life_ms)
        self._at_ms = at_ms
        self._counts[items] += 1

    def shares(self) -> Scores:
        """The share of each item in all counts: float64[items]."""
        shares: Scores = self._counts / max(self._counts.sum(), _TINY)
        return shares


def best_items(scores: Scores, without: Past | None) -> list[int]:
    """The best 20 of all items with a score above zero; items that the user had only if there is no `without`."""
    scores = scores.astype(np.float64)
    if without is not None:
        scores[list(without.had)] = 0.0
    size = min(LISTED, len(scores))
    best = np.argpartition(-scores, size - 1)[:size]
    best = best[scores[best] > 0]
    return [int(item) for item in best[np.lexsort((best, -scores[best]))]]


def _name_of(half_life_ms: int) -> str:
    hours = half_life_ms // HOUR_MS
    return f"popularity {hours} h" if hours < 24 else f"popularity {hours // 24} d"


def _nothing(asked: Asked, items: list[int], took: Took) -> None:
    """The methods share what they learn: the last of them learns it."""
