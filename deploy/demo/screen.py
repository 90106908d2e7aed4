"""The demo's output: a full-screen terminal that is restored at the end, or blocks of plain text every few seconds."""

import os
import shutil
import sys
import time
from collections.abc import Callable
from typing import Final, Protocol, Self, TextIO

from deploy.demo.text import clock

Draw = Callable[[int, int, bool], list[str]]
"""Lines for a width and a height, with or without colours."""

FRAME_S: Final = 0.25
PLAIN_EVERY_S: Final = 5.0
PLAIN_WIDTH, PLAIN_HEIGHT = 110, 39
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l\x1b[2J", "\x1b[?25h\x1b[?1049l"


class Screen(Protocol):
    """A context manager that draws repeatedly."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def draw(self, picture: Draw) -> None:
        """Draw the picture if it is due."""
        ...


class TerminalScreen:
    """The whole terminal, redrawn four times a second, on the alternate screen, so the old contents are restored.

    On exit, the last picture is printed so that it can be read afterwards.
    """

    def __init__(self, output: TextIO = sys.stdout, colour: bool = True) -> None:
        self._output, self._colour = output, colour
        self._size = os.terminal_size((0, 0))
        self._drawn_at = 0.0
        self._last: list[str] = []

    def __enter__(self) -> Self:
        self._write(_ENTER)
        return self

    def __exit__(self, *error: object) -> None:
        self._write(_LEAVE + "\n".join(self._last) + "\n")

    def draw(self, picture: Draw) -> None:
        """See :class:`Screen`."""
        now = time.monotonic()
        if now - self._drawn_at < FRAME_S:
            return
        self._drawn_at = now
        size = shutil.get_terminal_size()
        self._last = picture(size.columns, size.lines, self._colour)
        wiped = "\x1b[2J" if size != self._size else ""
        self._size = size
        self._write(wiped + "\x1b[H" + "\r\n".join(line + "\x1b[K" for line in self._last) + "\x1b[J")

    def _write(self, text: str) -> None:
        self._output.write(text)
        self._output.flush()


class PlainScreen:
    """Blocks of text without colours or cursor control: for logs, pipes and users who prefer them."""

    def __init__(self, output: TextIO = sys.stdout) -> None:
        self._output = output
        self._began = self._printed_at = time.monotonic()
        self._last: Draw | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._last is not None:
            self._print(self._last)

    def draw(self, picture: Draw) -> None:
        """See :class:`Screen`."""
        self._last = picture
        if time.monotonic() - self._printed_at >= PLAIN_EVERY_S:
            self._print(picture)

    def _print(self, picture: Draw) -> None:
        self._printed_at = time.monotonic()
        self._last = None
        lines = [line for line in picture(PLAIN_WIDTH, PLAIN_HEIGHT, False) if line]
        print(f"--- {clock(self._printed_at - self._began)}", *lines, sep="\n", file=self._output, flush=True)


def screen_for(plain: bool, output: TextIO = sys.stdout) -> Screen:
    """The terminal, unless `plain` is set or the output is no terminal. Respects the variable NO_COLOR."""
    if plain or not output.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return PlainScreen(output)
    return TerminalScreen(output, colour="NO_COLOR" not in os.environ)
