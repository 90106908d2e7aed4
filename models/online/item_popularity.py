"""How popular each item is, at four half-lives, and how old it is.

Counts are kept as of a landmark (forward decay) that moves with each merge, so that a share, an item's count over the
count of all, changes only when events come.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from models.online.dimensions import EVENTS_OF_A_USER, POPULARITIES, POPULARITY_HALF_LIVES_MS, USER_BITS
from models.online.pair_table import add_rows

Floats = npt.NDArray[np.float64]
_HALF_LIVES: Final = np.array(POPULARITY_HALF_LIVES_MS, np.float64)
_USERS_OF_BITS: Final = np.append(-USER_BITS * np.log1p(-np.arange(USER_BITS) / USER_BITS), np.inf)


def users_of(bits: npt.NDArray[np.uint64]) -> Floats:
    """About how many users have set `bits`, float64 of the same shape; infinitely many where all are set.

    Linear counting (Whang, Vander-Zanden, Taylor: "A linear-time probabilistic counting algorithm", ACM TODS 1990).
    """
    users: Floats = _USERS_OF_BITS[np.bitwise_count(bits)]
    return users


class ItemPopularity:
    """Row 0 is padding. ``counts`` float64[rows, 4] and ``totals`` float64[4] as of ``landmark_ms``; ``born_ms``
    int64[rows], 0 where the item has not been met; ``bits`` uint64[rows], the user bits of each item."""

    def __init__(self, rows: int = 1) -> None:
        self.landmark_ms = 0
        self.counts = np.zeros((rows, POPULARITIES))
        self.totals = np.full(POPULARITIES, 1e-12)
        self.born_ms = np.zeros(rows, np.int64)
        self.bits = np.zeros(rows, np.uint64)

    def grow(self, rows: int) -> None:
        """Have at least ``rows`` rows; new ones are empty."""
        more = rows - len(self.counts)
        if more <= 0:
            return
        more = max(more, len(self.counts) // 4)
        self.counts = np.concatenate([self.counts, np.zeros((more, POPULARITIES))])
        self.born_ms = np.concatenate([self.born_ms, np.zeros(more, np.int64)])
        self.bits = np.concatenate([self.bits, np.zeros(more, np.uint64)])

    def merge(
        self,
        rows: npt.NDArray[np.int64],
        counts: npt.NDArray[np.float32],
        bits: npt.NDArray[np.uint64],
        times_ms: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.int64]:
        """Add events: each its row, its count, its user's bit and its time; returns the rows that changed."""
        if not len(rows):
            return rows
        self._move_landmark(int(times_ms.max()))
        added = counts[:, None] * np.exp2((times_ms[:, None] - self.landmark_ms) / _HALF_LIVES)
        add_rows(self.counts, rows, added)
        self.totals += added.sum(axis=0)
        np.bitwise_or.at(self.bits, rows, bits)
        first = np.full(len(self.born_ms), np.iinfo(np.int64).max)
        np.minimum.at(first, rows, times_ms)
        changed = np.unique(rows)
        new = changed[self.born_ms[changed] == 0]
        self.born_ms[new] = first[new]
        return changed

    def _move_landmark(self, newest_ms: int) -> None:
        if newest_ms <= self.landmark_ms:
            return
        if self.landmark_ms:
            fading = np.exp2((self.landmark_ms - newest_ms) / _HALF_LIVES)
            self.counts *= fading
            self.totals *= fading
        self.landmark_ms = newest_ms

    def fair_counts(self, rows: npt.NDArray[np.int64] | slice = slice(None)) -> Floats:
        """The counts of ``rows``, float64[rows, 4], limited by the number of their users."""
        limits = EVENTS_OF_A_USER * users_of(self.bits[rows])
        return np.minimum(self.counts[rows], limits[:, None])

    def clear(self, rows: npt.NDArray[np.int64]) -> None:
        """Forget ``rows``."""
        self.counts[rows] = 0
        self.born_ms[rows] = 0
        self.bits[rows] = 0
