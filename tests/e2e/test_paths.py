"""The whole checkout in folders with realistic names, under realistic locales."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from adapters.flink.rest import FlinkRest
from deploy.local.paths import JARS, ROOT
from jobs.settings import load_settings
from tests.support.live import until
from tests.support.scraping import answers_at

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


def serves_metrics_on_loopback_only(checkout: Path) -> None:
    """And at the addresses that `freshet status` prints."""
    published = json.loads((checkout / ".local" / "endpoints.json").read_text())
    served = {name: url for name, url in published.items() if name.startswith("metrics-")}
    assert served.keys() == {"metrics-jobmanager", "metrics-taskmanager-1"}
    ports = {name: urlsplit(url).port for name, url in served.items()}
    assert "flink_jobmanager_numRunningJobs" in until(lambda: answers_at(ports["metrics-jobmanager"]), "metrics")
    task_manager = until(
        lambda: (text := answers_at(ports["metrics-taskmanager-1"])) and "freshet_events_total" in text and text,
        "the job's metrics",
    )
    assert "freshet_events_total{" in task_manager
    listening = [one.laddr for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    assert {address.ip for address in listening if address.port in ports.values()} <= {"127.0.0.1", "::ffff:127.0.0.1"}


@pytest.mark.parametrize(("name", "environment", "state"), PLACES, ids=["posix", "turkish"])
def test_checkout_runs_in_any_folder_and_writes_nothing_outside(
    tmp_path: Path, name: str, environment: dict[str, str], state: str
) -> None:
    checkout = tmp_path / name
    with stack_of(checkout, environment, state) as flink:
        (job,) = flink.jobs()
        assert flink.get(f"/jobs/{job}/checkpoints/config")["state_backend"] == BACKENDS[state]
        run(checkout, environment, "status")
        serves_metrics_on_loopback_only(checkout)
        assert load_settings(checkout / ".local" / "freshet.toml").explore.slots == 1
        (checkout / ".local" / "shop.csv").write_text("user_id,item_id,ts\nada,tea,2026-01-01T00:00:00Z\n")
        run(checkout, environment, "replay", ".local/shop.csv", "--type-constant", "click")
        flink.checkpoint(job)
        assert list((checkout / ".local" / "flink" / "checkpoints").glob("*/chk-*/_metadata"))
        savepoint = flink.stop_with_savepoint(job)
        assert f"{checkout}/.local/flink/savepoints/" in savepoint
        assert list(tmp_path.iterdir()) == [checkout]
    assert not list(tmp_path.rglob("_metadata"))
