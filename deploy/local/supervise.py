"""Keeps one process running, as an orchestrator would: `python -P supervise.py COMMAND.json`. Needs nothing of ours.

A TaskManager ends itself after a fatal error, on purpose, and counts on being started again. One such error is Beam's
"Reference count must not be negative", which a task that is cancelled in the middle of a bundle may meet.
What the process leaves behind when it dies, such as Python workers, is ended before the next one begins.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

import psutil

QUICK_DEATH_S = 3.0
"""A process that ends sooner than this cannot be helped by starting it again."""
PAUSE_S = 1.0


def supervise(command: list[str]) -> int:
    """Run `command` until told to end, or until it dies so soon that it must be wrong. Returns its exit code."""
    while True:
        begun = time.monotonic()
        child = subprocess.Popen(command)
        ended = _wait(child)
        _end_the_rest_of_this_session()
        if ended or time.monotonic() - begun < QUICK_DEATH_S:
            return child.returncode
        print(f"supervise: ended with {child.returncode}, starting it again", flush=True)
        time.sleep(PAUSE_S)


def _wait(child: subprocess.Popen[bytes]) -> bool:
    """Wait for the end of `child`; true if it was asked for: TERM is passed on."""
    asked = False

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        child.terminate()

    signal.signal(signal.SIGTERM, pass_on)
    child.wait()
    return asked


def _end_the_rest_of_this_session() -> None:
    mine = os.getsid(0)
    for process in psutil.process_iter():
        if process.pid != os.getpid() and _session(process) == mine:
            with contextlib.suppress(psutil.Error):
                process.kill()


def _session(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except OSError:
        return None


if __name__ == "__main__":
    sys.exit(supervise(json.loads(Path(sys.argv[1]).read_text())))
