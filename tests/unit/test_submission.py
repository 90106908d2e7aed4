"""How the job is passed to Flink's client, and the message when the client refuses it."""

import doctest
import http.server
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import submission
from deploy.local.errors import SubmitError
from deploy.releases import KEPT, Release, keep, kept
from deploy.submission import Submission, flink_client, releases, submit
from freshet.cli.main import run
from tests.support.flink_client import FakeClient, fake_client

JOB = "0123456789abcdef0123456789abcdef"
STACK = "-----------------------------\n The program finished with the following exception:\n\tat org.A.b(A.java:1)\n"


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    return fake_client(tmp_path, monkeypatch)


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


def test_submission_keeps_its_code_and_settings_and_submits_them_again(client, settings: Path, tmp_path: Path) -> None:
    given = client(f'echo "Job has been submitted with JobID {JOB} safely: $PYTHONSAFEPATH"')
    said: list[str] = []
    submit(settings, Submission(parallelism=3, python="/p", mode="process"), said.append)
    assert said[-1].endswith("safely: 1"), "the client imports the package, and nothing from this folder"
    found = kept(releases(), JOB)
    assert found is not None and found[2:] == (3, "/p", "process")
    assert found.settings.read_text() == settings.read_text()
    assert run(["submit", "--settings", str(settings), "--package", str(found.package)]) == 0
    typed = given.read_text().splitlines()
    assert typed[typed.index("-pyfs") + 1] == str(found.package) and found.package.stat().st_size > 100_000
    with pytest.raises(SubmitError, match="there is no package"):
        submit(settings, Submission(), said.append, tmp_path / "none.zip")


def test_only_the_last_submissions_are_kept(tmp_path: Path, settings: Path) -> None:
    package = tmp_path / "freshet.zip"
    package.write_bytes(b"code")
    for number in range(KEPT + 2):
        keep(tmp_path / "kept", str(number), Release(package, settings))
        os.utime(tmp_path / "kept" / str(number), (number, number))
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {str(number) for number in range(2, KEPT + 2)}


def test_submission_that_cannot_be_kept_counts_and_is_said(client, settings: Path, tmp_path: Path) -> None:
    client(f'echo "Job has been submitted with JobID {JOB}"')
    releases().parent.mkdir(exist_ok=True)
    releases().write_text("a file")
    said: list[str] = []
    assert submit(settings, Submission(), said.append) == JOB
    assert said[-1].startswith(f"no copy of what job {JOB} runs was kept")


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
