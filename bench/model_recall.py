"""What is lost by choosing candidates first, beside scoring every item: recall, and nDCG@10.

:func:`score_all` is written apart from the graph: it adds up what every published pair says of every item, older
halves included, counts popularity for all items and not for the front alone, and scores all of them.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from evaluation.job_twin import JobRules, Took
from evaluation.methods import OnlineMethod
from evaluation.side_by_side import Asked, Method, replay
from evaluation.steps import Protocol, moving, plan
from evaluation.study import TABLES, Say
from models.interactions import Interactions
from models.online.blend import Blend, Histories
from models.online.blend_graph import LOG_EPSILON
from models.online.dimensions import EPSILON, LAG_DECAY, MIX, POPULARITIES
from models.online.score_weights import context_of
from models.online.tables import PRIOR, Tables
from udfs.ranking import ListRules

SIZES: Final = (10, 30, 100)
"""Of lists. 30 is the default of `lists.items`."""
EVERY: Final = 10
"""Only every 10th question is compared: scoring all items takes milliseconds."""
Floats = npt.NDArray[np.float64]


class Recall(NamedTuple):
    """Of `lists` lists: the mean share of the best n items that lists of n have, by n; and nDCG@10 of lists as they
    are, and of lists of the best of all items."""

    shares: dict[int, float]
    lists: int
    ndcg: float
    ndcg_of_all: float


def measure(retail: Interactions, say: Say) -> dict[str, Recall]:
    """On Online Retail, by name of :data:`evaluation.study.TABLES`."""
    steps, found = plan(moving(retail), Protocol.PREQUENTIAL), {}
    for name, lists in TABLES.items():
        chosen = _Chosen(retail.item_ids, JobRules(lists))
        methods: dict[str, Method] = {"chosen": chosen, "all": _OfAll(chosen, lists)}
        measured = replay(steps, methods, retail.item_ids, JobRules(lists)).measured
        ndcg, of_all = (float(measured[each].column("ndcg@10")[EVERY - 1 :: EVERY].mean()) for each in methods)
        shares = dict(zip(SIZES, np.mean(chosen.shares, axis=0).tolist(), strict=True))
        found[name] = Recall(shares, len(chosen.shares), ndcg, of_all)
        say(f"candidates, {name} items: {shares[100]:.3f} of the best 100, nDCG@10 {ndcg:.4f}, of all {of_all:.4f}")
    return found


class _Chosen(OnlineMethod):
    """The online model; every 10th question has a list."""

    def __init__(self, item_ids: list[str], rules: JobRules) -> None:
        super().__init__(item_ids, rules)
        self.code = {item: code for code, item in enumerate(item_ids)}
        self.shares: list[list[float]] = []
        self.asked = 0

    def rank(self, asked: Asked) -> list[int]:
        """See :class:`evaluation.side_by_side.Method`."""
        self.asked += 1
        return super().rank(asked) if self.asked % EVERY == 0 else []


class _OfAll:
    """The best of all items by the model of `chosen`, which is asked and taught first."""

    def __init__(self, chosen: _Chosen, rules: ListRules) -> None:
        self._chosen, self._rules, self._blend = chosen, rules, Blend()

    def rank(self, asked: Asked) -> list[int]:
        """See :class:`evaluation.side_by_side.Method`."""
        chosen, model = self._chosen, self._chosen.model
        profile = asked.state.profile if asked.state is not None else None
        if chosen.asked % EVERY or profile is None or model.tables.is_empty:
            return []
        histories = model.histories([profile], self._rules)
        scores, rows = self._blend.rank(histories, model.tables, max(SIZES))
        listed = rows[0][np.isfinite(scores[0])]
        best = best_of_all(histories, 0, model.tables, max(SIZES))
        chosen.shares.append([float(np.isin(best[:size], listed[:size]).mean()) for size in SIZES])
        return [chosen.code[model.tables.ids[row]] for row in best.tolist()]

    def learn(self, asked: Asked, items: list[int], took: Took) -> None:
        """Nothing: `chosen` learns."""


def best_of_all(histories: Histories, user: int, tables: Tables, size: int) -> npt.NDArray[np.int64]:
    """The up to `size` rows with the highest scores, the best first."""
    scores = score_all(histories, user, tables)
    best: npt.NDArray[np.int64] = np.lexsort((np.arange(len(scores)), -scores))[:size]
    listable: npt.NDArray[np.int64] = best[np.isfinite(scores[best])]
    return listable


def score_all(histories: Histories, user: int, tables: Tables) -> Floats:
    """The score of each row for a user, by the formulas of :mod:`models.online.blend_graph` for all items:
    float64[rows], -inf for what may not be listed."""
    feed = tables.feed
    items = histories.items[user]
    places = np.flatnonzero(items)
    rows, lags = items[places], LAG_DECAY ** (len(items) - 1.0 - places)
    length, total = max(len(rows), 1), max(float(lags.sum()), 1e-9)
    shares = _shares(feed["popularity"])
    size = len(shares)

    neighbours = feed["neighbours"][rows]
    said = feed["shares"][rows].astype(np.float64).reshape(*neighbours.shape, -1)
    newest = (places == len(items) - 1).astype(np.float64)
    follows = _added(size, neighbours, said[:, :, 0] * (lags / total)[:, None])
    near = _added(size, neighbours, said[:, :, 1] / length)
    following = _added(size, neighbours, said[:, :, 2] * newest[:, None])
    cosine = _added(size, neighbours, said[:, :, 3] * lags[:, None]) * feed["right_root"]
    mix = _added(size, neighbours, feed["mixed"][rows].astype(np.float64) * (lags / total)[:, None])

    inside, place, own = np.zeros(size), np.zeros(size), np.zeros(size)
    inside[rows], place[rows] = 1, 1 / (len(items) - places)
    np.add.at(own, histories.own[user], histories.own_counts[user])
    mix += MIX["recent"] * inside / length + MIX["own"] * own / max(float(own.sum()), 1e-9)
    mix += MIX["popular"] * shares.sum(axis=1) + PRIOR / max(len(tables.index), 1)

    said_logs = [np.log(np.maximum(one, 0) + EPSILON) / 10 - LOG_EPSILON / 10 for one in (mix, follows, near)]
    others = [np.log(one + EPSILON) / 10 - LOG_EPSILON / 10 for one in (following, cosine)]
    day = feed["popularity"][:, 1].astype(np.float64)
    features = [
        *said_logs,
        *others,
        *feed["popularity"].T,
        *(one > 0 for one in (follows, near, following)),
        *(place, inside, own, inside / length, place == 1),
        *(log**2 for log in said_logs),
        *(day**2, said_logs[1] * day, said_logs[2] * day),
    ]
    weights = tables.weights(context_of(histories.sizes))[user].astype(np.float64)
    scores = sum((weight * feature for weight, feature in zip(weights, features, strict=True)), np.zeros(size))
    scores[~tables.listable()] = -np.inf
    scores[histories.excluded[user]] = -np.inf
    scores[0] = -np.inf
    return scores


def _added(size: int, rows: npt.NDArray[np.int32], values: Floats) -> Floats:
    return np.bincount(rows.reshape(-1), values.reshape(-1), size).astype(np.float64)


def _shares(popularity: npt.NDArray[np.float32]) -> Floats:
    """What popularity features were made of."""
    logs = popularity[:, :POPULARITIES].astype(np.float64) * 10 + LOG_EPSILON
    shares: Floats = np.maximum(np.exp(logs) - EPSILON, 0)
    return shares
