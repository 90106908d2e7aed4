"""Timers at the ends of intervals, shared by everything that waits for the same end."""

from typing import Any, Final

TICK_MS: Final = 100
"""All intervals but that of :mod:`udfs.operators.rollout_keeper` are multiples of this."""


def register_end_of(every_ms: int, ctx: Any) -> None:
    """Register a timer for the end of the current interval of `every_ms`."""
    timers = ctx.timer_service()
    timers.register_processing_time_timer((timers.current_processing_time() // every_ms + 1) * every_ms)
