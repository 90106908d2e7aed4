"""`make upgrade-test`: from the last release to this code under load, to other parallelisms, and back."""

import contextlib
import io
import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.secrets.signing_keys import load_signing_key
from deploy import submission
from deploy.local import product
from deploy.releases import FOLDER, Release, keep
from freshet.cli.main import run
from privacy.audit_verification import verification
from schemas.consents import Level
from tests.support.examples import CAMPAIGN
from tests.support.live import Live, start_live, until
from tests.support.revisions import former_revision, package_of
from tests.support.shoppers import USERS, Shoppers, published

pytestmark = pytest.mark.skipif(not CAMPAIGN, reason="runs in `make upgrade-test`: four TaskManagers and two releases")

SETTINGS = {"execution.checkpointing.interval": "1 s", "execution.checkpointing.min-pause": "200 ms"}
SETTLED = [f"settled-{number}" for number in range(10)]
"""Users whose lists and consents nothing changes any more."""
CLICKS = 60


class Journey:
    """A stack on which a job of the former release was started, and what happened to it since."""

    def __init__(self, live: Live, former: Path) -> None:
        self.live, self.former = live, former
        self.sent = 0
        self.canaries = 0
        self.left: list[str] = []
        self.savepoint = ""
        self.settled: dict[str, Any] = {}

    def lists_and_consents(self) -> dict[str, Any]:
        """Of the settled users: versions and items of lists, and consents in state and in Redis."""
        states = self.live.plain_states(SETTLED)
        found = {user: (self.live.list_of(user), self.live.redis.get(self.live.keys(user)[1])) for user in SETTLED}
        lists = {user: (one and (one.v, [item.id for item in one.items]), raw) for user, (one, raw) in found.items()}
        return {"lists": lists, "states": states}

    def assert_exact(self, is_continued: bool = True) -> None:
        """Each click counts once in state, and is published once unless an older savepoint was restored."""
        live, all_sent = self.live, self.sent + self.canaries
        assert live.wait_until_accounted(all_sent)["accepted"] >= self.sent
        until(lambda: len(published(live)) >= all_sent, "clean events")
        times = published(live)
        assert len(times) == all_sent
        assert set(times.values()) <= ({1} if is_continued else {1, 2})
        assert self.lists_and_consents() == self.settled
        states = live.plain_states(self.left)
        assert Counter(state["level"] for state in states.values()) == {Level.NONE: len(self.left)}
        public = load_signing_key(live.settings.audit.signing_key).public
        until(lambda: verification(live.settings, [public], []).findings == [], "a verified audit trail")

    @contextlib.contextmanager
    def shoppers(self) -> Iterator[Shoppers]:
        """Load before, during and after the block."""
        with Shoppers(self.live, len(self.left)) as load:
            until(lambda: load.sent > CLICKS, "load")
            yield load
            sent = load.sent
            until(lambda: load.sent > sent + CLICKS, "load afterwards")
        self.sent += load.sent
        self.left += load.left


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journey]:
    folder = tmp_path_factory.mktemp("upgrade")
    former = package_of(former_revision(), folder)
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):  # Flink's client imports from there first
        patch.setattr(product, "build", lambda out: shutil.copyfile(former, out))
        live = start_live(folder / "stack", 4, SETTINGS)
    try:
        live.consent([*USERS, *SETTLED])
        for user in SETTLED:
            live.interact(user, f"item-{100 + len(user):05}")
            live.wait_for_version(user, 2)
        found = Journey(live, former)
        found.sent, found.settled = len(SETTLED), found.lists_and_consents()
        yield found
    finally:
        live.close()
        live.stack.stop()


def upgraded(journey: Journey, monkeypatch: pytest.MonkeyPatch, *more: str, new_code: bool = False) -> dict[str, Any]:
    """`freshet upgrade`, beside which somebody replaces the TaskManagers if the code is new."""
    live = journey.live
    monkeypatch.setattr(submission, "LOCAL", live.stack.directory)
    words = ["upgrade", "--settings", str(live.product.settings_path), "--flink", live.stack.rest.url, "--json", *more]
    words += ["--savepoints", (live.stack.directory / "upgrades").as_uri(), "--timeout", "300"]
    shown, told = io.StringIO(), io.StringIO()
    replacing = threading.Thread(target=_replace_when_stopped, args=(live, live.job_id))
    if new_code:
        replacing.start()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(told):
        code = run(words)
    if new_code:
        replacing.join()
    assert code == 0, told.getvalue()
    done = dict(json.loads(shown.getvalue()))
    live.job_id = done["job"]
    journey.canaries += 1
    return done


def _replace_when_stopped(live: Live, job: str) -> None:
    live.stack.rest.wait_state(job, "FINISHED")
    live.stack.replace_task_managers()


def test_upgrade_from_the_last_release_loses_and_doubles_nothing(journey: Journey, monkeypatch: pytest.MonkeyPatch):
    with journey.shoppers() as load:
        done = upgraded(journey, monkeypatch, "-p", "1", new_code=True)
    print(f"from {former_revision()}: longest wait {load.slowest_s:.1f} s, {load.reads} reads, {done}")
    journey.savepoint = done["savepoint"]
    journey.assert_exact()


def test_rescaling_1_2_4_1_under_load_loses_and_doubles_nothing(journey: Journey, monkeypatch: pytest.MonkeyPatch):
    with journey.shoppers() as load:
        for parallelism in ("2", "4", "1"):
            done = upgraded(journey, monkeypatch, "-p", parallelism)
            print(f"to {parallelism}: {done}")
    print(f"longest wait {load.slowest_s:.1f} s, {load.reads} reads")
    journey.assert_exact()


def test_former_release_continues_from_the_savepoint_of_before(journey: Journey, monkeypatch: pytest.MonkeyPatch):
    """What was sent since is read again: state is exact, and what was published since is published twice."""
    live = journey.live
    assert journey.savepoint, "the upgrade has passed"
    monkeypatch.setattr(submission, "LOCAL", live.stack.directory)
    settings = live.product.settings_path
    with journey.shoppers():
        live.stack.rest.stop_with_savepoint(live.job_id)
        live.stack.replace_task_managers()
        keep(live.stack.directory / FOLDER, "former", Release(journey.former, settings))
        words = ["submit", "--settings", str(settings), "--flink", live.stack.rest.url, "--savepoint"]
        words += [
            journey.savepoint,
            "--package",
            str(live.stack.directory / FOLDER / "former" / "freshet.zip"),
            "--json",
        ]
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            assert run([*words, "-p", "1"]) == 0
        live.job_id = json.loads(shown.getvalue())["job"]
        live.stack.rest.wait_running(live.job_id)
    journey.assert_exact(is_continued=False)
