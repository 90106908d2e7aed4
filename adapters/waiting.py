"""Waits for a condition with a deadline, never by sleeping for a guessed time."""

import time
from collections.abc import Callable

from schemas.errors import NotReadyError


def until(
    condition: Callable[[], bool],
    what: str,
    timeout_s: float,
    every_s: float = 0.05,
    explain: Callable[[], str] = str,
) -> None:
    """Return once the condition holds; raise NotReadyError after timeout_s, with the text of explain().

    >>> until(lambda: True, "the sky to be blue", timeout_s=1)
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            details = explain()
            raise NotReadyError(f"waited {timeout_s:g} s for {what}" + (f":\n{details}" if details else ""))
        time.sleep(every_s)
