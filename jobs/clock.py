"""The clock that commands use."""

import time


def clock_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def day(ms: int) -> str:
    """The UTC date of a time in ms.

    >>> day(0)
    '1970-01-01'
    """
    return time.strftime("%Y-%m-%d", time.gmtime(ms / 1000))
