"""Keeps one process running, as an orchestrator would: `python -P supervise.py COMMAND.json`. Imports no own modules.

A TaskManager deliberately ends itself after a fatal error and relies on being restarted. One such error is Beam's
"Reference count must not be negative", which can occur when a task is cancelled in the middle of a bundle. Processes
left behind, such as Python workers, are ended before the restart.
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
"""A process that ends sooner than this is not restarted, because a restart would not help."""
PAUSE_S = 1.0


def supervise(command: list[str]) -> int:
    """Run `command` until terminated, or until it ends so soon that it must be misconfigured. Returns its exit code."""
    while True:
        begun = time.monotonic()
        child = subprocess.Popen(command)
        ended = _wait(child)
        _kill_rest_of_session()
        if ended or time.monotonic() - begun < QUICK_DEATH_S:
            return child.returncode
        print(f"supervise: ended with {child.returncode}, starting it again", flush=True)
        time.sleep(PAUSE_S)


def _wait(child: subprocess.Popen[bytes]) -> bool:
    """Wait for the end of `child`, passing TERM on to it; true if it was terminated."""
    terminated = False

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal terminated
        terminated = True
        child.terminate()

    signal.signal(signal.SIGTERM, pass_on)
    child.wait()
    return terminated


def _kill_rest_of_session() -> None:
    session = os.getsid(0)
    for process in psutil.process_iter():
        if process.pid != os.getpid() and _session(process) == session:
            with contextlib.suppress(psutil.Error):
                process.kill()


def _session(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except OSError:
        return None


if __name__ == "__main__":
    sys.exit(supervise(json.loads(Path(sys.argv[1]).read_text())))
