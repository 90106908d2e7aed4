"""How the job is given to Flink's client, and what is told when that refuses it."""

import doctest
import json
from pathlib import Path

import pytest

from deploy import submission
from deploy.local.errors import SubmitError
from deploy.submission import Submission, flink_client, submit
from freshet.cli.main import run

JOB = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes a client of Flink that writes down what it is given and then does as it is told."""

    def make(script: str) -> Path:
        given = tmp_path / "given"
        flink = tmp_path / "home" / "bin" / "flink"
        flink.parent.mkdir(parents=True, exist_ok=True)
        flink.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {given}\n{script}\n')
        flink.chmod(0o755)
        return given

    monkeypatch.setenv("FLINK_HOME", str(tmp_path / "home"))
    return make


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "freshet.toml"
    path.write_text('kafka.bootstrap_servers = "b:9092"\nredis.url = "redis://c"\nmodel.directory = "/m"\n')
    return path


def test_code_is_packed_and_job_id_reported(client, settings: Path, capsys) -> None:
    given = client(f'echo "some warning"; [ -s "${{10}}" ] && echo "Job has been submitted with JobID {JOB}"')
    words = ["submit", "--settings", str(settings), "--flink", "http://f:8081", "-s", "s3://s/1", "-p", "2", "--json"]
    assert run(words) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"job": JOB} and "some warning" in err
    typed = given.read_text().splitlines()
    assert typed[:8] == ["run", "-d", "-m", "f:8081", "-s", "s3://s/1", "-p", "2"]
    assert typed[-4:] == ["-pym", "jobs.personalise", "--settings", str(settings)]
    assert not Path(typed[typed.index("-pyfs") + 1]).exists(), "the zip is gone when Flink has it"


def test_reason_of_failed_job_checks_is_reported(client, settings: Path, capsys) -> None:
    client('echo "  File somewhere"; echo "not submitted: SettingsError: there is no topic x" >&2; exit 1')
    assert run(["submit", "--settings", str(settings)]) == 2
    assert capsys.readouterr().err.endswith("freshet: not done: SettingsError: there is no topic x\n")


@pytest.mark.parametrize("script", ["exit 3", "echo nothing"])
def test_client_without_submission_is_reported(client, settings: Path, script: str) -> None:
    client(script)
    with pytest.raises(SubmitError, match="the lines above"):
        submit(settings, Submission(), lambda line: None)


def test_refused_upgrade_names_savepoint_and_resuming_command(
    client, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client('echo "not submitted: ModelError: no model"; exit 1')
    monkeypatch.setattr(submission, "running_job", lambda flink, name: JOB)
    monkeypatch.setattr(submission.FlinkRest, "stop_with_savepoint", lambda self, job, folder: "s3://s/savepoint-1")
    with pytest.raises(
        SubmitError, match=r"no model.*`freshet submit .* --flink http://f:1 --savepoint s3://s/savepoint-1`"
    ):
        submission.upgrade(settings, "personalise", Submission("http://f:1"), None, lambda line: None)


def test_flink_client_is_found_on_path_then_in_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLINK_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert flink_client().is_file() and flink_client().parts[-3:] == ("pyflink", "bin", "flink")
    (tmp_path / "flink").write_text("#!/bin/sh\n")
    (tmp_path / "flink").chmod(0o755)
    assert flink_client() == tmp_path / "flink"


def test_examples_are_true() -> None:
    result = doctest.testmod(submission)
    assert result.attempted and not result.failed
