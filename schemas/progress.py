"""How far long work is: told by what does the work, shown by whoever has set `on_progress`."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

OnProgress = Callable[[str, float], None]
"""Called with the name of the work and the part of it that is done, from 0 to 1."""


def _unseen(work: str, done: float) -> None:
    pass


on_progress: Final[ContextVar[OnProgress]] = ContextVar("on_progress", default=_unseen)
