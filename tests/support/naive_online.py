"""The naive twin of the online model: pairs in dicts, and the formula of the score for one user at a time.

Written from the docstrings of `models/online`, with nothing shared but names of inputs. Pairs have no slots here, so
compare with tables whose rows are not full.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

import numpy as np

from models.online.blend import Histories
from models.online.lessons import Lesson

DAY_MS: Final = 86_400_000
HALF_LIFE_MS: Final = 30 * DAY_MS
POPULARITY_HALF_LIVES_MS: Final = (DAY_MS // 4, DAY_MS, 7 * DAY_MS, 60 * DAY_MS)
EPSILON: Final = 1e-6


class NaivePairs:
    """Counts as of `at_ms`, by pair: follows, next, near. Users by pair, and by item, as bits."""

    def __init__(self, lessons: Iterable[Lesson], at_ms: int) -> None:
        self.counts: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
        self.users: dict[tuple[str, str], set[int]] = defaultdict(set)
        self.item_users: dict[str, set[int]] = defaultdict(set)
        self.popularity: dict[str, list[float]] = defaultdict(lambda: [0.0] * 4)
        for lesson in lessons:
            fading = 0.5 ** ((at_ms - lesson.ts) / HALF_LIFE_MS)
            self.item_users[lesson.item].add(lesson.user_bit)
            for place, half_life in enumerate(POPULARITY_HALF_LIVES_MS):
                self.popularity[lesson.item][place] += 0.5 ** ((at_ms - lesson.ts) / half_life)
            for lag, before in enumerate(lesson.before[:10]):
                if lag == 0:
                    self._add(before, lesson, 1, fading)
                if before == lesson.item:
                    continue
                self._add(before, lesson, 0, fading * 0.8**lag)
                if lag < 5:
                    self._add(before, lesson, 2, fading)
                    self.counts[lesson.item, before][2] += fading
                    self.users[lesson.item, before].add(lesson.user_bit)

    def _add(self, before: str, lesson: Lesson, way: int, count: float) -> None:
        self.counts[before, lesson.item][way] += count
        self.users[before, lesson.item].add(lesson.user_bit)

    def mass(self, left: str) -> list[float]:
        """All counts of pairs from an item."""
        return [sum(counts[way] for (one, _), counts in self.counts.items() if one == left) for way in range(3)]

    def published(self, left: str) -> dict[str, list[float]]:
        """Neighbours that two users met, and their shares of all that was met, by way."""
        mass = self.mass(left)
        return {
            right: [count / total if total else 0.0 for count, total in zip(counts, mass, strict=True)]
            for (one, right), counts in self.counts.items()
            if one == left and len(self.users[one, right]) >= 2
        }


def naive_scores(feed: dict[str, Any], histories: Histories, user: int, weights: list[float]) -> dict[int, float]:
    """The score of each candidate row of a user, of tables with fewer than 128 items."""
    items, width = histories.items[user].tolist(), histories.items.shape[1]
    lags = [0.8 ** (width - 1 - place) if row else 0.0 for place, row in enumerate(items)]
    length, total = max(sum(1 for row in items if row), 1), max(sum(lags), 1e-9)
    said: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for place, row in enumerate(items):
        if not row:
            continue
        shares = feed["shares"][row].reshape(-1, 4).tolist()
        said_of = zip(feed["neighbours"][row].tolist(), shares, feed["mixed"][row].tolist(), strict=True)
        best = 32 if place >= width - 8 else 16
        for neighbour, (follows, near, following, cosine), mixed in islice(said_of, best):
            its = said[neighbour]
            its["mix"] += mixed * lags[place] / total
            its["follows"] += follows * lags[place] / total
            its["near"] += near / length
            its["next"] += following if place == width - 1 else 0.0
            its["cosine"] += cosine * lags[place]
        said[row]["mix"] += 0.1 / length
        said[row]["place"] += 1 / (width - place)
        said[row]["inside"] += 1.0
    own = list(zip(histories.own[user].tolist(), histories.own_counts[user].tolist(), strict=True))
    for row, count in own:
        if row:
            said[row]["mix"] += 0.1 * count / max(sum(count for _, count in own), 1e-9)
            said[row]["own"] += count
    for row, share in zip(feed["front"].tolist(), feed["front_share"].tolist(), strict=True):
        said[row]["mix"] += 0.05 * share
    gone = {0, *histories.excluded[user].tolist()}
    return {
        row: float(np.dot(_features(its, feed, row, length), weights)) for row, its in said.items() if row not in gone
    }


def _features(its: dict[str, float], feed: dict[str, Any], row: int, length: int) -> list[float]:
    cosine = its["cosine"] * float(feed["right_root"][row])
    values = [max(its["mix"], 0.0), its["follows"], its["near"], its["next"], cosine]
    logs = [(math.log(value + EPSILON) - math.log(EPSILON)) / 10 for value in values]
    popular = feed["popularity"][row].tolist()
    has = [float(its[name] != 0) for name in ("follows", "near", "next")]
    return [
        *logs,
        *popular,
        *has,
        its["place"],
        its["inside"],
        its["own"],
        its["inside"] / length,
        float(its["place"] == 1.0),
        *(value**2 for value in logs[:3]),
        popular[1] ** 2,
        logs[1] * popular[1],
        logs[2] * popular[1],
    ]
