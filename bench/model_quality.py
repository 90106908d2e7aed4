"""How good lists are: all ways of ranking side by side on Online Retail, each step first asked, then learned."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from models.interactions import Columns, Interactions, read
from models.online.bootstrap import Difference, difference
from models.online.frozen_ranker import FrozenRanker
from models.online.prequential import OnlineRanker, Scores, replay, steps_of
from models.online.session_knn import SessionKnn
from models.online.simple_methods import SimpleMethods

COLUMNS: Final = Columns("customer_id", "stock_code", "invoice_ts", every="purchase", quantity="quantity")
ONLINE: Final = "online model"
PEER: Final = "VMIS-kNN (peer)"
FROZEN: Final = "frozen model, trained on the first half"
PUBLISH_EVERY_MS: Final = 1_000
SAY_EVERY: Final = 2_000

Say = Callable[[str], None]


class Quality(NamedTuple):
    """Of one question (all items, or new ones): measures by method, and the online model beside the best simple one."""

    scores: dict[str, Scores]
    best_simple: str
    over_simple: Difference
    over_frozen: Difference

    def ndcg(self, method: str) -> float:
        """The mean nDCG@10 of a method."""
        return self.scores[method].table()["ndcg@10"]


def measure(path: Path, events: int | None, seed: int, say: Say) -> dict[str, Quality]:
    """``all`` and ``new``, over the first `events` lines in time, or all."""
    interactions = read(path, COLUMNS)
    for line in interactions.report_lines():
        say(line.strip())
    if events is not None:
        first = np.argsort(interactions.ts_ms, kind="stable")[:events]
        interactions = interactions.where(np.isin(np.arange(len(interactions)), first))
    return {name: _quality(interactions, name, seed, say) for name in ("all", "new")}


def _quality(interactions: Interactions, name: str, seed: int, say: Say) -> Quality:
    new_items, steps = name == "new", steps_of(interactions)
    half = interactions.where(interactions.ts_ms < steps.ts_ms[len(steps.users) // 2])
    items = len(interactions.item_ids)
    simple = SimpleMethods(items, new_items).rankers()
    online = OnlineRanker(interactions.item_ids, new_items, PUBLISH_EVERY_MS).ranker()

    def report(learned: int) -> None:
        if learned % SAY_EVERY == 0:
            say(f"{name} items: {learned:,} of {len(steps.ends):,} steps")

    rankers = {
        ONLINE: online.counting(report),
        **simple,
        PEER: SessionKnn(items, new_items).ranker(),
        FROZEN: FrozenRanker(half, new_items).ranker(),
    }
    scores = replay(steps, rankers, new_items)
    ndcg = {method: found.table()["ndcg@10"] for method, found in scores.items()}
    best = max(simple, key=ndcg.__getitem__)
    ours = scores[ONLINE]
    over = [difference(ours.users, ours.ndcg, scores[other].ndcg, seed) for other in (best, FROZEN)]
    for method, value in sorted(ndcg.items(), key=lambda entry: -entry[1]):
        say(f"{name} items: nDCG@10 {value:.4f} {method}")
    return Quality(scores, best, *over)
