"""Progress of long operations: reported by the operation, displayed by whoever has set `on_progress`."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

OnProgress = Callable[[str, float], None]
"""Called with the name of the operation and the completed share, from 0 to 1."""


def _unseen(work: str, done: float) -> None:
    pass


on_progress: Final[ContextVar[OnProgress]] = ContextVar("on_progress", default=_unseen)
