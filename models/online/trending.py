"""Which items rise: those with a larger share of what was met lately than of what was met in a week."""

from typing import Final

import numpy as np
import numpy.typing as npt

from models.online.dimensions import POPULARITY_HALF_LIVES_MS
from models.online.item_popularity import ItemPopularity
from schemas.topics import DAY_MS, HOUR_MS

_LATELY: Final = POPULARITY_HALF_LIVES_MS.index(6 * HOUR_MS)
_IN_A_WEEK: Final = POPULARITY_HALF_LIVES_MS.index(7 * DAY_MS)


def trending(
    popularity: ItemPopularity, size: int, users_min: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """(rows int64[n], scores float64[n]) of the up to `size` items that rise most, the first most.

    Only items that at least `users_min` users have met, and that have at least as many events lately. An item's score
    is its term of the Kullback-Leibler divergence of lately from the week: it grows with the item's rise and with its
    share. One standard deviation (Poisson) is taken off its recent count, so that chance does not make a trend.
    """
    counts = popularity.fair_counts()
    totals = counts.sum(axis=0)
    rows = np.flatnonzero((np.bitwise_count(popularity.bits) >= users_min) & (counts[:, _LATELY] >= users_min))
    lately = (counts[rows, _LATELY] - np.sqrt(counts[rows, _LATELY])) / totals[_LATELY]
    in_a_week = counts[rows, _IN_A_WEEK] / totals[_IN_A_WEEK]
    scores = lately * np.log(np.maximum(lately, 1e-30) / in_a_week)
    best = np.lexsort((rows, -scores))[:size]
    best = best[scores[best] > 0]
    return rows[best], scores[best]
