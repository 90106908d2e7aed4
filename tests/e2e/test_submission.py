"""The commands that submit the job, typed as in the README, on a stack like that of `freshet up`."""

import json
import zipfile
from pathlib import Path

import pytest

from deploy import submission
from deploy.local import commands as stack_commands
from deploy.local.files import write_atomically
from deploy.local.local_job import newest_job
from deploy.package import build, write_archive
from freshet.cli.main import run
from jobs.locations import location_of
from jobs.savepoints import take_savepoint
from tests.support.documented import commands
from tests.support.live import Live


@pytest.fixture(autouse=True)
def up(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """This stack poses as that of `freshet up`, and the environment names no Flink."""
    for module in (submission, stack_commands):
        monkeypatch.setattr(module, "LOCAL", live.stack.directory)
    for name in ("FLINK_HOME", "FLINK_CONF_DIR", "FLINK_LIB_DIR"):
        monkeypatch.delenv(name, raising=False)


def typed(live: Live, command: str, *more: str, **instead: str) -> int:
    """Runs the documented command on this stack, with words replaced by `instead`; returns its exit code."""
    real = {
        "http://flink:8081": live.stack.flink.url,
        "freshet.toml": str(live.product.settings_path),
        "s3://bucket/savepoints": str(live.stack.directory / "upgrades"),
        "2": "1",
    }
    words = next(words for words in commands("freshet") if words[0] == command and "http://flink:8081" in words)
    return run([*(instead.get(word) or real.get(word, word) for word in words), *more])


def test_submit_reaches_the_cluster_which_refuses_a_second_job(live: Live, capsys: pytest.CaptureFixture[str]):
    assert typed(live, "submit") == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("freshet: not done: ")
    assert f"job {live.job_id} (RUNNING) belongs to this deployment: replace it with `freshet upgrade " in last


def test_upgrade_that_would_be_refused_leaves_the_job_running(live: Live, capsys: pytest.CaptureFixture[str]):
    settings = live.product.settings_path.with_name("modified.toml")
    text = live.product.settings_path.read_text()
    write_atomically(settings, text.replace(str(live.settings.model.directory), "/nowhere"))
    assert typed(live, "upgrade", **{"freshet.toml": str(settings)}) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert "/nowhere" in told and f"Job {live.job_id} was not stopped, and runs on" in told
    assert live.stack.rest.state(live.job_id) == "RUNNING"


def test_state_check_tells_before_anything_is_stopped(live: Live, capsys: pytest.CaptureFixture[str]):
    """On a savepoint of the running job: for these settings, and for others."""
    savepoint = take_savepoint(live.stack.flink.url, live.settings.job.name, live.stack.directory / "checked", 120)
    path = live.product.settings_path.with_name("more-buckets.toml")
    more = live.product.settings_path.read_text().replace("[model]\n", "[job]\nbuckets = 8\n\n[model]\n", 1)
    write_atomically(path, more)
    checking = ["state", "check", "--flink", live.stack.flink.url, "--json", "--from"]
    assert run([*checking, location_of(savepoint), "--settings", str(live.product.settings_path)]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "compatible"
    assert run([*checking, location_of(savepoint), "--settings", str(path)]) == 3
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"] == "needs backfill" and "job.buckets 4, and this" in told["findings"][0]["why"]
    assert run([*checking, "file:///nowhere", "--settings", str(path)]) == 2
    assert "file:///nowhere cannot be read here" in capsys.readouterr().err
    assert live.stack.rest.state(live.job_id) == "RUNNING"


def test_upgrade_continues_from_its_stop_savepoint(live: Live, capsys: pytest.CaptureFixture[str]):
    live.consent(["nell"])
    live.interact("nell", "item-00001")
    live.wait_for_version("nell", 2)
    before = live.states(["nell"])
    assert typed(live, "upgrade", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["before"] == live.job_id and "/upgrades/savepoint-" in told["savepoint"]
    live.job_id = told["job"]
    live.stack.rest.wait_running(live.job_id)
    assert live.states(["nell"]) == before != {}
    live.interact("nell", "item-00002")
    live.wait_for_version("nell", 3)


def test_upgrade_to_code_that_does_not_run_is_rolled_back(
    live: Live, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Other code on these TaskManagers is refused by their interpreters; the code of before is what they know."""
    live.consent(["rolf"])
    live.interact("rolf", "item-00001")
    live.wait_for_version("rolf", 2)
    before = live.states(["rolf"])
    with zipfile.ZipFile(build(tmp_path / "good.zip")) as sources:
        files = {name: sources.read(name) for name in sources.namelist()}
    changed = files | {"udfs/consent.py": files["udfs/consent.py"] + b"# other\n"}
    monkeypatch.setattr(submission, "build", lambda out: write_archive(out, changed))
    assert typed(live, "upgrade", "--json", "--timeout", "5") == 4
    told = json.loads(capsys.readouterr().out)
    assert "was submitted: replace the TaskManagers" in told["rolled_back"]
    live.job_id = told["job"]
    live.stack.rest.wait_running(live.job_id)
    assert live.states(["rolf"]) == before != {}
    live.interact("rolf", "item-00002")
    live.wait_for_version("rolf", 3)


def test_status_reports_a_stopped_job_which_up_continues(live: Live, capsys: pytest.CaptureFixture[str]):
    live.consent(["otto"])
    live.interact("otto", "item-00001")
    live.wait_for_version("otto", 2)
    before = live.states(["otto"])
    write_atomically(live.stack.directory / stack_commands.WITH_JOB, "")
    savepoint = live.stack.rest.stop_with_savepoint(live.job_id)
    assert run(["status"]) == 1
    assert "FINISHED" in capsys.readouterr().out
    stack_commands.up(1, with_job=True)
    assert f"no job runs: submitting it, from {savepoint}\n" in capsys.readouterr().err
    job = newest_job(live.stack.rest, live.settings.job.name)
    assert job is not None and job.id != live.job_id
    live.job_id = job.id
    assert run(["status"]) == 0, "with a gateway, too, which there was none of"
    assert live.states(["otto"]) == before != {}
    capsys.readouterr()
    stack_commands.up(1, with_job=True)
    assert "it is up already" in capsys.readouterr().err
