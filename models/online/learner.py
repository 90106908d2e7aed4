"""The learner: merges lessons into tables, numbers items, and makes the updates that scorers apply."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.online.dimensions import PAIR_HALF_LIFE_MS
from models.online.item_popularity import ItemPopularity
from models.online.lessons import LessonSums, decode_gradients
from models.online.pair_table import Pairs, PairTable, Rows
from models.online.score_weights import Gradients, ScoreWeights
from models.online.updates import Update, UpdateColumns, packed

USERS_MIN: Final = 2
"""An item, or a pair, is published from its second user on."""


class Learner:
    """`items_max`: items that have a row; when there are more, the least popular tenth lose theirs. One merge takes up
    no more new items than there is room for, or a tenth: of a flood, those with most events.

    `pair_rows_max`: rows of pairs in one update; others wait for the next, those that changed first come first.
    """

    def __init__(self, items_max: int = 200_000, pair_rows_max: int = 2_000) -> None:
        self._items_max = items_max
        self._pair_rows_max = pair_rows_max
        self.sequence = 0
        self.ids: list[str] = [""]
        self.index: dict[str, int] = {}
        self.pairs = PairTable()
        self.popularity = ItemPopularity()
        self.weights = ScoreWeights()
        self._named: set[int] = set()
        self._changed: set[int] = set()
        self._waiting: dict[int, None] = {}
        self._free: list[int] = []

    def number_items(self) -> None:
        """Make the index and the free rows from `ids`, after they were read from state."""
        self.index = {item: row for row, item in enumerate(self.ids) if item}
        self._free = [row for row in range(len(self.ids) - 1, 0, -1) if not self.ids[row]]

    def take_changed(self) -> set[int]:
        """The rows that changed since the last call."""
        changed, self._changed = self._changed, set()
        return changed

    def learn(self, lessons: Sequence[LessonSums], at_ms: int) -> Update:
        """Merge `lessons` and return the update; the sequence becomes `at_ms`, or the next number where that is less.

        A count would fall behind what scorers have after a restore.
        """
        after, self.sequence = self.sequence, max(self.sequence + 1, at_ms)
        new = self._newcomers(lessons)
        renamed = self._make_room(lessons, new)
        changed = self._merge(lessons, new)
        steps = Gradients()
        for sums in lessons:
            if sums.gradients is not None:
                steps.add(decode_gradients(sums.gradients))
        self.weights.step(steps)
        taken = list(self._waiting)[: self._pair_rows_max]
        for row in taken:
            del self._waiting[row]
        return self._update(after, at_ms, changed, np.array(taken, np.int64), renamed)

    def begin(self, at_ms: int) -> Update:
        """All of the model as one update that begins anew, at the next sequence: for after a restore.

        What scorers have had of this learner since the snapshot is no part of it.
        """
        self.sequence = max(self.sequence + 1, at_ms)
        self._named.clear()
        self._waiting.clear()
        rows = np.flatnonzero(self.popularity.born_ms)
        pair_rows = np.flatnonzero(self.pairs.left_mass.any(axis=1))
        return self._update(0, at_ms, rows, pair_rows, [])

    def _newcomers(self, lessons: Sequence[LessonSums]) -> set[str]:
        """The items that get a row now."""
        events = Counter[str]()
        for sums in lessons:
            seen = np.bincount(np.frombuffer(sums.event_items, "<i4"), minlength=len(sums.items)).tolist()
            events.update({item: n for item, n in zip(sums.items, seen, strict=True) if item not in self.index})
        most = max(self._items_max // 10, self._items_max - len(self.index), 1)
        return {item for item, _ in events.most_common(most)}

    def _merge(self, lessons: Sequence[LessonSums], new: Collection[str]) -> Rows:
        """Merge popularity and pairs of items that have a row, or get one; returns the rows of items that changed."""
        if not lessons:
            return np.empty(0, np.int64)
        rows = [np.array([self._row_of(item, new) for item in sums.items], np.int64) for sums in lessons]
        self.popularity.grow(len(self.ids))
        self.pairs.grow(len(self.ids))

        def column(name: str, dtype: str) -> list[npt.NDArray[Any]]:
            return [np.frombuffer(getattr(sums, name), dtype) for sums in lessons]

        def numbered(name: str) -> Rows:
            return np.concatenate([row[place] for row, place in zip(rows, column(name, "<i4"), strict=True)])

        reference = max(sums.reference_ts for sums in lessons)
        fading = [np.exp2((sums.reference_ts - reference) / PAIR_HALF_LIFE_MS) for sums in lessons]
        counts = [raw.reshape(-1, 3) * fade for raw, fade in zip(column("counts", "<f4"), fading, strict=True)]
        pairs = Pairs(
            numbered("left"),
            numbered("right"),
            np.concatenate(counts).astype(np.float32),
            np.concatenate(column("bits", "<u8")),
        )
        pairs = pairs.where((pairs.left > 0) & (pairs.right > 0))
        for row in self.pairs.merge(pairs, reference, self.sequence).tolist():
            self._waiting.setdefault(row)
            self._changed.add(row)
        self._changed.update(pairs.right.tolist())
        items = numbered("event_items")
        known = items > 0
        self._changed.update(np.unique(items[known]).tolist())
        return self.popularity.merge(
            items[known],
            np.ones(np.count_nonzero(known), np.float32),
            np.concatenate(column("event_bits", "<u8"))[known],
            np.concatenate(column("event_times", "<i8"))[known],
        )

    def _row_of(self, item: str, new: Collection[str]) -> int:
        """The row of an item, 0 for one that gets none."""
        row = self.index.get(item)
        if row is None:
            if item not in new:
                return 0
            if self._free:
                row = self._free.pop()
                self.ids[row] = item
            else:
                row = len(self.ids)
                self.ids.append(item)
            self.index[item] = row
        return row

    def _make_room(self, lessons: Sequence[LessonSums], new: Collection[str]) -> list[int]:
        """Take the rows of the least popular items where there would be too many; returns the published ones."""
        if len(self.index) + len(new) <= self._items_max:
            return []
        # Items of this update keep their rows: what it says of them would be lost.
        kept = {self.index[item] for sums in lessons for item in sums.items if item in self.index}
        used = np.array(sorted(set(self.index.values()) - kept), np.int64)
        size = min(len(used), max(self._items_max // 10, len(self.index) + len(new) - self._items_max))
        gone = used[np.argsort(self.popularity.counts[used, -1], kind="stable")[:size]]
        for row in gone.tolist():
            del self.index[self.ids[row]]
            self.ids[row] = ""
            self._waiting.pop(row, None)
        self.popularity.clear(gone)
        self._changed.update(gone.tolist())
        for row in self.pairs.clear(gone).tolist():
            self._waiting.setdefault(row)
            self._changed.add(row)
        self._free += sorted(gone.tolist(), reverse=True)
        published = [row for row in gone.tolist() if row in self._named]
        self._named.difference_update(published)
        return published

    def _update(self, after: int, at_ms: int, changed: Rows, pair_rows: Rows, renamed: Sequence[int]) -> Update:
        known = np.bitwise_count(self.popularity.bits[changed]) >= USERS_MIN
        items = changed[known]
        names = [(row, "", 0) for row in renamed]
        for row in items.tolist():
            if row not in self._named:
                self._named.add(row)
                names.append((row, self.ids[row], int(self.popularity.born_ms[row])))
        published = np.bitwise_count(self.popularity.bits) >= USERS_MIN
        pair_rows = pair_rows[published[pair_rows]]  # of an item of one user, no pair has two
        best = self.pairs.best(pair_rows, USERS_MIN, published)
        columns = UpdateColumns(
            packed(items.astype(np.int32)),
            packed(self.popularity.fair_counts(items)),
            packed(self.pairs.right_roots(items)),
            packed(pair_rows.astype(np.int32)),
            packed(best.neighbours),
            packed(best.shares),
            packed(best.mixed),
        )
        return Update(
            self.sequence,
            after,
            at_ms,
            self.popularity.landmark_ms,
            packed(self.popularity.totals),
            packed(self.weights.weights),
            names,
            columns,
        )
