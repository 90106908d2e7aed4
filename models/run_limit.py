"""Stops runs of a graph that take too long: a graph with a loop may never end by itself."""

import threading
import time
import weakref
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from schemas.errors import ModelTooSlow
from schemas.threads import in_background

T = TypeVar("T")
RUN_MAX_S: Final = 5.0
"""A run of 32 users takes a millisecond or two; a short stall of the machine must not count against the model."""
CHECK_EVERY_S: Final = 0.25


class RunOptions(Protocol):
    """The part of onnxruntime's class of this name that is used: a run ends soon after `terminate` is set."""

    terminate: bool


class RunLimit:
    """Runs calls that are stopped after `limit_s`, or :data:`RUN_MAX_S`. Thread-safe.

    onnxruntime checks the options between two nodes, also within a loop. One thread watches all runs, and ends with
    this object.
    """

    def __init__(self, new_options: Callable[[], RunOptions], limit_s: float | None = None) -> None:
        self._new_options = new_options
        self._limit_s = RUN_MAX_S if limit_s is None else limit_s
        self._running: dict[int, tuple[RunOptions, float]] = {}
        in_background("freshet-run-limit", _watch, weakref.ref(self))

    def __call__(self, run: Callable[[RunOptions], T]) -> T:
        """Return the result of `run(options)`; raises :class:`ModelTooSlow` if it was stopped."""
        options, thread = self._new_options(), threading.get_ident()
        self._running[thread] = options, time.monotonic() + self._limit_s
        try:
            return run(options)
        except Exception as error:  # each status has its own class in onnxruntime, derived directly from Exception
            if options.terminate:
                raise ModelTooSlow(f"the model was stopped after {self._limit_s:g} s") from error
            raise
        finally:
            del self._running[thread]

    def stop_expired(self) -> None:
        """Stop runs that have exceeded their limit."""
        now_s = time.monotonic()
        for options, ends_s in list(self._running.values()):
            if now_s > ends_s:
                options.terminate = True


def _watch(limit: "weakref.ref[RunLimit]") -> None:
    while (kept := limit()) is not None:
        kept.stop_expired()
        del kept
        time.sleep(CHECK_EVERY_S)
