"""Compares lists with what followed.

With binary relevance, a list of distinct items, and answers A::

    nDCG@10    = sum over hits at rank r <= 10 of 1 / log2(r + 1), over the same sum of the best possible list
    HR@10      = 1 if there is a hit in the first 10, else 0
    recall@20  = hits in the first 20 / |A|
    MRR@20     = 1 / rank of the first hit in the first 20, 0 without one
    novelty@10 = mean over the first 10 of -log2(p), p = (events of the item + 1) / (events + items) up to the question
    coverage@10: the share of the catalogue that is in the first 10 of any list

(Järvelin & Kekäläinen, "Cumulated Gain-Based Evaluation of IR Techniques", TOIS 2002; Castells, Hurley & Vargas,
"Novelty and Diversity in Recommender Systems", 2015.) An empty list has no novelty, and does not count for it. Lists
rank all items, without sampling (Krichene & Rendle, "On Sampled Metrics", KDD 2020).
"""

import math
from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

LISTED: Final = 20
TOP: Final = 10
GAINS: Final = [1 / math.log2(rank + 1) for rank in range(1, TOP + 1)]
IDEAL: Final = np.cumsum(GAINS).tolist()
MEASURES: Final = ("ndcg@10", "hr@10", "recall@20", "mrr", "novelty@10")
"""The measures of one question, in the order of :func:`measure`."""
Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[Any]


def measure(ranked: Sequence[int], answers: Collection[int]) -> tuple[float, float, float, float]:
    """nDCG@10, HR@10, recall@20 and MRR@20 of a list of distinct items, best first; `answers` is a set, not empty.

    >>> measure([7, 8, 9], {8})
    (0.6309297535714575, 1.0, 1.0, 0.5)
    """
    hits = [place for place, item in enumerate(ranked[:LISTED]) if item in answers]
    gain = sum(GAINS[place] for place in hits if place < TOP)
    return (
        gain / IDEAL[min(len(answers), TOP) - 1],
        float(bool(hits) and hits[0] < TOP),
        len(hits) / len(answers),
        1 / (1 + hits[0]) if hits else 0.0,
    )


def novelty(ranked: Sequence[int], counts: Counts, events: int) -> float:
    """Novelty@10, NaN of an empty list; `counts` [items] are the events of each item up to now, `events` of all."""
    if not ranked:
        return math.nan
    shares = (counts[list(ranked[:TOP])] + 1.0) / (events + len(counts))
    return float(-np.log2(shares).mean())


class Measured(NamedTuple):
    """A method's measures: `rows` float64[questions, MEASURES], `users` int64[questions]; `listed` of `items` items are
    in the first ten of any list."""

    users: npt.NDArray[np.int64]
    rows: Floats
    listed: int
    items: int

    def column(self, name: str) -> Floats:
        """One measure of each question."""
        column: Floats = self.rows[:, MEASURES.index(name)]
        return column

    def table(self) -> dict[str, float]:
        """The means, the share of the catalogue that is listed, and the number of questions."""
        means = {name: mean(self.column(name)) for name in MEASURES}
        return {**means, "coverage@10": self.listed / self.items, "questions": float(len(self.rows))}


def mean(values: Floats) -> float:
    """The mean of the values that are numbers; 0 if there is none."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else 0.0


class QuestionTable:
    """Collects the measures of one method."""

    def __init__(self, items: int) -> None:
        self._users: list[int] = []
        self._rows: list[tuple[float, ...]] = []
        self._listed: set[int] = set()
        self._items = items

    def add(self, user: int, ranked: Sequence[int], answers: Collection[int], counts: Counts, events: int) -> None:
        """Compare a list with what followed."""
        self._users.append(user)
        self._rows.append((*measure(ranked, answers), novelty(ranked, counts, events)))
        self._listed.update(ranked[:TOP])

    def close(self) -> Measured:
        """The measures so far."""
        rows = np.array(self._rows, np.float64).reshape(-1, len(MEASURES))
        return Measured(np.array(self._users, np.int64), rows, len(self._listed), self._items)
