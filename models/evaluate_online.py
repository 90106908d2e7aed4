"""How good the lists of the online model would have been on a file, beside popularity (`freshet model evaluate`).

Prequential (:mod:`models.online.prequential`): each step is first asked about, then learned; questions in the second
half count. Once for all items, and once for items that are new to the user.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from models.interactions import Interactions
from models.online.dimensions import POPULARITY_HALF_LIVES_MS
from models.online.prequential import OnlineRanker, RankedOnline, Steps, replay, steps_of
from models.online.simple_methods import DecayedCounts, best_items
from schemas.errors import ModelError
from schemas.events import EVENT_TYPES, KIND_WEIGHTS
from schemas.topics import DAY_MS, HOUR_MS

ONLINE: Final = "online model"
NEW_ITEMS: Final = ", new items"
ONLINE_MEASURES: Final = ("ndcg@10", "hr@10", "recall@20", "mrr", "coverage@10")
SAY_EVERY: Final = 10_000

Say = Callable[[str], None]


def evaluate_online(interactions: Interactions, say: Say = lambda line: None) -> dict[str, dict[str, float]]:
    """:data:`ONLINE_MEASURES` and the number of ``questions``, by method; those for new items end in ``, new items``.

    Only kinds that move lists are asked about and learned, as in the job. Raises :class:`ModelError` if no question is
    left: nobody has two events at different times, with one in the second half.
    """
    counted = interactions.where(_moves_lists(interactions))
    found: dict[str, dict[str, float]] = {}
    for suffix, new_items in (("", False), (NEW_ITEMS, True)) if len(counted) else ():
        steps = steps_of(counted)
        scores = replay(steps, _rankers(steps, new_items, say, suffix), new_items)
        for name, measured in scores.items():
            if len(measured.ndcg):
                table = measured.table()
                coverage = table.pop("listed") / len(interactions.item_ids)
                found[name + suffix] = table | {"coverage@10": coverage}
    if not found:
        kinds = ", ".join(KIND_WEIGHTS)
        raise ModelError(
            "there is nothing to evaluate: in the second half of the file no user has an event with one before it "
            f"(of the {len(interactions):,} interactions, {len(counted):,} are of kinds that count: {kinds})"
        )
    return found


def _moves_lists(interactions: Interactions) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    weights = np.array([KIND_WEIGHTS.get(name, 0.0) for name in EVENT_TYPES])
    moves: np.ndarray[tuple[int], np.dtype[np.bool_]] = weights[interactions.kinds] > 0
    return moves


def _rankers(steps: Steps, new_items: bool, say: Say, suffix: str) -> dict[str, RankedOnline]:
    online = OnlineRanker(steps.item_ids, new_items).ranker()
    popular = {_name_of(ms): _popularity(len(steps.item_ids), ms, new_items) for ms in POPULARITY_HALF_LIVES_MS}
    total = len(steps.ends)

    def report(learned: int) -> None:
        if learned % SAY_EVERY == 0 or learned == total:
            say(f"evaluated{suffix or ', all items'}: {learned:,} of {total:,} steps")

    return {ONLINE: online.counting(report), **popular}


def _popularity(items: int, half_life_ms: int, new_items: bool) -> RankedOnline:
    counts = DecayedCounts(items, half_life_ms)
    return RankedOnline(
        lambda asked: best_items(counts.shares(), asked.past if new_items else None),
        lambda asked, items: counts.add(items, asked.at_ms),
    )


def _name_of(half_life_ms: int) -> str:
    """
    >>> _name_of(6 * HOUR_MS), _name_of(7 * DAY_MS)
    ('popularity, 6 h', 'popularity, 7 days')
    """
    if half_life_ms < DAY_MS:
        return f"popularity, {half_life_ms // HOUR_MS} h"
    days = half_life_ms // DAY_MS
    return f"popularity, {days} day{'s' if days > 1 else ''}"
