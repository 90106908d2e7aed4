"""Progress bars on the terminal for work that takes longer than a moment, such as reading a topic."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from schemas.progress import on_progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

PATIENCE_S: Final = 1.0
"""Shorter work shows no bar."""


class Bars:
    """An :data:`schemas.progress.OnProgress` that draws one bar per task; `close` removes them."""

    def __init__(self, console: "Console | None" = None, seconds: Callable[[], float] = time.monotonic) -> None:
        self._console, self._seconds = console, seconds
        self._begun: dict[str, float] = {}
        self._tasks: dict[str, TaskID] = {}
        self._progress: Progress | None = None

    def __call__(self, work: str, done: float) -> None:
        """Show that the fraction `done` of `work`, from 0 to 1, is done."""
        begun = self._begun.setdefault(work, self._seconds())
        if work not in self._tasks:
            if self._seconds() - begun < PATIENCE_S or done >= 1:
                return
            self._tasks[work] = self._shown().add_task(work, total=1.0)
        self._shown().update(self._tasks[work], completed=done)

    def close(self) -> None:
        """Remove the bars from the terminal."""
        if self._progress is not None:
            self._progress.stop()

    def _shown(self) -> "Progress":
        if self._progress is None:
            # Not at the top: loading rich takes longer than most commands.
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeRemainingColumn(),
                console=self._console or Console(stderr=True),
                transient=True,
                redirect_stdout=False,  # scripts read it
            )
            self._progress.start()
        return self._progress


@contextmanager
def bars_on_a_terminal() -> Iterator[None]:
    """Show bars on standard error inside this context, if that is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    bars = Bars()
    before = on_progress.set(bars)
    try:
        yield
    finally:
        on_progress.reset(before)
        bars.close()
