"""What Flink says of the running job, and what follows for a command about it."""

from typing import Any

import pytest

from jobs import savepoints
from jobs.running_jobs import complaint_about_layout
from jobs.savepoints import running_job
from schemas.errors import NoJobError, SettingsError

HELD = {"job.buckets": "8", "job.max_parallelism": "128", "python.execution-mode": "thread"}


@pytest.mark.parametrize("name", HELD)
def test_upgrade_to_another_layout_is_refused_while_the_job_runs(name: str) -> None:
    assert complaint_about_layout("j", HELD, HELD) is None
    assert complaint_about_layout("j", {}, HELD) is None, "a release that did not store it"
    told = complaint_about_layout("j", HELD, HELD | {name: "4"}) or ""
    assert f"job j runs with {name} {HELD[name]}, and this submission has 4" in told


def overview(monkeypatch: pytest.MonkeyPatch, *states: str, cause: str = "") -> None:
    jobs = [{"jid": f"j{number}", "name": "mine", "state": state} for number, state in enumerate(states)]

    class Rest:
        def __init__(self, url: str) -> None:
            self.url = url

        def overview(self) -> list[dict[str, Any]]:
            return [*jobs, {"jid": "x", "name": "another", "state": "RUNNING"}]

        def root_cause(self, job: str) -> str:
            return cause

    monkeypatch.setattr(savepoints, "FlinkRest", Rest)


def test_the_only_job_that_has_not_ended_is_the_running_one(monkeypatch: pytest.MonkeyPatch) -> None:
    overview(monkeypatch, "FINISHED", "CANCELLING", "RUNNING", "FAILED", "CANCELED")
    assert running_job("http://f", "mine") == "j2"


def test_no_job_is_told_from_one_that_fails_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    overview(monkeypatch, "CANCELED")
    with pytest.raises(NoJobError, match=r"no job named mine runs .*`freshet submit`"):
        running_job("http://f", "mine")
    overview(monkeypatch, "RESTARTING", cause="java.io.EOFException")
    with pytest.raises(SettingsError, match=r"job j0 is RESTARTING .*java\.io\.EOFException") as told:
        running_job("http://f", "mine")
    assert not isinstance(told.value, NoJobError)


def test_two_jobs_are_explained_by_a_take_over(monkeypatch: pytest.MonkeyPatch) -> None:
    overview(monkeypatch, "RUNNING", "RUNNING")
    with pytest.raises(SettingsError, match="run `freshet take-over` again"):
        running_job("http://f", "mine")
