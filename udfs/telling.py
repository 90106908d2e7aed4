"""Logs faults that may recur with each record: at the first, second, fourth … occurrence, with the count so far."""

import logging

from schemas.errors import where


class Teller:
    """Tells of faults of one kind. Counts, not clocks, space the lines: a million faults make twenty of them."""

    def __init__(self, logger: logging.Logger, what: str) -> None:
        self._logger = logger
        self._what = what
        self.count = 0

    def __call__(self, error: Exception) -> None:
        """Count one more; what is logged of `error` holds no value of anybody."""
        self.count += 1
        if not self.count & (self.count - 1):
            self._logger.error("%s (%s); %d so far", self._what, where(error), self.count)
