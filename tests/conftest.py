"""What holds for all tests: assertions explain themselves, no property fails for being slow, servers are shared.

With `--dist loadfile`, a worker takes one group of tests after the other: a file, the tests of a file for one execution
mode (each mode has a stack of its own), or all files that share the stack of tests/e2e.
"""

import functools
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadFileScheduling

from tests.support.examples import examples

pytest.register_assert_rewrite(
    "tests.support.live", "tests.support.retail", "tests.support.naive", "tests.support.raw_ids"
)
logging.getLogger("kafka").setLevel(logging.ERROR)
# Whether an example meets Hypothesis' deadline of 200 ms depends on the machine's load.
settings.register_profile(
    "freshet", max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("freshet")

SHARED_STACK = "shared stack"
E2E = Path(__file__).with_name("e2e")
USES_SHARED_STACK = re.compile(r"(?:def test_\w+\([^)]*|fixture(?:\([^)]*\))?\ndef \w+\()\blive: Live")
MODE = re.compile(r"^tests/(?:e2e|faults)/.*\[(thread|process)\b")


@functools.cache
def shares_stack(path: Path) -> bool:
    """Whether the tests of a file use the stack of tests/e2e."""
    return path.parent == E2E and bool(USES_SHARED_STACK.search(path.read_text(encoding="utf-8")))


def group(nodeid: str) -> str:
    """Tests of one group run on one worker, one after the other."""
    name = nodeid.partition("::")[0]
    if shares_stack(E2E.parents[1] / name):
        return SHARED_STACK
    mode = MODE.search(nodeid)
    return f"{name} {mode[1]}" if mode else name


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    return ByGroup(config, log) if config.getoption("dist") == "loadfile" else None


class ByGroup(LoadFileScheduling):
    """Gives each worker the next group of tests."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have files of tests/e2e that share no stack run last, so that the workers end at about the same time.

    They are shorter than those of tests/faults.
    """
    items.sort(key=lambda item: item.path.parent == E2E and not shares_stack(item.path))
