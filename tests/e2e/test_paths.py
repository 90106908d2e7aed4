"""The whole checkout in folders with realistic names, under realistic locales."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from adapters.flink.rest import FlinkRest
from deploy.local.paths import JARS, ROOT
from jobs.settings import load_settings

NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "tests")
# Java's locale for LC_ALL=tr_TR.UTF-8, if that locale is installed.
TURKISH = {"LC_ALL": "tr_TR.UTF-8", "JAVA_TOOL_OPTIONS": "-Duser.language=tr -Duser.country=TR"}
PLACES = [
    ("josé", {"LC_ALL": "POSIX", "LANG": ""}, "heap"),
    ('my shop (1) 100%2F "50%" $HOME #1?', TURKISH, "rocksdb"),
]
BACKENDS = {"heap": "HashMapStateBackend", "rocksdb": "EmbeddedRocksDBStateBackend"}


@contextmanager
def stack_of(checkout: Path, environment: dict[str, str], state: str) -> Iterator[FlinkRest]:
    """`freshet up` in a copy of this checkout; returns Flink's REST interface."""
    shutil.copytree(ROOT, checkout, ignore=NOT_COPIED)
    (checkout / ".local").mkdir()
    (checkout / ".local" / "jars").symlink_to(JARS)
    (checkout / ".venv").symlink_to(sys.prefix)
    try:
        (checkout / ".local" / "more.toml").write_text("[explore]\nslots = 1\n")
        run(checkout, environment, "up", "--more", ".local/more.toml", "--state", state)
        yield FlinkRest(json.loads((checkout / ".local" / "endpoints.json").read_text())["flink"])
    finally:
        run(checkout, environment, "down")


def run(checkout: Path, environment: dict[str, str], *arguments: str) -> None:
    words = [".venv/bin/python", "-m", "freshet", *arguments]
    done = subprocess.run(
        words, cwd=checkout, env={**os.environ, **environment}, check=False, capture_output=True, timeout=300
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")


@pytest.mark.parametrize(("name", "environment", "state"), PLACES, ids=["posix", "turkish"])
def test_checkout_runs_in_any_folder_and_writes_nothing_outside(
    tmp_path: Path, name: str, environment: dict[str, str], state: str
) -> None:
    checkout = tmp_path / name
    with stack_of(checkout, environment, state) as flink:
        (job,) = flink.jobs()
        assert flink.get(f"/jobs/{job}/checkpoints/config")["state_backend"] == BACKENDS[state]
        run(checkout, environment, "status")
        assert load_settings(checkout / ".local" / "freshet.toml").explore.slots == 1
        (checkout / ".local" / "shop.csv").write_text("user_id,item_id,ts\nada,tea,2026-01-01T00:00:00Z\n")
        run(checkout, environment, "replay", ".local/shop.csv", "--type-constant", "click")
        flink.checkpoint(job)
        assert list((checkout / ".local" / "flink" / "checkpoints").glob("*/chk-*/_metadata"))
        savepoint = flink.stop_with_savepoint(job)
        assert f"{checkout}/.local/flink/savepoints/" in savepoint
        assert list(tmp_path.iterdir()) == [checkout]
    assert not list(tmp_path.rglob("_metadata"))
