"""Intervals of a difference between two methods, by block bootstrap: users are drawn, with all of their questions.

Questions of one user are not independent, so drawing questions would give intervals that are too narrow (Field &
Welsh, "Bootstrapping clustered data", JRSS-B 2007).
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

DRAWS: Final = 2_000
USERS_MIN: Final = 30


class Difference(NamedTuple):
    """The mean difference, its 95 % interval, and of how many users it is.

    Of fewer than :data:`USERS_MIN`, an interval says nothing: that of one user is a point.
    """

    mean: float
    low: float
    high: float
    users: int

    @property
    def says_something(self) -> bool:
        """Whether there are enough users for an interval."""
        return self.users >= USERS_MIN


def difference(
    users: npt.NDArray[np.int64], first: npt.NDArray[np.float64], second: npt.NDArray[np.float64], seed: int
) -> Difference:
    """How much `first` is above `second`, parallel float64[questions] of `users` int64[questions].

    >>> difference(np.array([1, 1, 2]), np.array([1.0, 0.0, 0.5]), np.array([0.5, -0.5, 0.0]), seed=1)
    Difference(mean=0.5, low=0.5, high=0.5, users=2)
    """
    _, group = np.unique(users, return_inverse=True)
    sums, sizes = np.bincount(group, first - second), np.bincount(group)
    random = np.random.default_rng(seed)
    drawn = random.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=DRAWS)
    means = (drawn @ sums) / (drawn @ sizes)
    low, high = np.quantile(means, [0.025, 0.975])
    return Difference(float((first - second).mean()), float(low), float(high), len(sums))
