"""Ranks plain scores, one for each row of the vocabulary."""

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


def best_of(scores: Scores, k: int) -> tuple[Scores, Rows]:
    """The ``k`` best columns of float32[users, columns], best first, ties by column, without column 0 (padding).

    If any score of a user is NaN, all that are returned are, because their order is undefined.
    """
    real = scores[:, 1:]
    columns = real.shape[1]
    limit = np.partition(real, columns - k, axis=1)[:, columns - k, None]
    above, level = real > limit, real == limit
    level &= np.cumsum(level, axis=1) <= k - above.sum(axis=1, keepdims=True)
    broken = (above | level).sum(axis=1) != k
    if broken.any():
        best, rows = best_of(np.where(broken[:, None], np.float32(-np.inf), scores), k)
        return np.where(broken[:, None], np.float32(np.nan), best), rows
    columns_of = np.nonzero(above | level)[1].reshape(-1, k)
    order = np.argsort(-np.take_along_axis(real, columns_of, axis=1), axis=1, kind="stable")
    found = np.take_along_axis(columns_of, order, axis=1)
    return np.take_along_axis(real, found, axis=1), found.astype(np.int64) + 1
