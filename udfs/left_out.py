"""Finds which of many users' items are among those that each user is not to see: one step for all users.

A table of a few places for each user says what is surely not among them, which is true of most items; only the rest is
searched for. Sorting all items of all users, as :func:`numpy.isin` does, costs several times as much.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

PLACES: Final = 1_024
"""Of a user in the table, one byte each; a power of two. A user may have more values: then more is searched for."""
USER_SHIFT: Final = 32
"""Values are below ``1 << 32``, so that a user and a value make one number."""

Ints = npt.NDArray[np.int64]


def among(wanted: Ints, owners: Ints, values: Ints) -> npt.NDArray[np.bool_]:
    """Which of `wanted` int64[users, k] are among the values of their user: bool[users, k].

    `values[i]` is one of the user in row `owners[i]`.

    >>> among(np.array([[7, 8], [7, 8]]), np.array([0, 1, 1]), np.array([7, 8, 9])).tolist()
    [[True, False], [False, True]]
    """
    found = np.zeros(wanted.shape, np.bool_)
    if not len(values):
        return found
    users = np.arange(len(wanted))[:, None]
    table = np.zeros(len(wanted) * PLACES, np.bool_)
    table[owners * PLACES + values % PLACES] = True
    rows, columns = np.nonzero(table[users * PLACES + wanted % PLACES])
    sought = wanted[rows, columns] | rows << USER_SHIFT
    known = np.sort(values | owners << USER_SHIFT)
    place = np.minimum(np.searchsorted(known, sought), len(known) - 1)
    found[rows, columns] = known[place] == sought
    return found
