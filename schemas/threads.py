"""Starts threads that inherit the context of whoever starts them.

A plain thread begins with an empty context: what context variables say, as how numpy reports overflow, has its default
there. See :mod:`udfs.operators.interpreter` for what an operator sets, and why.
"""

import contextvars
import threading
from collections.abc import Callable
from typing import Any


def in_background(name: str, target: Callable[..., None], *arguments: Any) -> threading.Thread:
    """Run `target(*arguments)` in a new daemon thread, in a copy of the caller's context."""
    run = contextvars.copy_context().run
    thread = threading.Thread(target=run, args=(target, *arguments), name=name, daemon=True)
    thread.start()
    return thread
