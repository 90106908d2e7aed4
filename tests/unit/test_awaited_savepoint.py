"""The named pipe on which a prepared submission awaits the savepoint of the job that it replaces."""

import os
import threading
import time
from pathlib import Path

import pytest

from jobs.replacement import await_savepoint
from schemas.errors import SettingsError


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "savepoint")
    return tmp_path / "savepoint"


def test_savepoint_is_awaited_until_it_is_named(pipe: Path) -> None:
    found: list[str] = []
    with pipe.open("r+b", buffering=0) as orders:
        waiting = threading.Thread(target=lambda: found.append(await_savepoint(pipe)))
        waiting.start()
        time.sleep(0.05)
        assert found == []
        orders.write(b"s3://s/savepoint 1\n")
        waiting.join()
    assert found == ["s3://s/savepoint 1"]


@pytest.mark.parametrize("written", [b"", b"s3://s/savepo"])
def test_submission_ends_with_the_command_that_prepared_it(pipe: Path, written: bytes) -> None:
    orders = pipe.open("r+b", buffering=0)
    orders.write(written)
    ended: list[str] = []

    def wait() -> None:
        with pytest.raises(SettingsError, match="ended before the job was stopped"):
            await_savepoint(pipe)
        ended.append("ended")

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.05)
    orders.close()
    waiting.join()
    assert ended == ["ended"]


def test_submission_does_not_wait_for_a_command_that_has_ended_already(pipe: Path) -> None:
    with pytest.raises(SettingsError, match="ended before the job was stopped"):
        await_savepoint(pipe)
