"""Decayed pair counts: for each item, up to 128 items that users met with it, in three ways of meeting.

``follows[a, b]``: b came within 10 items after a, counted 0.8 ** (items between). ``next[a, b]``: b was the very next.
``near[a, b]``: the two were within 5 items of each other, in either order. Each halves every 30 days, by forward decay
(Cormode et al., "Forward Decay", ICDE 2009): counts grow with time instead, so that nothing is touched as time passes.

A full row admits a new pair in the place of its lightest with the probability of its share of both weights, and the
pair then has both (RAP: Ben Basat et al., "Randomized Admission Policy for Efficient Top-k", INFOCOM 2017): a heavy
pair is seldom lost to a light newcomer. What is drawn comes from a hash, so equal input gives equal tables.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.online.dimensions import MIX, NEIGHBOURS, PAIR_HALF_LIFE_MS, SLOTS

FOLLOWS, NEXT, NEAR = range(3)
WAYS: Final = 3
NEWCOMERS_MAX: Final = 16
"""New pairs that a full row admits in one merge, the heaviest first."""
LANDMARK_HALF_LIVES: Final = 20
"""When counts have grown by 2 to this power, all are divided by it: float32 holds that without loss."""
_SHARES: Final = np.array([MIX["follows"], MIX["next"], MIX["near"]], np.float32)

Rows = npt.NDArray[np.int64]
Counts = npt.NDArray[np.float32]
Bits = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Pairs:
    """Pairs to merge, in parallel: ``left`` and ``right`` rows int64[n], ``counts`` float32[n, 3] by way of meeting as
    of one moment, and user bits uint64[n]. A pair may come more than once."""

    left: Rows
    right: Rows
    counts: Counts
    bits: Bits

    def where(self, chosen: npt.NDArray[Any]) -> "Pairs":
        """The pairs that ``chosen`` points at, by place or by mask."""
        return Pairs(self.left[chosen], self.right[chosen], self.counts[chosen], self.bits[chosen])


@dataclass(frozen=True)
class Neighbours:
    """What is published of ``rows`` int64[r].

    Their ``neighbours`` int32[r, 32], 0 in places left over, and what is said of each: ``shares`` float16[r, 32, 4] by
    channel (its share of all that was met with the row in each way, and the cosine but for the neighbour's root), and
    ``mixed`` float16[r, 32], what the shares count for choosing candidates.
    """

    rows: Rows
    neighbours: npt.NDArray[np.int32]
    shares: npt.NDArray[np.float16]
    mixed: npt.NDArray[np.float16]


class PairTable:
    """Row 0 is padding. Columns: ``items`` int32[rows, 128], ``counts`` float32[rows, 128, 3], ``bits`` uint64[rows,
    128]; ``left_mass`` and ``right_mass`` float64[rows, 3]: all counts of pairs from a row, and to it.
    """

    def __init__(self, rows: int = 1) -> None:
        self.landmark_ms = 0
        self.items = np.zeros((rows, SLOTS), np.int32)
        self.counts = np.zeros((rows, SLOTS, WAYS), np.float32)
        self.bits = np.zeros((rows, SLOTS), np.uint64)
        self.left_mass = np.zeros((rows, WAYS))
        self.right_mass = np.zeros((rows, WAYS))

    def grow(self, rows: int) -> None:
        """Have at least ``rows`` rows; new ones are empty."""
        more = rows - len(self.items)
        if more <= 0:
            return
        more = max(more, len(self.items) // 4)
        for name in ("items", "counts", "bits", "left_mass", "right_mass"):
            column = getattr(self, name)
            setattr(self, name, np.concatenate([column, np.zeros((more, *column.shape[1:]), column.dtype)]))

    def merge(self, pairs: Pairs, at_ms: int, sequence: int) -> Rows:
        """Add ``pairs`` with counts as of ``at_ms``; returns the rows that changed, ascending."""
        counts = pairs.counts * np.float32(self._grown_since_landmark(at_ms))
        left, right, counts, bits = summed(pairs.left, pairs.right, counts, pairs.bits)
        if not len(left):
            return left
        np.add.at(self.left_mass, left, counts)
        np.add.at(self.right_mass, right, counts)
        found = self.items[left] == right[:, None]
        slots = found.argmax(axis=1)
        known = found[np.arange(len(left)), slots]
        self.counts[left[known], slots[known]] += counts[known]
        self.bits[left[known], slots[known]] |= bits[known]
        new = ~known
        self._admit(Pairs(left[new], right[new], counts[new], bits[new]), sequence)
        return np.unique(left)

    def _grown_since_landmark(self, at_ms: int) -> float:
        if not self.landmark_ms:
            self.landmark_ms = at_ms
        half_lives = (at_ms - self.landmark_ms) / PAIR_HALF_LIFE_MS
        if half_lives > LANDMARK_HALF_LIVES:
            fading = 2.0**-half_lives
            for column in (self.counts, self.left_mass, self.right_mass):
                column *= fading
            self.landmark_ms, half_lives = at_ms, 0.0
        return float(2.0**half_lives)

    def _admit(self, new: Pairs, sequence: int) -> None:
        """Put pairs that have no slot into the lightest ones of their rows, as far as chance admits them."""
        new = new.where(np.lexsort((new.right, -(new.counts @ _SHARES), new.left)))
        rank = _rank_within(new.left)
        new, rank = new.where(rank < NEWCOMERS_MAX), rank[rank < NEWCOMERS_MAX]
        rows, place = np.unique(new.left, return_inverse=True)
        weights = self.counts[rows] @ _SHARES
        slots = np.argsort(weights, axis=1, kind="stable")[:, :NEWCOMERS_MAX][place, rank]
        old_weight, weight = weights[place, slots], new.counts @ _SHARES
        admitted = _draws(new.left, new.right, sequence) * (old_weight + weight) < weight
        new, slots = new.where(admitted), slots[admitted]
        self.items[new.left, slots] = new.right
        self.counts[new.left, slots] += new.counts
        self.bits[new.left, slots] = new.bits

    def best(self, rows: Rows, users_min: int) -> Neighbours:
        """The best neighbours of ``rows``, of pairs that at least ``users_min`` users met."""
        shares = self.counts[rows] / np.maximum(self.left_mass[rows], 1e-30)[:, None, :]
        weights = shares @ _SHARES
        weights[np.bitwise_count(self.bits[rows]) < users_min] = 0.0
        best = np.argpartition(-weights, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
        published = np.take_along_axis(weights, best, axis=1) > 0
        neighbours = np.where(published, np.take_along_axis(self.items[rows], best, axis=1), 0)
        follows, following, near = (
            np.where(published, np.take_along_axis(shares[:, :, way], best, axis=1), 0.0) for way in range(WAYS)
        )
        cosine = follows * np.sqrt(self.left_mass[rows, FOLLOWS])[:, None]
        said = np.stack([follows, near, following, cosine], axis=2)
        mixed = follows * _SHARES[FOLLOWS] + following * _SHARES[NEXT] + near * _SHARES[NEAR]
        return Neighbours(rows, neighbours.astype(np.int32), said.astype(np.float16), mixed.astype(np.float16))

    def right_roots(self, rows: Rows) -> npt.NDArray[np.float32]:
        """1 / sqrt(what followed by each of ``rows`` adds up to): float32[r]."""
        roots: npt.NDArray[np.float32] = 1 / np.sqrt(np.maximum(self.right_mass[rows, FOLLOWS], 1e-6))
        return roots.astype(np.float32)

    def clear(self, rows: Rows) -> Rows:
        """Forget ``rows``: as left sides, and as right sides in every row; returns the rows that changed by it."""
        for column in (self.items, self.counts, self.bits, self.left_mass, self.right_mass):
            column[rows] = 0
        gone = np.isin(self.items, rows) & (self.items > 0)
        self.items[gone] = 0
        self.counts[gone] = 0
        self.bits[gone] = 0
        return np.flatnonzero(gone.any(axis=1))


def summed(left: Rows, right: Rows, counts: Counts, bits: Bits) -> tuple[Rows, Rows, Counts, Bits]:
    """Each pair once, ordered by its rows."""
    keys = (left << 32) | right
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]]) if len(keys) else np.empty(0, np.int64)
    if not len(starts):
        return left, right, counts, bits
    return (
        keys[starts] >> 32,
        keys[starts] & 0xFFFFFFFF,
        np.add.reduceat(counts[order], starts, axis=0),
        np.bitwise_or.reduceat(bits[order], starts),
    )


def _rank_within(groups: Rows) -> Rows:
    """The place of each element within its run of equal values: 0, 1, 2 …"""
    if not len(groups):
        return groups
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    return np.arange(len(groups)) - np.repeat(starts, np.diff(np.r_[starts, len(groups)]))


def _draws(left: Rows, right: Rows, sequence: int) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each pair, by the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    mixed: Any = (left.astype(np.uint64) << np.uint64(32)) ^ right.astype(np.uint64)
    mixed = mixed + np.uint64(sequence * 0x9E3779B97F4A7C15 % (1 << 64))
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return np.asarray((mixed >> np.uint64(11)) * 2.0**-53, np.float64)
