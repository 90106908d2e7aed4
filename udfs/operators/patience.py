"""Waits for an unavailable Redis: with growing pauses, log lines and a limit, and stops when the task is cancelled.

Flink cancels a task by interrupting its Java thread. A thread that sleeps in Python does not notice, and a task that
does not end within `task.cancellation.timeout` makes Flink kill the whole TaskManager: hence the short naps.
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
"""A wait looks so often whether it was interrupted."""
SAY_FIRST_S: Final = 1.0
SAY_MAX_S: Final = 300.0
logger = logging.getLogger(__name__)


class Patience:
    """Calls again until the store answers, for at most `outage_max_ms` without one answer in between.

    Then the last :class:`StoreUnavailable` is raised: the task fails, and Flink starts it again. Raises
    :class:`Interrupted` within :data:`NAP_S` of `interrupted()` being true. Other errors are raised at once.
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
        """What `call()` answers; `on_failure` is called for each failure, for a metric."""
        try:
            return call()
        except StoreUnavailable as error:
            return self._again(call, on_failure, error)

    def _again(self, call: Callable[[], T], on_failure: Callable[[], None], error: StoreUnavailable) -> T:
        began_s, pause_s, say_after_s = self._clock_s(), PAUSE_FIRST_S, SAY_FIRST_S
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
            if away_s >= say_after_s:
                logger.warning("%s for %.0f s; waiting up to %.0f s", error, away_s, self._outage_max_s)
                say_after_s = away_s + min(away_s, SAY_MAX_S)

    def _wait(self, seconds: float) -> None:
        while seconds > 0:
            if self._interrupted():
                raise Interrupted("the task is being cancelled while Redis is unavailable")
            self._sleep(min(seconds, NAP_S))
            seconds -= NAP_S


def nap(seconds: float) -> None:
    """Sleep; tests put something quicker in its place."""
    time.sleep(seconds)
