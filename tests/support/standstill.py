"""A process that hangs: it accepts input and never responds."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def standing_still(pid: int) -> Iterator[None]:
    """Suspends a process during the block, and resumes it afterwards."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
