"""A second job takes over from a running one under load: nothing is lost, doubled or late; the first cannot write."""

import contextlib
import io
import json
import re
from collections.abc import Iterator

import pytest

from adapters.secrets.signing_keys import load_signing_key
from deploy.take_over import TakeOver
from freshet.cli.main import run
from jobs.registration import last_recorded
from jobs.settings import load_settings
from privacy.audit_verification import verification
from schemas.consents import Level
from tests.support.examples import CAMPAIGN, cases
from tests.support.live import Live, start_live, until
from tests.support.shoppers import USERS, Shoppers, listed, published

pytestmark = pytest.mark.skipif(
    not CAMPAIGN, reason="runs in `make campaign`: two jobs at once need the machine for themselves"
)

SETTINGS = {"execution.checkpointing.interval": "1 s", "execution.checkpointing.min-pause": "200 ms"}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    running = start_live(tmp_path_factory.mktemp("take-over"), 2, SETTINGS)
    try:
        yield running
    finally:
        running.close()
        running.stack.stop()


def follow(
    live: Live, monkeypatch: pytest.MonkeyPatch, from_start: bool = False, mode: str | None = None
) -> tuple[TakeOver, list[str]]:
    """Have another job take over, as `freshet take-over` does."""
    monkeypatch.setattr("deploy.submission.LOCAL", live.stack.directory)
    words = ["take-over", "--settings", str(live.product.settings_path), "--flink", live.stack.rest.url, "--json"]
    words += ["--savepoints", (live.stack.directory / "take-overs").as_uri(), "-p", "1"]
    words += ["--from-start"] if from_start else []
    words += ["--mode", mode] if mode else []
    shown, told = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(told):
        code = run(words)
    assert code == 0, told.getvalue()
    done = TakeOver(**json.loads(shown.getvalue()))
    live.job_id = done.job
    return done, told.getvalue().splitlines()


@pytest.mark.promise("take-over")
def test_take_over_under_load_loses_and_doubles_nothing(live: Live, monkeypatch: pytest.MonkeyPatch):
    live.consent(USERS)
    with Shoppers(live) as load:
        until(lambda: load.sent > 100, "load")
        done, told = follow(live, monkeypatch)
        sent = load.sent
        until(lambda: load.sent > sent + 100, "load after the take-over")
    print(*told, f"slowest click {load.slowest_s:.2f} s, {load.reads} reads, {len(load.left)} left, {done}", sep="\n")
    assert live.wait_until_accounted(load.sent)["accepted"] == load.sent
    until(lambda: published(live).total() >= load.sent, "clean events")
    assert set(published(live).values()) == {1} and published(live).total() == load.sent
    recorded = last_recorded(live.settings.kafka)
    head = live.list_of("user-0")
    assert head is not None and recorded is not None and head.epoch == recorded.epoch < done.at_ms
    assert load.reads > 100 and len(load.left) > 10
    states = live.plain_states(load.left)
    assert {state["level"] for state in states.values()} == {Level.NONE} and len(states) == len(load.left)
    for user in load.left:
        assert b'"level":"none"' in live.redis.get(live.keys(user)[1])
    public = load_signing_key(live.settings.audit.signing_key).public

    def findings() -> bool:
        return verification(live.settings, [public], []).findings == []

    until(findings, "a verified audit trail")
    found = verification(live.settings, [public], [])
    assert not [remark for remark in found.remarks if "given up" in remark]


@pytest.mark.promise("take-over")
@pytest.mark.parametrize("mode", cases(["thread", "process"]))
def test_backfill_with_other_buckets_and_mode_equals_the_live_state(
    live: Live, monkeypatch: pytest.MonkeyPatch, mode: str
):
    for user in USERS[:3]:
        live.interact(user, "item-00007")
    before = live.plain_states(USERS)
    lists = listed(live)
    path = live.product.settings_path
    others = 7 if live.settings.job.buckets != 7 else 3
    path.write_text(re.sub(r"\n\[job\]\nbuckets = \d+\n", "", path.read_text()) + f"\n[job]\nbuckets = {others}\n")
    live.settings = load_settings(path)
    follow(live, monkeypatch, from_start=True, mode=mode)
    assert live.plain_states(USERS) == before
    assert listed(live) == lists
    version, _ = lists["user-0"]
    live.interact("user-0", "item-00008")
    assert live.wait_for_version("user-0", version + 1).v == version + 1
    until(lambda: set(published(live).values()) == {1}, "clean events")
