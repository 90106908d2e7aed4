"""Whether a model fails for most users now, whatever it did before."""

from typing import Final

RECENT_USERS: Final = 128
"""Earlier users count less and less: the weights of all of them add up to this number."""
FAILED_USERS: Final = 32
"""Fewer failures than this prove nothing."""


class FailureShare:
    """Of the users asked about lately, how many the model failed for.

    A model that fails for everybody is found after at most 90 users, ln 2 times :data:`RECENT_USERS`; one that fails
    for 7 of 10 after about 160, however long it has served well.

    >>> share = FailureShare()
    >>> share.add(1_000_000, 0)
    >>> for _ in range(90):
    ...     share.add(1, 1)
    >>> share.is_most
    True
    """

    def __init__(self) -> None:
        self._asked = self._failed = 0.0

    def add(self, asked: int, failed: int) -> None:
        """Count users, and those of them without usable scores."""
        self._asked, self._failed = self._asked + asked, self._failed + failed
        if self._asked > RECENT_USERS:
            self._asked, self._failed = RECENT_USERS, self._failed * RECENT_USERS / self._asked

    @property
    def is_most(self) -> bool:
        """Whether it failed for more than half of them."""
        return self._failed >= FAILED_USERS and 2 * self._failed > self._asked
