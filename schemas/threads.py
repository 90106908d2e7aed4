"""Starts threads that inherit the context of whoever starts them.

A plain thread begins with an empty context: what context variables say, as how numpy reports overflow, has its default
there. See :mod:`udfs.operators.interpreter` for what an operator sets, and why.
"""

import contextlib
import contextvars
import importlib
import threading
from collections.abc import Callable
from typing import Any


def in_background(name: str, target: Callable[..., None], *arguments: Any) -> threading.Thread:
    """Run `target(*arguments)` in a new daemon thread, in a copy of the caller's context."""
    run = contextvars.copy_context().run
    thread = threading.Thread(target=run, args=(target, *arguments), name=name, daemon=True)
    thread.start()
    return thread


def import_in_background(module: str) -> None:
    """Import `module` in a new thread, and return once that has ended; the caller imports it again, which is at once.

    For modules made with pybind11. While one is loaded for the first time, it asks Python for the state of its thread,
    and in a thread of chained operators waits for a lock that this thread holds, for ever: see
    :mod:`udfs.operators.interpreter`. In a new thread there is only one state. Errors are those of the second import.
    """

    def load() -> None:
        with contextlib.suppress(Exception):
            importlib.import_module(module)

    in_background("freshet-import", load).join()
