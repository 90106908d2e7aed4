"""Logs faults that may recur with each record: at the first, second, fourth … occurrence, with the count so far."""

import logging
from collections.abc import Mapping

from schemas.errors import where


class FaultLog:
    """Logs faults of one kind. Spaces the lines by count, not by time: a million faults make twenty lines."""

    def __init__(self, logger: logging.Logger, what: str) -> None:
        self._logger = logger
        self._what = what
        self.count = 0

    def __call__(self, error: Exception, fields: Mapping[str, str | int | None] | None = None) -> None:
        """Count a fault; the log line contains no data from records. `fields` are added to it."""
        self.count += 1
        if not self.count & (self.count - 1):
            self._logger.error("%s (%s); %d so far", self._what, where(error), self.count, extra=fields)
