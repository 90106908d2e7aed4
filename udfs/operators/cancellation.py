"""Whether Flink is cancelling the task that runs here."""

import functools
from typing import Any


def interrupted() -> bool:
    """Whether the Java thread below has been interrupted, which is how Flink cancels a task in thread mode.

    In process mode there is no thread of Flink's here: always False, and Flink ends the process itself.
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
