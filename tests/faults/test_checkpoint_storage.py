"""The checkpoint storage takes no more files: lists stay fresh, consents take effect, and nothing piles up."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient

from tests.support.live import Live, start_live, until

FLINK = {
    "execution.checkpointing.interval": "200 ms",
    "execution.checkpointing.min-pause": "100 ms",
    "execution.checkpointing.data-inline-threshold": "0 b",
}
FAILURES = 60
"""More than the 33 that were once tolerated by default, for outages of Redis."""
NO_FILES = Path("/proc/self/fdinfo")
"""A directory in which nobody can create a file, root included."""
SINKS = 4
"""Sinks that write in transactions."""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    live = start_live(tmp_path_factory.mktemp("storage"), 1, FLINK)
    yield live
    live.close()
    live.stack.stop()


def counts(live: Live) -> dict[str, Any]:
    return dict(live.stack.rest.checkpoints(live.job_id)["counts"])


@contextmanager
def away(live: Live) -> Iterator[None]:
    """The storage takes directories, as an object store does always, but no files."""
    folder = live.stack.directory / "flink" / "checkpoints" / live.job_id
    begun = counts(live)["total"]
    (folder / "probe" / "in the way").mkdir(parents=True)
    for number in range(begun + 2, begun + 2_000):
        (folder / f"chk-{number}").symlink_to(NO_FILES)
    yield
    for link in folder.glob("chk-*"):
        if link.is_symlink():
            link.unlink(missing_ok=True)
    (folder / "probe" / "in the way").rmdir()
    (folder / "probe").rmdir()


def open_transactions(live: Live) -> int:
    admin = KafkaAdminClient(bootstrap_servers=live.settings.kafka.bootstrap_servers)
    try:
        listed = itertools.chain.from_iterable(admin.list_transactions(state_filters=["Ongoing"]).values())
        return sum(one.transactional_id.startswith(live.settings.kafka.group()) for one in listed)
    finally:
        admin.close()


def restarts(live: Live) -> int:
    return len(live.stack.rest.get(f"/jobs/{live.job_id}/exceptions")["exceptionHistory"]["entries"])


@pytest.mark.promise("storage-away")
def test_lists_stay_fresh_without_checkpoint_storage(live: Live) -> None:
    live.consent(["ada", "bea"])
    live.interact("ada", "item-00001")
    live.wait_for_version("ada", 1)
    until(lambda: counts(live)["completed"] >= 2, "checkpoints")
    before = counts(live)
    with away(live):
        until(lambda: counts(live)["failed"] > before["failed"], "a failed checkpoint", pause_s=0.2)
        completed = counts(live)["completed"]
        numbers = itertools.count(2)
        while counts(live)["failed"] < before["failed"] + FAILURES:
            found = live.list_of("ada")
            live.interact("ada", f"item-{next(numbers):05d}")
            live.wait_for_version("ada", 1 + (found.v if found else 0))
            assert restarts(live) == 0
        live.consent(["bea"], level="none")
        assert live.list_of("bea") is None, "a withdrawal takes effect"
        assert counts(live)["completed"] == completed
        assert open_transactions(live) <= 3 * SINKS, "no checkpoint that must fail begins new ones"
    until(lambda: counts(live)["completed"] > completed, "a checkpoint", pause_s=0.2)
    assert restarts(live) == 0
