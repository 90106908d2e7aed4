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

from models.online.dimensions import CHANNELS, MIX, NEIGHBOURS, PAIR_HALF_LIFE_MS, SLOTS

FOLLOWS, NEXT, NEAR = range(3)
WAYS: Final = 3
NEWCOMERS_MAX: Final = 16
"""New pairs that a full row admits in one merge, the heaviest first."""
LANDMARK_HALF_LIVES: Final = 20
"""When counts have grown by 2 to this power, all are divided by it: float32 holds that without loss."""
_PART: Final = 2_048
_SLOT_BITS: Final = 7
_KEY_BITS: Final = 63
_FLOAT_BITS: Final = 0x7FFFFFFF
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
        add_rows(self.left_mass, left, counts)
        add_rows(self.right_mass, right, counts)
        slots, known = self._slots_of(left, right)
        self.counts[left[known], slots[known]] += counts[known]
        self.bits[left[known], slots[known]] |= bits[known]
        new = ~known
        self._admit(Pairs(left[new], right[new], counts[new], bits[new]), sequence)
        return np.unique(left)

    def _slots_of(self, left: Rows, right: Rows) -> tuple[Rows, npt.NDArray[np.bool_]]:
        """The slot of each pair, and whether it has one; in parts that fit into the CPU's cache."""
        slots, known = np.empty(len(left), np.int64), np.empty(len(left), np.bool_)
        for begin in range(0, len(left), _PART):
            part = slice(begin, begin + _PART)
            found = self.items[left[part]] == right[part, None]
            slots[part] = found.argmax(axis=1)
            known[part] = found[np.arange(len(found)), slots[part]]
        return slots, known

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
        new = new.where(np.lexsort((new.right, -_weights(new.counts), new.left)))
        rank = _rank_within(new.left)
        new, rank = new.where(rank < NEWCOMERS_MAX), rank[rank < NEWCOMERS_MAX]
        rows, starts, place = np.unique(new.left, return_index=True, return_inverse=True)
        slots, old_weight = self._lightest_slots(rows, np.diff(np.r_[starts, len(rank)]), place, rank)
        weight = _weights(new.counts)
        admitted = _draws(new.left, new.right, sequence) * (old_weight + weight) < weight
        new, slots = new.where(admitted), slots[admitted]
        self.items[new.left, slots] = new.right
        self.counts[new.left, slots] += new.counts
        self.bits[new.left, slots] = new.bits

    def _lightest_slots(self, rows: Rows, wanted: Rows, place: Rows, rank: Rows) -> tuple[Rows, Counts]:
        """Slots and weights for newcomers: of the row at ``place`` of ``rows``, the slot of ``rank`` from the lightest.

        A row with an empty slot for each of the ``wanted`` newcomers needs no sorting: empty slots are the lightest.
        """
        empty = self.items[rows] == 0
        used = SLOTS - np.count_nonzero(empty, axis=1)
        crowded = (used + wanted > SLOTS) | (empty.argmax(axis=1) != used)
        slots, weights = used[place] + rank, np.zeros(len(place), np.float32)
        if crowded.any():
            its_weights = _weights(self.counts[rows[crowded]])
            number, among = np.cumsum(crowded) - 1, crowded[place]
            its_place = number[place[among]]
            slots[among] = _lightest(its_weights)[its_place, rank[among]]
            weights[among] = its_weights[its_place, slots[among]]
        return slots, weights

    def best(self, rows: Rows, users_min: int, published: npt.NDArray[np.bool_]) -> Neighbours:
        """The best neighbours of ``rows``, of pairs that at least ``users_min`` users met.

        Only rows that are ``published`` bool[rows of the table] are neighbours: scorers know no others.
        """
        row, slot = np.nonzero(np.bitwise_count(self.bits[rows]) >= users_min)
        known = published[self.items[rows[row], slot]]
        row, slot = row[known], slot[known]
        row, slot, rank = _heaviest(row, slot, self._shares(rows[row], slot))
        neighbours = np.zeros((len(rows), NEIGHBOURS), np.int32)
        said = np.zeros((len(rows), NEIGHBOURS, len(CHANNELS)), np.float16)
        mixed = np.zeros((len(rows), NEIGHBOURS), np.float16)
        shares = self._shares(rows[row], slot)
        cosine = shares[:, FOLLOWS] * np.sqrt(self.left_mass[rows[row], FOLLOWS])
        neighbours[row, rank] = self.items[rows[row], slot]
        said[row, rank] = np.column_stack([shares[:, FOLLOWS], shares[:, NEAR], shares[:, NEXT], cosine])
        mixed[row, rank] = _weights(shares)
        return Neighbours(rows, neighbours, said, mixed)

    def _shares(self, rows: Rows, slots: Rows) -> npt.NDArray[np.float64]:
        """The share of each pair in all that was met with its row: float64[pairs, 3]."""
        shares: npt.NDArray[np.float64] = self.counts[rows, slots] / np.maximum(self.left_mass[rows], 1e-30)
        return shares

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


def _weights(counts: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """What counts [..., 3] weigh together. Not a matrix product, whose last bits depend on the CPU."""
    weights: npt.NDArray[Any] = (
        counts[..., FOLLOWS] * _SHARES[FOLLOWS] + counts[..., NEXT] * _SHARES[NEXT] + counts[..., NEAR] * _SHARES[NEAR]
    )
    return weights


def _heaviest(row: Rows, slot: Rows, shares: npt.NDArray[np.float64]) -> tuple[Rows, Rows, Rows]:
    """Of pairs by ``row`` and ``slot``, the heaviest `NEIGHBOURS` of each row, and their ranks; ties by slot."""
    weights = _weights(shares).astype(np.float32)
    lightness = np.int64(_FLOAT_BITS) - weights.view(np.int32)
    keys = (row << (31 + _SLOT_BITS)) | (lightness << _SLOT_BITS) | slot
    keys.sort()
    row, slot = keys >> (31 + _SLOT_BITS), keys & (SLOTS - 1)
    rank = _rank_within(row)
    first = rank < NEIGHBOURS
    return row[first], slot[first], rank[first]


def _lightest(weights: Counts) -> Rows:
    """The slots of the lightest `NEWCOMERS_MAX` of weights [rows, 128], lightest first, ties by slot.

    Floats that are not negative are ordered as their bits are, so bits and slot make one number to select by.
    """
    keys = (weights.view(np.int32).astype(np.int64) << _SLOT_BITS) | np.arange(SLOTS)
    keys = np.partition(keys, NEWCOMERS_MAX, axis=1)[:, :NEWCOMERS_MAX]
    keys.sort(axis=1)
    lightest: Rows = keys & (SLOTS - 1)
    return lightest


def add_rows(totals: npt.NDArray[np.float64], rows: Rows, added: npt.NDArray[Any]) -> None:
    """``totals[row] += added`` for each of ``rows``, also where one comes more than once.

    The same as ``np.add.at``, which is several times as fast along one axis.
    """
    width = totals.shape[1]
    places = rows[:, None] * width + np.arange(width)
    np.add.at(totals.reshape(-1), places.reshape(-1), added.astype(np.float64).reshape(-1))


def summed(left: Rows, right: Rows, counts: Counts, bits: Bits) -> tuple[Rows, Rows, Counts, Bits]:
    """Each pair once, ordered by its rows."""
    if not len(left):
        return left, right, counts, bits
    keys = (left << 32) | right
    order = _order(left, right)
    keys = keys[order]
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
    return (
        keys[starts] >> 32,
        keys[starts] & 0xFFFFFFFF,
        np.add.reduceat(counts[order], starts, axis=0),
        np.bitwise_or.reduceat(bits[order], starts),
    )


def _order(left: Rows, right: Rows) -> Rows:
    """The stable order of pairs. Sorting one number is several times as fast, where pair and place fit into it."""
    row_bits = int(max(left.max(), right.max())).bit_length()
    place_bits = len(left).bit_length()
    if 2 * row_bits + place_bits > _KEY_BITS:
        by_row: Rows = np.lexsort((right, left))
        return by_row
    keys: Rows = (((left << row_bits) | right) << place_bits) | np.arange(len(left))
    keys.sort()
    order: Rows = keys & ((1 << place_bits) - 1)
    return order


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
