"""Retries while Redis is unavailable: with growing pauses, log lines and a limit; stops when the task is cancelled.

Flink cancels a task by interrupting its Java thread. A thread that sleeps in Python does not notice, and if a task does
not end within `task.cancellation.timeout`, Flink kills the whole TaskManager. Hence the short naps.
"""

import logging
import time
from collections.abc import Callable
from typing import Final, TypeVar

from schemas.errors import Interrupted, StoreUnavailable

T = TypeVar("T")
PAUSE_FIRST_S: Final = 0.05
PAUSE_MAX_S: Final = 2.0
NAP_S: Final = 0.1
"""How often a wait checks for an interrupt."""
LOG_FIRST_S: Final = 1.0
LOG_MAX_S: Final = 300.0
logger = logging.getLogger(__name__)


class Patience:
    """Retries until the store answers, for at most `outage_max_ms` without an answer.

    Then raises the last :class:`StoreUnavailable`: the task fails, and Flink restarts it. Raises :class:`Interrupted`
    within :data:`NAP_S` of `interrupted()` becoming true. Raises other errors at once.
    """

    def __init__(
        self,
        outage_max_ms: int,
        interrupted: Callable[[], bool] = lambda: False,
        *,
        sleep: Callable[[float], None] | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._outage_max_s = outage_max_ms / 1000
        self._interrupted = interrupted
        self._sleep = sleep or nap
        self._clock_s = clock_s

    def __call__(self, call: Callable[[], T], on_failure: Callable[[], None]) -> T:
        """Return the result of `call()`; calls `on_failure` for each failure, for a metric."""
        try:
            return call()
        except StoreUnavailable as error:
            return self._retry(call, on_failure, error)

    def _retry(self, call: Callable[[], T], on_failure: Callable[[], None], error: StoreUnavailable) -> T:
        began_s, pause_s, log_after_s = self._clock_s(), PAUSE_FIRST_S, LOG_FIRST_S
        logger.warning("%s; waiting up to %.0f s for it", error, self._outage_max_s)
        while True:
            on_failure()
            self._wait(pause_s)
            pause_s = min(2 * pause_s, PAUSE_MAX_S)
            try:
                answer = call()
            except StoreUnavailable as again:
                error = again
            else:
                logger.warning("Redis answers again after %.1f s", self._clock_s() - began_s)
                return answer
            away_s = self._clock_s() - began_s
            if away_s >= self._outage_max_s:
                logger.error("%s for %.0f s: the task ends, and Flink starts it again", error, away_s)
                raise error
            if away_s >= log_after_s:
                logger.warning("%s for %.0f s; waiting up to %.0f s", error, away_s, self._outage_max_s)
                log_after_s = away_s + min(away_s, LOG_MAX_S)

    def _wait(self, seconds: float) -> None:
        while seconds > 0:
            if self._interrupted():
                raise Interrupted("the task is being cancelled while Redis is unavailable")
            self._sleep(min(seconds, NAP_S))
            seconds -= NAP_S


def nap(seconds: float) -> None:
    """Sleep; tests replace it with something quicker."""
    time.sleep(seconds)
