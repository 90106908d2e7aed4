"""Savepoints: under load, with parallelism changed and changed back, refused ones, and one from before an
erasure, which brings nothing back."""

import json
import os
import threading
import time
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from adapters.secrets.signing_keys import load_signing_key
from deploy.local import product
from deploy.local.errors import SubmitError
from deploy.package import build
from privacy.audit_verification import verification
from schemas import topics
from tests.support import retail
from tests.support.live import Live, start_live, until

LINES = 60_000
CONSENTS_AHEAD, CONSENT_BYTES = 3_000, 2_000
"""Several times what one fetch takes from a partition (1 MB)."""


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
@pytest.mark.promise("savepoints")
def test_rescaling_under_load_is_exactly_once(live: Live):
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
    """Send half of the lines at a sustainable pace, and the rest on demand, so that there is always load."""
    sender, name = live.producer(), live.settings.kafka.topic(topics.INTERACTIONS)
    lines = retail.lines(LINES)
    while chunk := list(islice(lines, 200)):
        for key, payload in chunk:
            sender.send(name, key=key, value=payload)
        sender.flush()
        hurry.wait(0 if hurry.is_set() else 0.1)
    sender.close()


@pytest.mark.promise("deployment-identity")
def test_too_old_savepoint_is_refused(live: Live):
    savepoint = live.stack.rest.stop_with_savepoint(live.job_id)
    metadata = Path(savepoint.removeprefix("file:")) / "_metadata"
    kept_s = live.settings.privacy.snapshots_kept_ms / 1000
    try:
        os.utime(metadata, (0, time.time() - kept_s - 3600))
        with pytest.raises(SubmitError, match=r"not submitted: the snapshot is 7\.0 days old"):
            product.submit(live.stack, live.product.settings_path, ("-s", savepoint))
    finally:
        os.utime(metadata)
        resubmit(live, savepoint, 1)


@pytest.mark.promise("savepoints")
def test_savepoint_of_other_execution_mode_is_refused(live: Live):
    live.consent(["ada"])
    other = {"thread": "process", "process": "thread"}[live.mode]
    savepoint = live.stack.rest.stop_with_savepoint(live.job_id)
    options = (f"-Dpython.execution-mode={other}", "-s", savepoint)
    with pytest.raises(SubmitError, match=r"the snapshot was taken with python\.execution-mode"):
        product.submit(live.stack, live.product.settings_path, options)
    resubmit(live, savepoint, 1)
    assert live.pseudonymiser.user("ada") in live.plain_states(["ada"])


def clean_events_of(live: Live, user: str) -> int:
    mine = live.pseudonymiser.user(user)
    return sum(json.loads(record.value)["pseudonym"] == mine for record in live.records(topics.EVENTS))


def hold_up_consents_behind(live: Live, user: str) -> None:
    """Fill the partition of `user` with another user's records, so that a replay reads interactions long before."""
    name = live.settings.kafka.topic(topics.CONSENTS)
    [mine] = [r for r in live.records(topics.CONSENTS) if r.key == user.encode()]
    other = json.dumps({"user_id": "somebody-else", "level": "full", "ts": mine.timestamp}).encode()
    other = other.ljust(CONSENT_BYTES)
    sender = live.producer()
    for _ in range(CONSENTS_AHEAD):
        sender.send(name, key=b"somebody-else", value=other, partition=mine.partition)
    sender.close()


@pytest.mark.privacy
@pytest.mark.promise("nothing-returns")
def test_savepoint_from_before_an_erasure_restores_nothing(live: Live):
    live.consent(["eve", "rob"])
    for user in ("eve", "rob"):
        live.interact(user, "item-00001")
        live.wait_for_version(user, 2)
    before = live.stack.rest.stop_with_savepoint(live.job_id)
    resubmit(live, before, 1)
    for _ in range(20):
        live.interact("eve", "item-00002")
    live.interact("rob", "item-00003")
    live.wait_for_version("eve", 22)
    hold_up_consents_behind(live, "eve")
    live.consent(["eve"], level="none", erase=True)
    assert live.redis.exists(*live.keys("eve")) == 1, "the tombstone alone"
    assert live.states(["eve"]) == {}
    after = live.stack.rest.stop_with_savepoint(live.job_id)
    assert after != before
    published = clean_events_of(live, "eve")
    assert published == 21

    resubmit(live, before, 1)
    live.interact("rob", "item-00004")
    live.wait_for_version("rob", 4)
    live.checkpoint()
    assert live.states(["rob", "eve"]).keys() == {live.pseudonymiser.user("rob")}
    assert live.list_of("eve") is None
    until(lambda: clean_events_of(live, "rob") > 3, "rob's events, published again")
    assert clean_events_of(live, "eve") == published
    assert_the_trail_tells_of_it(live)


def assert_the_trail_tells_of_it(live: Live) -> None:
    """The chain continues from the older savepoint and says so; the abandoned records remain."""
    key = load_signing_key(live.settings.audit.signing_key)
    trail = verification(live.settings, [key.public], [])
    assert trail.findings == []
    assert any("an older savepoint was restored" in remark for remark in trail.remarks)
    mine = live.pseudonymiser.user("eve").encode()
    erasures = [r for r in live.records(topics.AUDIT) if b'"kind":"erasure"' in r.value and mine in r.value]
    assert len(erasures) >= 1
    assert not any(b'"eve"' in record.value for record in live.records(topics.AUDIT))


def test_new_release_is_refused_on_old_task_managers_and_runs_on_new_ones(
    live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thread mode would run the imported modules. In process mode, a worker may or may not serve the next job."""
    savepoint = live.stack.rest.stop_with_savepoint(live.job_id)
    newer = tmp_path / "newer.zip"
    with zipfile.ZipFile(build(tmp_path / "freshet.zip")) as old, zipfile.ZipFile(newer, "w") as archive:
        for name in old.namelist():
            archive.writestr(name, old.read(name) + (b"# newer\n" if name == "udfs/consent.py" else b""))
    monkeypatch.chdir(tmp_path)  # the client would import modules from its working directory
    settings = live.product.settings_path
    live.job_id = product.submit_module(live.stack, settings, "jobs.personalise", [newer], ("-s", savepoint))
    if live.mode == "thread":
        told = "was submitted: replace the TaskManagers"
        until(lambda: told in live.stack.rest.exceptions(live.job_id, 100_000), "the refusal")
    live.stack.replace_task_managers()
    live.stack.rest.wait_running(live.job_id)
    live.consent(["zoe"])
    assert live.stack.rest.state(live.job_id) == "RUNNING"
