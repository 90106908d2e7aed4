"""What a scorer has of the online model: arrays by row, as the inputs of the graph want them, replaced by updates."""

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.online.blend_graph import LOG_EPSILON
from models.online.dimensions import (
    CHANNELS,
    CONTEXTS,
    EPSILON,
    FEATURES,
    FRONT,
    MIX,
    NEIGHBOURS,
    NEWEST,
    POPULARITIES,
    POPULARITY_HALF_LIVES_MS,
)
from models.online.score_weights import weights_of
from models.online.updates import Update, UpdateColumns, packed
from schemas.errors import ModelError
from schemas.topics import DAY_MS

_HALF_LIVES: Final = np.array(POPULARITY_HALF_LIVES_MS, np.float64)
PRIOR: Final = 0.01
"""What all items share of the popularity in a mix, so that none is impossible."""


_FOLLOWS, _NEAR = CHANNELS.index("follows"), CHANNELS.index("near")


class Similar(NamedTuple):
    """`rows` int32[n, size] of items, the most alike first, and how much, as a share of the first: `likeness`
    float64[n, size], 0 for none."""

    rows: npt.NDArray[np.int32]
    likeness: npt.NDArray[np.float64]


class Tables:
    """Row 0 is padding. `ids[row]` is an item's id, "" where scorers do not know the row; `index` id → row.

    Lists name `sequence`: whoever applies the same updates has the same tables, byte for byte.
    """

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.sequence = self.at_ms = self._landmark_ms = 0
        self.ids: list[str] = [""]
        self.index: dict[str, int] = {}
        self._counts = np.zeros((1, POPULARITIES))
        self._totals = np.full(POPULARITIES, 1e-12)
        self._born_ms = np.zeros(1, np.int64)
        self.score_weights = np.zeros((CONTEXTS + 1, FEATURES))
        self._columns: dict[str, npt.NDArray[Any]] = {
            "neighbours": np.zeros((1, NEIGHBOURS), np.int32),
            "mixed": np.zeros((1, NEIGHBOURS), np.float16),
            "shares": np.zeros((1, NEIGHBOURS * len(CHANNELS)), np.float16),
            "right_root": np.zeros(1, np.float32),
        }
        self.feed: dict[str, npt.NDArray[Any]] = {}
        self._popular = self._newest = np.zeros(0, np.int64)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to rank with yet."""
        return not self.index

    def listable(self) -> npt.NDArray[np.bool_]:
        """Whether an item may be in lists, by row: it has been published, and has not lost its row since."""
        return self._born_ms > 0

    def apply(self, update: Update) -> None:
        """Replace what `update` brings; raises :class:`ModelError` where one before it is missing."""
        if update.begins:
            self._clear()
        elif update.after != self.sequence:
            raise ModelError(f"update {update.sequence} follows {update.after}, these tables are at {self.sequence}")
        self._name(update)
        self._count(update)
        rows, columns = update.pair_rows(), self._columns
        columns["neighbours"][rows] = update.neighbours()
        columns["shares"][rows] = update.shares()
        columns["mixed"][rows] = update.mixed()
        self.score_weights = update.score_weights()
        self.sequence, self.at_ms = update.sequence, update.at_ms

    def _name(self, update: Update) -> None:
        told = update.item_rows(), update.pair_rows(), update.neighbours().reshape(-1)
        highest = max((int(rows.max()) for rows in told if len(rows)), default=0)
        highest = max([highest, *(row for row, _, _ in update.names)])
        self._grow(highest + 1)
        self._forget([row for row, item, _ in update.names if not item])
        for row, item, born_ms in update.names:
            previous = self.ids[row]
            if previous:
                self.index.pop(previous, None)
            self.ids[row], self._born_ms[row] = item, born_ms
            if item:
                self.index[item] = row

    def _forget(self, rows: list[int]) -> None:
        """Have nothing of rows that lose their item: no row keeps them as neighbours, and they keep none."""
        if not rows:
            return
        gone = np.zeros(len(self.ids), np.bool_)
        gone[rows] = True
        columns = self._columns
        stale = gone[columns["neighbours"]] | gone[:, None]
        columns["neighbours"][stale] = 0
        columns["mixed"][stale] = 0
        columns["shares"].reshape(*stale.shape, len(CHANNELS))[stale] = 0
        columns["right_root"][rows] = 0
        self._counts[rows] = 0

    def _grow(self, rows: int) -> None:
        more = rows - len(self.ids)
        if more <= 0:
            return
        more = max(more, len(self.ids) // 4)
        self.ids += [""] * more
        for name, column in self._columns.items():
            self._columns[name] = _longer(column, more)
        self._counts, self._born_ms = _longer(self._counts, more), _longer(self._born_ms, more)

    def _count(self, update: Update) -> None:
        if self._landmark_ms and update.landmark_ms > self._landmark_ms:
            self._counts *= np.exp2((self._landmark_ms - update.landmark_ms) / _HALF_LIVES)
        self._landmark_ms = update.landmark_ms
        rows = update.item_rows()
        self._counts[rows] = update.item_counts()
        self._totals = np.frombuffer(update.totals, "<f8")
        self._columns["right_root"][rows] = update.right_roots()

    def whole(self) -> Update:
        """These tables as one update that begins anew, at the same sequence: who applies it has the same tables."""
        rows = np.array(sorted(self.index.values()), np.int64)
        pair_rows = np.flatnonzero(self._columns["neighbours"].any(axis=1))
        columns = UpdateColumns(
            packed(rows.astype(np.int32)),
            packed(self._counts[rows]),
            packed(self._columns["right_root"][rows]),
            packed(pair_rows.astype(np.int32)),
            packed(self._columns["neighbours"][pair_rows]),
            packed(self._columns["shares"][pair_rows]),
            packed(self._columns["mixed"][pair_rows]),
        )
        names = [(row, self.ids[row], int(self._born_ms[row])) for row in rows.tolist()]
        totals, weights = packed(self._totals), packed(self.score_weights)
        return Update(self.sequence, 0, self.at_ms, self._landmark_ms, totals, weights, names, columns)

    def refresh(self) -> None:
        """Make the inputs of the graph from what updates brought; call it before ranking, once after all of them.

        Popularity and age of all items change each second, so this is the one step that grows with the catalogue.
        """
        rows = len(self.ids)
        popularity, share = np.empty((rows, POPULARITIES + 1), np.float32), np.zeros(rows)
        for column, total in enumerate(self._totals):
            its = self._counts[:, column] / total
            share += its
            popularity[:, column] = _logs(its)
        popularity[:, POPULARITIES] = self._ages()
        front = self._front(share)
        # Of the front alone, whose rows are few: what is added to every share changes no order.
        prior = PRIOR / MIX["popular"] / max(len(self.index), 1)
        self.feed = {
            **self._columns,
            "popularity": popularity,
            "front": front,
            "front_share": (share[front] + prior).astype(np.float32),
        }

    def _ages(self) -> npt.NDArray[np.float32]:
        """Of each item, the logarithm of its days; 0 where there is no item."""
        days = (self.at_ms - self._born_ms).astype(np.float32) / np.float32(DAY_MS)
        days[(self._born_ms == 0) | (days < 0)] = 0
        ages: npt.NDArray[np.float32] = np.log1p(days, out=days)
        ages /= 5
        return ages

    def _front(self, share: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
        """The most popular items, and the newest of all."""
        listable = self.listable()
        share = np.where(listable, share, -1.0)
        popular = largest(share, self._popular, FRONT - NEWEST)
        self._popular = popular[listable[popular]]
        born = self._born_ms.astype(np.float64)
        born[self._popular] = 0
        newest = largest(born, self._newest, NEWEST)
        self._newest = newest[born[newest] > 0]
        return np.concatenate([self._popular, self._newest]).astype(np.int32)

    def similar(self, rows: npt.NDArray[np.int64], size: int) -> Similar:
        """The up to `size` items most like each of `rows`.

        Another item is alike by the share of the row's pairs that are with it, over the fourth root of all pairs of
        that item: halfway between that share, which prefers what everybody meets, and the cosine of counts, which
        prefers what hardly anybody does.
        """
        columns = self._columns
        neighbours = columns["neighbours"][rows]
        neighbours = np.where(neighbours < len(self._born_ms), neighbours, 0)
        said = columns["shares"][rows].reshape(len(rows), NEIGHBOURS, len(CHANNELS)).astype(np.float64)
        share = (said[:, :, _FOLLOWS] + said[:, :, _NEAR]) / 2
        root = columns["right_root"][neighbours].astype(np.float64)
        likeness = np.where(self._born_ms[neighbours] > 0, share * np.sqrt(root), 0.0)
        likeness /= np.maximum(likeness.max(axis=1, keepdims=True, initial=0.0), 1e-30)
        best = np.argsort(-likeness, axis=1, kind="stable")[:, :size]
        return Similar(np.take_along_axis(neighbours, best, axis=1), np.take_along_axis(likeness, best, axis=1))

    def weights(self, contexts: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """The score's weights for histories of these contexts: float32[n, features]."""
        return weights_of(self.score_weights, contexts)


def _longer(column: npt.NDArray[Any], more: int) -> npt.NDArray[Any]:
    return np.concatenate([column, np.zeros((more, *column.shape[1:]), column.dtype)])


def _logs(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Logarithms as the features want them, 0 for nothing. In float32, which numpy computes four times as fast."""
    logs = shares.astype(np.float32)
    logs += np.float32(EPSILON)
    np.log(logs, out=logs)
    logs -= np.float32(LOG_EPSILON)
    logs /= 10
    return logs


def largest(keys: npt.NDArray[np.float64], before: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    """The `size` rows with the largest keys, ties by row, in the order of keys.

    `before`, any rows, only saves time: the smallest key of so many rows is a bound that few others reach.
    """
    if len(keys) > size:
        bound = keys[before].min() if len(before) == size else np.partition(keys, -size)[-size]
        rows = np.flatnonzero(keys >= bound)
    else:
        rows = np.arange(len(keys))
    chosen: npt.NDArray[np.int64] = rows[np.lexsort((rows, -keys[rows]))][:size]
    return chosen
