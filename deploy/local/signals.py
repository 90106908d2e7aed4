"""Signals that end `up`, `down` and `demo`: the first one interrupts; later ones do not interrupt the cleanup."""

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Final, NoReturn

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def handle_signals(handler: Callable[[int, FrameType | None], None]) -> None:
    """Call `handler` for each of them, except for a SIGHUP that is ignored, as under `nohup`."""
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def ignore_signals() -> None:
    """Ignore all of them: the cleanup has time limits of its own."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def interrupt(number: int) -> NoReturn:
    """End what is under way: Ctrl-C as usual, other signals with the exit code of shells, 128 plus the number."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)
