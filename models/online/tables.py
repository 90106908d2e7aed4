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
_PRIOR: Final = 0.01
"""What all items share of a popularity, so that none is impossible."""


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

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to rank with yet."""
        return not self.index

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
        """Make the inputs of the graph from what updates brought; call it before ranking, once after all of them."""
        born = self._born_ms > 0
        shares = self._counts / self._totals
        logs = (np.log(EPSILON + shares) - LOG_EPSILON) / 10
        age_days = np.maximum(self.at_ms - self._born_ms, 0) / DAY_MS
        popularity = np.column_stack([logs, np.log1p(np.where(born, age_days, 0)) / 5])
        share = np.where(born, shares.sum(axis=1) + _PRIOR / MIX["popular"] / max(len(self.index), 1), -np.inf)
        front = self._front(share, born)
        self.feed = {
            **self._columns,
            "popularity": popularity.astype(np.float32),
            "front": front,
            "front_share": share[front].astype(np.float32),
        }

    def _front(self, share: npt.NDArray[np.float64], born: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
        """The most popular items, and the newest of all."""
        popular = _first(-share, np.flatnonzero(born), FRONT - NEWEST)
        others = np.setdiff1d(np.flatnonzero(born), popular, assume_unique=True)
        newest = _first(-self._born_ms.astype(np.float64), others, NEWEST)
        return np.concatenate([popular, newest]).astype(np.int32)

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


def _first(keys: npt.NDArray[np.float64], rows: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    """Those `size` of `rows` with the smallest keys, ties by row, in the order of keys."""
    if len(rows) > size:
        limit = np.partition(keys[rows], size - 1)[size - 1]
        rows = rows[keys[rows] <= limit]
    chosen: npt.NDArray[np.int64] = rows[np.lexsort((rows, keys[rows]))][:size]
    return chosen
