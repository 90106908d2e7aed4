"""How the job is passed to Flink's client, and the message when the client refuses it."""

import doctest
import http.server
import json
import os
import re
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import submission
from deploy.local.errors import SubmitError
from deploy.submission import Safety, Submission, flink_client, submit
from freshet.cli.main import _end, run
from schemas.errors import FreshetError

JOB = "0123456789abcdef0123456789abcdef"
SAFETY = Safety(1, lambda: None)
STACK = "-----------------------------\n The program finished with the following exception:\n\tat org.A.b(A.java:1)\n"


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A fake Flink client that records its arguments and then behaves as configured."""

    def make(script: str) -> Path:
        given = tmp_path / "given"
        flink = tmp_path / "home" / "bin" / "flink"
        flink.parent.mkdir(parents=True, exist_ok=True)
        flink.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {given}\n{script}\n')
        flink.chmod(0o755)
        return given

    monkeypatch.setenv("FLINK_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(submission, "LOG", tmp_path / "local" / "submit.log")
    monkeypatch.setattr(submission, "RELEASES", tmp_path / "local" / "releases")
    return make


@pytest.fixture
def kafka() -> Iterator[str]:
    """The address of a server that accepts connections, as a broker does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def settings(tmp_path: Path, kafka: str) -> Path:
    path = tmp_path / "freshet.toml"
    path.write_text(f'kafka.bootstrap_servers = "{kafka}"\nredis.url = "redis://c"\nmodel.directory = "/m"\n')
    return path


@pytest.fixture
def flink() -> Iterator[str]:
    """The address of a REST interface that has no jobs."""

    class Overview(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Overview) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("flink", ["http://127.0.0.1:1", "127.0.0.1:1", "http://nowhere.invalid:8081"])
def test_flink_that_does_not_answer_is_named_before_its_client_starts(client, settings: Path, flink: str, capsys):
    given = client("exit 1")
    assert run(["submit", "--settings", str(settings), "--flink", flink]) == 2
    said = capsys.readouterr().err
    assert f"Flink at {flink if '//' in flink else 'http://' + flink} does not answer" in said
    assert not given.exists()


def test_kafka_that_does_not_answer_is_named_before_the_client_starts(client, settings: Path, flink: str, capsys):
    given = client("exit 1")
    settings.write_text(re.sub(r"127.0.0.1:\d+", "127.0.0.1:1", settings.read_text()))
    for more in ([], ["--flink", flink]):
        assert run(["submit", "--settings", str(settings), *more]) == 2
        assert "Kafka at 127.0.0.1:1 refuses connections" in capsys.readouterr().err
    assert not given.exists()


def test_temporary_files_of_the_client_go_with_the_package(client, settings: Path, tmp_path: Path):
    """Flink's client makes a folder for each submission, and never deletes it."""
    place = "$(echo $JVM_ARGS | sed 's/.*-Djava.io.tmpdir=//')"
    client(f'mkdir {place}/flink-distributed-cache-1 && echo "Job has been submitted with JobID {JOB}"')
    before = {path.name for path in tmp_path.iterdir()}
    assert submit(settings, Submission(), lambda line: None) == JOB
    assert {path.name for path in tmp_path.iterdir()} - before <= {"given", "local"}


def test_only_the_last_log_of_a_failed_client_is_kept(client, settings: Path, tmp_path: Path, capsys):
    for why in ("first", "second"):
        client(f"echo {why}; exit 1")
        assert run(["submit", "--settings", str(settings)]) == 2
    assert [path.read_text() for path in tmp_path.rglob("*.log")] == ["second\n"]


def test_code_is_packed_and_job_id_reported(client, settings: Path, flink: str, capsys) -> None:
    given = client(f'echo "some warning"; [ -s "${{10}}" ] && echo "Job has been submitted with JobID {JOB}"')
    words = ["submit", "--settings", str(settings), "--flink", f"http://{flink}", "-s", "s3://s/1", "-p", "2", "--json"]
    assert run(words) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"job": JOB} and "some warning" in err
    typed = given.read_text().splitlines()
    assert typed[:8] == ["run", "-d", "-m", flink, "-s", "s3://s/1", "-p", "2"]
    assert typed[-4:] == ["-pym", "jobs.personalise", "--settings", str(settings)]
    assert not Path(typed[typed.index("-pyfs") + 1]).exists(), "the zip is gone when Flink has it"


def test_reason_of_failed_job_checks_is_reported(client, settings: Path, capsys) -> None:
    client('echo "  File somewhere"; echo "not submitted: there is no topic x" >&2; exit 1')
    assert run(["submit", "--settings", str(settings)]) == 2
    assert "freshet: not done: there is no topic x (" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "reason"),
    [("exit 3", "failed .3.: it said nothing"), ("echo it broke; exit 1", "it broke"), ("echo nothing", "no job")],
)
def test_client_without_submission_is_reported(client, settings: Path, script: str, reason: str) -> None:
    client(script)
    with pytest.raises(SubmitError, match=reason):
        submit(settings, Submission(), lambda line: None)


def test_failed_client_prints_its_reason_last_and_logs_its_stack_trace(client, settings: Path, capsys) -> None:
    client(f"cat <<'END'\nstate is kept in 4 buckets\nnot submitted: no model\n{STACK}END\nexit 1")
    assert run(["submit", "--settings", str(settings)]) == 2
    first, last = capsys.readouterr().err.splitlines()
    assert first == "state is kept in 4 buckets"
    found = re.fullmatch(r"freshet: not done: no model \(all that Flink's client said: (.*)\)", last)
    assert found, last
    log = Path(found.group(1))
    assert STACK in log.read_text() and log.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("flink", ["ftp://x", "http://", "http://x:y", "http://[::1"])
def test_address_that_is_not_of_a_rest_interface_is_refused(client, settings: Path, flink: str, capsys) -> None:
    client("exit 1")
    assert run(["submit", "--settings", str(settings), "--flink", flink]) == 2
    assert "is not an address of Flink's REST interface" in capsys.readouterr().err


def test_upgrade_with_a_failing_check_leaves_the_job_running(
    client, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = client('echo "not submitted: no model"; exit 1')
    stopped: list[str] = []
    monkeypatch.setattr(submission, "running_job", lambda flink, name: JOB)
    monkeypatch.setattr(submission.FlinkRest, "stop_with_savepoint", lambda self, job, folder: stopped.append(job))
    with pytest.raises(SubmitError, match=f"no model.*Job {JOB} was not stopped"):
        submission.upgrade(settings, "personalise", Submission("http://f:1"), None, SAFETY, lambda line: None)
    assert given.read_text().splitlines()[-2:] == ["--check-in-place-of", JOB]
    client("exit 0")
    with pytest.raises(SubmitError, match=f"did not say.*job {JOB} was not stopped"):
        submission.upgrade(settings, "personalise", Submission("http://f:1"), None, SAFETY, lambda line: None)
    assert stopped == []


def test_refused_upgrade_names_savepoint_and_resuming_command(
    client, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = 'case "$*" in *--check-in-place-of*) echo "checked: yes"; exit 0;; esac'
    client(f'{checks}\necho "not submitted: no model"; exit 1')
    monkeypatch.setattr(submission, "running_job", lambda flink, name: JOB)
    monkeypatch.setattr(submission.FlinkRest, "stop_with_savepoint", lambda self, job, folder: "s3://s/savepoint-1")
    with pytest.raises(
        SubmitError, match=r"no model.*`freshet submit .* --flink http://f:1 --savepoint s3://s/savepoint-1`"
    ):
        submission.upgrade(settings, "personalise", Submission("http://f:1"), None, SAFETY, lambda line: None)


class IllError(FreshetError):
    pass


@pytest.fixture
def jobs(client, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A Flink whose jobs all run and complete checkpoints; returns what was cancelled. New jobs have ids 1, 2, ..."""
    client(
        'case "$*" in *--check-in-place-of*) echo "checked: yes"; exit 0;; esac\n'
        'n=$(($(cat $0.n 2>/dev/null || echo 0) + 1)); echo $n > $0.n; printf "%s\\n" "$* $PYTHONSAFEPATH" >> $0.all\n'
        'printf "Job has been submitted with JobID %032d\\n" $n'
    )
    cancelled: list[str] = []
    monkeypatch.setattr(submission, "running_job", lambda flink, name: JOB)
    for name, does in {
        "stop_with_savepoint": lambda self, job, folder: "s3://s/1",
        "wait_running": lambda self, job, timeout_s: None,
        "checkpoint": lambda self, job, timeout_s: 1,
        "jobs": lambda self: {f"{1:032d}": "RUNNING"},
        "cancel": lambda self, job: cancelled.append(job),
    }.items():
        monkeypatch.setattr(submission.FlinkRest, name, does)
    return cancelled


def submissions(tmp_path: Path) -> list[str]:
    return (tmp_path / "home" / "bin" / "flink.all").read_text().splitlines()


def ill() -> None:
    raise IllError("no canary came through")


def test_job_that_is_not_well_is_replaced_by_the_previous_code(settings: Path, tmp_path: Path, jobs: list[str]) -> None:
    previous = tmp_path / "previous.zip"
    previous.write_bytes(b"previous code")
    how, said = Submission("http://f:1"), list[str]()
    done = submission.upgrade(settings, "p", how, None, Safety(1, ill, previous), said.append)
    assert done[:3] == (JOB, "s3://s/1", f"{2:032d}") and done.rolled_back == "no canary came through"
    assert jobs == [f"{1:032d}"], "the new job is cancelled first: two would write"
    new, old = submissions(tmp_path)
    assert "-s s3://s/1" in new and "-s s3://s/1" in old
    assert f"-pyfs {previous} " in old and old.endswith(" 1"), "and imports nothing from this checkout"
    assert any("rolling back to the code of job" in line for line in said)


def test_previous_code_is_the_copy_that_its_submission_kept(settings: Path, tmp_path: Path, jobs: list[str]) -> None:
    how = Submission("http://f:1")
    first = submission.upgrade(settings, "p", how, None, SAFETY, lambda line: None)
    assert first.rolled_back is None and jobs == []
    kept = submission.RELEASES / f"{first.job}.zip"
    assert kept.is_file()
    submission.running_job = lambda flink, name: first.job  # the fixture puts it back
    done = submission.upgrade(settings, "p", how, None, Safety(1, ill), lambda line: None)
    assert done.rolled_back and f"-pyfs {kept} " in submissions(tmp_path)[-1]


def test_only_two_packages_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "RELEASES", tmp_path / "releases")
    package = tmp_path / "freshet.zip"
    package.write_bytes(b"code")
    for number, job in enumerate(["a", "b", "c"]):
        submission._keep(package, job)
        os.utime(submission.RELEASES / f"{job}.zip", (number, number))
    assert sorted(path.stem for path in submission.RELEASES.iterdir()) == ["b", "c"]


def test_without_previous_code_nothing_is_rolled_back_and_the_way_is_named(settings: Path, jobs: list[str]) -> None:
    said: list[str] = []
    with pytest.raises(SubmitError, match=r"no canary.*Nothing was rolled back.*`freshet submit .*s3://s/1`.*previous"):
        submission.upgrade(settings, "p", Submission("http://f:1"), None, Safety(1, ill), said.append)
    assert said[0].startswith(f"there is no copy of the code of job {JOB} here") and jobs == []


def test_missing_previous_package_is_named_before_anything_stops(
    settings: Path, tmp_path: Path, jobs: list[str]
) -> None:
    with pytest.raises(SubmitError, match="there is no package"):
        submission.upgrade(
            settings, "p", Submission("http://f:1"), None, Safety(1, ill, tmp_path / "none.zip"), lambda line: None
        )
    assert not (tmp_path / "home" / "bin" / "flink.all").exists()


@pytest.fixture
def ended_by_signal() -> Iterator[None]:
    """As in a command, SIGTERM raises in this process."""
    before = signal.signal(signal.SIGTERM, _end)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("ended_by_signal")
@pytest.mark.parametrize("at", ["savepoint", "submission"])
def test_upgrade_that_is_ended_says_how_to_resume(
    client, settings: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """SIGTERM after the savepoint left a stopped job, and no word of how to go on."""
    checks = 'case "$*" in *--check-in-place-of*) echo "checked: yes"; exit 0;; esac'
    client(f"{checks}\nkill -TERM {os.getpid()}; sleep 5")
    said: list[str] = []

    def stop(self: object, job: str, folder: str | None) -> str:
        if at == "savepoint":
            os.kill(os.getpid(), signal.SIGTERM)
        return "s3://s/savepoint-1"

    monkeypatch.setattr(submission, "running_job", lambda flink, name: JOB)
    monkeypatch.setattr(submission.FlinkRest, "stop_with_savepoint", stop)
    with pytest.raises(SystemExit):
        submission.upgrade(settings, "personalise", Submission("http://f:1"), None, SAFETY, said.append)
    named = "s3://s/savepoint-1" if at == "submission" else "SAVEPOINT"
    assert re.search(rf"`freshet submit .* --flink http://f:1 --savepoint {named}`", said[-1]), said


def test_flink_client_is_found_on_path_then_in_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLINK_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    packaged = flink_client(os.environ)
    assert packaged.is_file() and packaged.parts[-3:] == ("pyflink", "bin", "flink")
    (tmp_path / "flink").write_text("#!/bin/sh\n")
    (tmp_path / "flink").chmod(0o755)
    assert flink_client(os.environ) == tmp_path / "flink"


def test_examples_are_true() -> None:
    result = doctest.testmod(submission)
    assert result.attempted and not result.failed
