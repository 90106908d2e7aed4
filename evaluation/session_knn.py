"""VMIS-kNN, a session-based nearest-neighbour recommender, kept online (Kersbergen, Sprangers, Schelter, "Serenade:
Low-Latency Session-Based Recommendation in e-Commerce at Scale", SIGMOD 2022): a peer of the online model.

A user's history is one session, which grows and becomes the most recent with each step. Of each item of the current
history, the `M` most recent sessions are looked up; the `K` most similar of them vote for their items::

    similarity(s) = sum over shared items of (place in the history, from 1) / (length of the history)
    score(i)      = sum over sessions with i of lambda(s) * similarity(s) * log(sessions / sessions with i)

``lambda(s)`` is 1 - x / 10, with x items of the history after the newest shared one, and 0 from x = 10 on.
"""

from collections import OrderedDict
from typing import Final

import numpy as np

from evaluation.job_twin import Took
from evaluation.side_by_side import Asked
from evaluation.simple_methods import best_items

M: Final = 500
K: Final = 100


class SessionKnn:
    """`items` are codes from 0; `new_items`: lists leave out what the user had."""

    def __init__(self, items: int, new_items: bool) -> None:
        self._items, self._new_items = items, new_items
        self._sessions: dict[int, set[int]] = {}
        self._recent: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(items)]
        self._with_item = np.zeros(items)

    def rank(self, asked: Asked) -> list[int]:
        """The list of a question."""
        history = asked.past.recents
        similar: dict[int, float] = {}
        newest: dict[int, int] = {}
        for place, item in enumerate(history, start=1):
            for session in self._recent[item]:
                similar[session] = similar.get(session, 0.0) + place / len(history)
                newest[session] = place
        nearest = sorted(similar, key=similar.__getitem__, reverse=True)[:K]
        scores = np.zeros(self._items)
        for session in nearest:
            after = len(history) - newest[session]
            scores[list(self._sessions[session])] += max(0.0, 1 - 0.1 * after) * similar[session]
        rarity = np.log(max(len(self._sessions), 1) / np.maximum(self._with_item, 1.0))
        return best_items(scores * rarity, asked.past if self._new_items else None)

    def learn(self, asked: Asked, items: list[int], took: Took) -> None:
        """Take a step: the user's session has these items too, and is the most recent of each of its items."""
        session = self._sessions.setdefault(asked.user, set())
        new = [item for item in items if item not in session]
        self._with_item[new] += 1
        session.update(new)
        for item in items:
            recent = self._recent[item]
            recent[asked.user] = None
            recent.move_to_end(asked.user)
            if len(recent) > M:
                recent.popitem(last=False)
