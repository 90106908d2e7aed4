"""Detects that Flink is cancelling the current task."""

import functools
from typing import Any


def interrupted() -> bool:
    """Whether Flink has interrupted the task's Java thread, which is how it cancels a task in thread mode.

    Always False in process mode: there is no Java thread in the process, and Flink terminates the process itself.
    """
    thread = _java_thread()
    return thread is not None and bool(thread.currentThread().isInterrupted())


@functools.cache
def _java_thread() -> Any:
    try:
        from pemja import findClass
    except ImportError:
        return None
    return findClass("java.lang.Thread")
