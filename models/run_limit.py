"""Stops runs of a graph that take too long: a graph with a loop may never end by itself."""

import threading
import time
import weakref
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from schemas.errors import ModelTooSlow

T = TypeVar("T")
RUN_MAX_S: Final = 5.0
"""A run of 32 users takes a millisecond or two; a machine that stands still now and then is not the model's fault."""
LOOK_EVERY_S: Final = 0.25


class RunOptions(Protocol):
    """What onnxruntime takes of the same name: a run ends soon after `terminate` was set."""

    terminate: bool


class RunLimit:
    """Calls with options by which a run is ended after `limit_s`, or :data:`RUN_MAX_S`; from any thread.

    onnxruntime looks at them between two nodes, also within a loop. One thread looks after all runs, and ends with
    this object.
    """

    def __init__(self, new_options: Callable[[], RunOptions], limit_s: float | None = None) -> None:
        self._new_options = new_options
        self._limit_s = RUN_MAX_S if limit_s is None else limit_s
        self._running: dict[int, tuple[RunOptions, float]] = {}
        threading.Thread(target=_watch, args=(weakref.ref(self),), name="freshet-run-limit", daemon=True).start()

    def __call__(self, run: Callable[[RunOptions], T]) -> T:
        """What `run(options)` returns; raises :class:`ModelTooSlow` where it was ended."""
        options, thread = self._new_options(), threading.get_ident()
        self._running[thread] = options, time.monotonic() + self._limit_s
        try:
            return run(options)
        except Exception as error:  # onnxruntime raises a class of its own for each status, all straight from Exception
            if options.terminate:
                raise ModelTooSlow(f"the model was stopped after {self._limit_s:g} s") from error
            raise
        finally:
            del self._running[thread]

    def look(self) -> None:
        """End the runs whose time is up."""
        now_s = time.monotonic()
        for options, ends_s in list(self._running.values()):
            if now_s > ends_s:
                options.terminate = True


def _watch(limit: "weakref.ref[RunLimit]") -> None:
    while (kept := limit()) is not None:
        kept.look()
        del kept
        time.sleep(LOOK_EVERY_S)
