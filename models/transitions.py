"""Item-to-item transitions, counted over users' sequences with decay, and a popularity prior.

A *step* is everything that one user did at one moment: one event, or a basket whose lines share a timestamp. For steps
``s`` and ``s + d`` of one user, ``0 < d <= lags``, each pair (item of s, item of s + d) counts
``lag_decay ** (d - 1)``; mates within one step count ``basket_weight`` in both directions. Each side is weighted by its
kind of event, the earlier step by ``size ** -0.5`` so that large baskets do not drown small ones, and the pair by its
age. Counts ``C`` are then damped for popularity on both sides (the cosine of implicit-feedback item kNN: Deshpande &
Karypis, "Item-Based Top-N Recommendation Algorithms", TOIS 2004)::

    value[a, b] = C[a, b] / sqrt(sum of C[a, :] * sum of C[:, b])

The largest ``neighbours`` values of each item are kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import sparse

from models.graph import Floats, Transitions
from models.interactions import Interactions
from models.manifest import RECENT_ITEMS_MAX
from schemas.errors import ModelError
from schemas.events import EVENT_TYPES, KIND_WEIGHTS

DAY_MS: Final = 86_400_000
HISTORY_DECAY: Final = 0.95
"""Used if there is too little data to choose a decay (see :func:`evaluation.frozen.choose_decay`)."""
SAMPLE_USERS: Final = 1_000

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TrainingSettings:
    """How to train. The defaults were chosen on the 60-80 % slice of Online Retail, not on its test slice.

    Half-lives are in days. ``item_users_min``: items used by fewer users are left out. ``popularity_weight``: the
    weight of e-fold popularity, as a share of a typical best score. ``history_decay``: the weight of an item of the
    history relative to the next newer one; None chooses it from the data if there is enough, else `HISTORY_DECAY`.
    """

    neighbours: int = 64
    top_k: int = 50
    lags: int = 5
    lag_decay: float = 0.75
    basket_weight: float = 1.0
    history_decay: float | None = None
    half_life_days: float = 30.0
    popularity_half_life_days: float = 7.0
    popularity_weight: float = 0.05
    item_users_min: int = 2
    popular_users_min: int = 10
    kind_weights: Mapping[str, float] = field(default_factory=lambda: KIND_WEIGHTS)


@dataclass(frozen=True)
class Trained:
    """A trained model: its numbers, the item ids in row order (most popular first), and each item's distinct users."""

    numbers: Transitions
    items: list[str]
    item_users: Ints
    learned: "Learned"

    def with_decay(self, history_decay: float) -> "Trained":
        """The same transitions with a history that decays by ``history_decay`` per item."""
        return replace(self, numbers=self.learned.numbers(history_decay))


@dataclass(frozen=True)
class Events:
    """The interactions that count, sorted by user, then time; an item is in a step once, with its heaviest kind.

    ``rows`` are item codes from 0 in the order of the model.
    """

    users: Ints
    rows: Ints
    ts_ms: Ints
    weights: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Learned:
    """The result of training, before the decay of a history is chosen.

    ``counts`` and ``values`` are sparse float32[items, items], by item codes in the order of the model; ``neighbours``
    and ``kept`` are the largest values in the form of :class:`models.graph.Transitions`.
    """

    events: Events
    counts: Any
    values: Any
    neighbours: npt.NDArray[np.int32]
    kept: Floats
    popularity: npt.NDArray[np.float64]
    settings: TrainingSettings

    def numbers(self, history_decay: float) -> Transitions:
        """The numbers of the model; the popularity prior is scaled to scores with this decay."""
        lags = lag_weights(history_decay)
        prior = np.log(self.popularity + 0.01 * self.popularity.mean())
        scale = self.settings.popularity_weight * _typical_best(self.events, self.values, lags)
        bias = np.concatenate([[-np.inf], (prior - prior.mean()) * scale]).astype(np.float32)
        return Transitions(self.neighbours, self.kept, bias, lags)


def lag_weights(decay: float) -> Floats:
    """The weight of each position in the history, oldest first: ``decay ** lag``; the newest has lag 0."""
    return (decay ** np.arange(RECENT_ITEMS_MAX - 1, -1, -1)).astype(np.float32)


def kind_weights_of(settings: TrainingSettings) -> npt.NDArray[np.float64]:
    """The weight of each kind by its index in ``EVENT_TYPES``; unnamed kinds weigh 0 and are not used."""
    return np.array([settings.kind_weights.get(kind, 0.0) for kind in EVENT_TYPES])


def train(interactions: Interactions, settings: TrainingSettings | None = None) -> Trained:
    """Train on all of ``interactions``; raises :class:`ModelError` if no item has enough users. Deterministic."""
    settings = settings or TrainingSettings()
    weights = kind_weights_of(settings)[interactions.kinds]
    used = weights > 0
    users, items, ts = interactions.users[used], interactions.items[used], interactions.ts_ms[used]
    item_users = _distinct_users(users, items, len(interactions.item_ids))
    enough = item_users >= settings.item_users_min
    if not enough.any():
        raise ModelError(
            f"no item was used by {settings.item_users_min} users or more ({len(interactions)} interactions, "
            f"{int(used.sum())} of a kind that counts): there is nothing to learn: give more data"
        )
    popularity = _popularity(items, ts, weights[used], len(item_users), settings)
    order = np.argsort(np.where(enough, -popularity, np.inf), kind="stable")[: int(enough.sum())]
    rows = np.full(len(item_users), -1, np.int64)
    rows[order] = np.arange(len(order))
    events = _sorted(users, rows[items], ts, weights[used])
    counts = _counts(events, len(order), settings)
    values = _damped(counts)
    learned = Learned(
        events, counts, values, *_strongest(values, min(settings.neighbours, len(order))), popularity[order], settings
    )
    names = [interactions.item_ids[code] for code in order]
    decay = HISTORY_DECAY if settings.history_decay is None else settings.history_decay
    return Trained(learned.numbers(decay), names, item_users[order], learned)


def _distinct_users(users: Ints, items: Ints, count: int) -> Ints:
    pairs = np.unique(np.stack([items, users]), axis=1)
    return np.bincount(pairs[0], minlength=count).astype(np.int64)


def _recency(ts_ms: Ints, until_ms: int, half_life_days: float) -> npt.NDArray[np.float64]:
    """0.5 to the power of the age in half-lives."""
    weights: npt.NDArray[np.float64] = 0.5 ** ((until_ms - ts_ms) / (half_life_days * DAY_MS))
    return weights


def _popularity(
    items: Ints, ts: Ints, weights: npt.NDArray[np.float64], count: int, settings: TrainingSettings
) -> npt.NDArray[np.float64]:
    recent = _recency(ts, int(ts.max()), settings.popularity_half_life_days)
    return np.bincount(items, weights=weights * recent, minlength=count).astype(np.float64)


def _sorted(users: Ints, rows: Ints, ts: Ints, weights: npt.NDArray[np.float64]) -> Events:
    known = rows >= 0
    users, rows, ts, weights = users[known], rows[known], ts[known], weights[known]
    order = np.lexsort((weights, rows, ts, users))
    users, rows, ts, weights = users[order], rows[order], ts[order], weights[order]
    last = np.r_[(np.diff(users) != 0) | (np.diff(ts) != 0) | (np.diff(rows) != 0), True]
    return Events(users[last], rows[last], ts[last], weights[last])


def _counts(events: Events, items: int, settings: TrainingSettings) -> Any:
    """The weighted pair counts ``C`` as a sparse matrix float32[items, items]."""
    fresh = np.r_[True, (np.diff(events.users) != 0) | (np.diff(events.ts_ms) != 0)]
    step = np.cumsum(fresh) - 1
    users, ts = events.users[fresh], events.ts_ms[fresh]
    shape = (len(users), items)
    matrix = sparse.csr_matrix((events.weights, (step, events.rows)), shape=shape, dtype=np.float32)
    size = np.diff(matrix.indptr)
    earlier = (sparse.diags(size.astype(np.float32) ** -0.5) @ matrix).T.tocsr()
    recent = _recency(ts, int(ts.max()), settings.half_life_days).astype(np.float32)
    mates = earlier @ (sparse.diags(recent * settings.basket_weight) @ matrix)
    mates.setdiag(0)
    return (mates + earlier @ (_following(users, recent, settings) @ matrix)).tocsr().astype(np.float32)


def _following(users: Ints, recent: npt.NDArray[np.float32], settings: TrainingSettings) -> Any:
    """Sparse float32[steps, steps]: the weight of each step as a follower of each earlier step of its user."""
    steps = len(users)
    total = sparse.csr_matrix((steps, steps), dtype=np.float32)
    for lag in range(1, min(settings.lags, steps - 1) + 1):
        at = np.flatnonzero(users[lag:] == users[:-lag])
        data = recent[at + lag] * np.float32(settings.lag_decay ** (lag - 1))
        total = total + sparse.csr_matrix((data, (at, at + lag)), shape=(steps, steps))
    return total


def _damped(counts: Any) -> Any:
    outgoing, incoming = (np.asarray(counts.sum(axis)).ravel() for axis in (1, 0))
    left, right = (np.where(total > 0, total, 1) ** -0.5 for total in (outgoing, incoming))
    return (sparse.diags(left) @ counts @ sparse.diags(right)).tocsr().astype(np.float32)


def _strongest(values: Any, keep: int) -> tuple[npt.NDArray[np.int32], Floats]:
    """The ``keep`` largest values of each row, as ``(neighbours, values)`` of :class:`models.graph.Transitions`."""
    items = values.shape[0]
    neighbours = np.zeros((items + 1, keep), np.int32)
    kept = np.zeros((items + 1, keep), np.float32)
    for row in range(items):
        cut = slice(values.indptr[row], values.indptr[row + 1])
        data, columns = values.data[cut], values.indices[cut]
        best = np.lexsort((columns, -data))[:keep]
        best = best[data[best] > 0]
        neighbours[row + 1, : len(best)] = columns[best] + 1
        kept[row + 1, : len(best)] = data[best]
    return neighbours, kept


def _typical_best(events: Events, values: Any, lags: Floats) -> float:
    """The mean, over the last histories of up to `SAMPLE_USERS` users, of the best score without popularity."""
    ends = np.flatnonzero(np.r_[np.diff(events.users) != 0, True])
    chosen = ends[np.linspace(0, len(ends) - 1, min(SAMPLE_USERS, len(ends))).astype(np.int64)]
    position = chosen[:, None] - np.arange(len(lags))[::-1]
    inside = position >= 0
    position = np.maximum(position, 0)
    same = inside & (events.users[position] == events.users[chosen][:, None])
    data = np.where(same, lags, 0).ravel()
    user = np.repeat(np.arange(len(chosen)), len(lags))
    histories = sparse.csr_matrix((data, (user, events.rows[position].ravel())), shape=(len(chosen), values.shape[0]))
    best = (histories @ values).max(axis=1).toarray()
    return float(best.mean()) or 1.0
