"""What a new user sees in the first minutes: `freshet demo`, with lists from the first second that learn."""

import re
import subprocess
import sys

import pytest

from deploy.local.paths import LOCAL, ROOT
from deploy.local.stack import is_up

SECONDS = 40


def test_demo_shows_lists_at_once_and_counts_what_is_clicked_in_them() -> None:
    if is_up(LOCAL / "demo"):
        pytest.skip("a demo is running in this checkout")
    command = [sys.executable, "-m", "freshet", "demo", "--plain", "--seconds", str(SECONDS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    setup, first, *blocks = re.split(r"^--- .*$", done.stdout, flags=re.MULTILINE)
    assert re.search(r"learned from [\d,]+ interactions of the last days; the shop opens", setup)
    assert "training" not in setup
    assert "nothing yet" not in first and re.search(r"│ (list v\d+ · personalised|the popular list)", first)
    last = blocks[-1]
    for words in ("similar to ", "trending", "recently viewed", "online: "):
        assert words in last, last
    seen, clicked = re.search(r"online: ([\d,]+) seen · ([\d,]+) clicked · CTR", last).groups()  # type: ignore[union-attr]
    assert 0 < int(clicked.replace(",", "")) < int(seen.replace(",", ""))
    assert "ended; nothing was left running" in last
    assert not is_up(LOCAL / "demo")
