"""Savepoints under load, a change of parallelism there and back, and the refusal of the other mode's savepoint."""

import os
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from deploy.local import product
from deploy.local.errors import SubmitError
from schemas import topics
from tests.support import retail
from tests.support.live import Live, start_live, until

LINES = 60_000


@pytest.fixture(scope="module", params=["thread", "process"])
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    mode = request.param
    running = start_live(tmp_path_factory.mktemp(mode), 2, {"python.execution-mode": mode})
    running.mode = mode
    try:
        yield running
    finally:
        running.close()
        running.stack.stop()


def resubmit(live: Live, savepoint: str, parallelism: int) -> None:
    live.job_id = product.submit(live.stack, live.product.settings_path, ("-p", str(parallelism), "-s", savepoint))
    live.stack.rest.wait_running(live.job_id)


@retail.needs_retail
def test_stopped_under_load_and_rescaled_there_and_back_nothing_is_lost_or_twice(live: Live):
    retail.consent_all(live)
    stop = threading.Event()
    sending = threading.Thread(target=send_steadily, args=(live, stop))
    sending.start()
    try:
        for step, parallelism in enumerate((2, 1), start=1):
            until(lambda step=step: live.accounted() > step * LINES // 4, "a part of the load")
            resubmit(live, live.stack.rest.stop_with_savepoint(live.job_id), parallelism)
    finally:
        stop.set()
        sending.join()
    retail.assert_equals_twin(live, LINES)


def send_steadily(live: Live, hurry: threading.Event) -> None:
    """Half of the lines at a pace that lasts, the rest when told to hurry: so that load is on all the time."""
    sender, name = live.producer(), live.settings.kafka.topic(topics.INTERACTIONS)
    lines = retail.lines(LINES)
    while chunk := list(islice(lines, 200)):
        for key, payload in chunk:
            sender.send(name, key=key, value=payload)
        sender.flush()
        hurry.wait(0 if hurry.is_set() else 0.1)
    sender.close()


def test_a_savepoint_that_is_too_old_is_refused(live: Live):
    savepoint = live.stack.rest.stop_with_savepoint(live.job_id)
    metadata = Path(savepoint.removeprefix("file:")) / "_metadata"
    kept_s = live.settings.privacy.snapshots_kept_ms / 1000
    try:
        os.utime(metadata, (0, time.time() - kept_s - 3600))
        with pytest.raises(SubmitError, match=r"not submitted: SettingsError: the snapshot is 7\.0 days old"):
            product.submit(live.stack, live.product.settings_path, ("-s", savepoint))
    finally:
        os.utime(metadata)
        resubmit(live, savepoint, 1)


def test_a_savepoint_of_the_other_mode_is_refused_and_not_restored_empty(live: Live):
    live.consent(["ada"])
    other = {"thread": "process", "process": "thread"}[live.mode]
    savepoint = live.stack.rest.stop_with_savepoint(live.job_id)
    options = (f"-Dpython.execution-mode={other}", "-s", savepoint)
    with pytest.raises(SubmitError, match="Cannot map checkpoint/savepoint state for operator"):
        product.submit(live.stack, live.product.settings_path, options)
    resubmit(live, savepoint, 1)
    assert live.pseudonymiser.user("ada") in live.plain_states()
