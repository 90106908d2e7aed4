"""Progress bars for long work, drawn on an in-memory terminal."""

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from freshet.cli.bars import PATIENCE_S, Bars

ROOT = Path(__file__).parents[2]


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def terminal() -> tuple[io.StringIO, Console]:
    text = io.StringIO()
    return text, Console(file=text, force_terminal=True, width=80, color_system=None)


def test_short_work_draws_no_bar() -> None:
    text, console = terminal()
    clock = Clock()
    bars = Bars(console, clock)
    for done in (0.0, 0.5, 1.0):
        bars("reading events", done)
        clock.now_s += PATIENCE_S / 3
    bars.close()
    assert text.getvalue() == ""


def test_long_work_shows_name_and_progress_and_removes_its_bar() -> None:
    text, console = terminal()
    clock = Clock()
    bars = Bars(console, clock)
    bars("reading events", 0.0)
    clock.now_s += PATIENCE_S
    bars("reading events", 0.25)
    bars("reading events", 0.5)
    bars.close()
    shown = text.getvalue()
    assert "reading events" in shown and "50%" in shown
    assert shown.endswith(("\x1b[2K", "\x1b[1A\x1b[2K", "\x1b[?25h"))


def in_a_terminal(statements: str) -> tuple[str, str]:
    """What a process writes to standard output (a pipe) and to standard error (a terminal)."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", statements], cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs, text=True
    )
    os.close(theirs)
    told, _ = child.communicate()
    shown = b""
    while True:
        try:
            more = os.read(ours, 65_536)
        except OSError:  # the other end is closed
            break
        if not more:
            break
        shown += more
    os.close(ours)
    return told, shown.decode()


def test_bars_on_a_terminal_leave_standard_output_to_scripts() -> None:
    told, shown = in_a_terminal(
        "import time\n"
        "from freshet.cli import bars\n"
        "from freshet.cli.shape import say\n"
        "from schemas.progress import on_progress\n"
        "bars.PATIENCE_S = 0\n"
        "with bars.bars_on_a_terminal():\n"
        "    on_progress.get()('reading events', 0.5)\n"
        "    print('{}')\n"
        "    say('a remark')\n"
    )
    assert told == "{}\n"
    assert "reading events" in shown and "a remark" in shown and "{}" not in shown


def test_no_bar_is_drawn_without_a_terminal() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from freshet.cli import bars\n"
            "from schemas.progress import on_progress\n"
            "bars.PATIENCE_S = 0\n"
            "with bars.bars_on_a_terminal():\n"
            "    on_progress.get()('reading events', 0.5)\n",
        ],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
