"""`freshet upgrade` on a fake of Flink: what it does when a step fails, and what it says when it is ended."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka.errors import KafkaTimeoutError

from deploy import upgrade as upgrading
from deploy.local.errors import SubmitError
from deploy.releases import kept
from deploy.submission import Submission, releases
from deploy.upgrade import Safety, UpgradeResult, upgrade
from freshet.cli.main import _end
from schemas.errors import FreshetError, NotReadyError, RestError
from tests.support.flink_client import FakeClient, fake_client

JOB = "0123456789abcdef0123456789abcdef"
NEW, OLD = f"{1:032d}", f"{2:032d}"
"""The ids of what is submitted first and second."""
HOW = Submission("http://f:1", parallelism=4)
WAITS = """case "$*" in *--savepoint-from*)
  exec 3< "${@: -1}"; echo "checked: yes"; read savepoint <&3 || exit 1;;
esac
"""
"""What a client does that prepares a submission: it waits for the savepoint."""


class IllError(FreshetError):
    pass


class FakeFlink:
    """A Flink whose jobs all run and complete checkpoints; its client submits jobs 1, 2, ..."""

    def __init__(self, home: Path, client: FakeClient) -> None:
        self._home, self.client = home, client
        self.running = {JOB: "RUNNING"}
        self.cancelled: list[str] = []
        self.failures = ""
        self.accepts()

    def accepts(self, first: str = "", second: str = "") -> None:
        """The client submits; `first` and `second` are shell commands before it says so."""
        self.client(
            f"{WAITS}\nn=$(($(cat $0.n 2>/dev/null || echo 0) + 1)); echo $n > $0.n\n"
            'printf "%s %s\\n" "$savepoint" "$*" >> $0.all\n'
            f"[ $n = 1 ] && {{ {first or ':'}; }}; [ $n = 2 ] && {{ {second or ':'}; }}\n"
            'printf "Job has been submitted with JobID %032d\\n" $n'
        )

    def submissions(self) -> list[str]:
        """The arguments of each submission."""
        log = self._home / "bin" / "flink.all"
        return log.read_text().splitlines() if log.exists() else []

    def overview(self) -> list[dict[str, Any]]:
        found = [JOB, NEW, OLD][: 1 + len(self.submissions())]
        states = {job: "CANCELED" if job in self.cancelled else "RUNNING" for job in found} | {JOB: "FINISHED"}
        return [{"jid": job, "name": "p", "state": state} for job, state in states.items()]


@pytest.fixture
def flink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeFlink:
    fake = FakeFlink(tmp_path / "home", fake_client(tmp_path, monkeypatch))
    monkeypatch.setattr(upgrading, "running_job", lambda flink, name: JOB)
    for name, does in {
        "get": lambda self, path: {"vertices": [{"parallelism": 1}, {"parallelism": 2}]},
        "stop_with_savepoint": lambda self, job, folder: "s3://s/1",
        "wait_running": lambda self, job, timeout_s: None,
        "checkpoint": lambda self, job, timeout_s: 1,
        "clock_ms": lambda self, job: 7,
        "failures_since": lambda self, job, since_ms: fake.failures if since_ms == 7 else "",
        "overview": lambda self: fake.overview(),
        "cancel": lambda self, job: fake.cancelled.append(job),
    }.items():
        monkeypatch.setattr(upgrading.FlinkRest, name, does)
    return fake


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "freshet.toml"
    path.write_text("# new")
    return path


@pytest.fixture
def previous(tmp_path: Path) -> Path:
    path = tmp_path / "previous.zip"
    path.write_bytes(b"previous code")
    return path


def well() -> None:
    pass


def ill() -> None:
    raise IllError("no canary came through")


def upgraded(
    settings: Path, prove: Callable[[], None] = well, previous: Path | None = None, said: list[str] | None = None
) -> UpgradeResult:
    return upgrade(settings, "p", HOW, None, Safety(1, prove, previous), ([] if said is None else said).append)


def test_failing_check_leaves_the_job_running(flink: FakeFlink, settings: Path, monkeypatch: pytest.MonkeyPatch):
    stopped: list[str] = []
    monkeypatch.setattr(upgrading.FlinkRest, "stop_with_savepoint", lambda self, job, folder: stopped.append(job))
    given = flink.client('echo "not submitted: no model"; exit 1')
    with pytest.raises(SubmitError, match=f"no model.*Job {JOB} was not stopped"):
        upgraded(settings)
    assert given.read_text().splitlines()[-4:-1] == ["--in-place-of", JOB, "--savepoint-from"]
    flink.client("exit 0")
    with pytest.raises(SubmitError, match=f"did not say.*Job {JOB} was not stopped"):
        upgraded(settings)
    assert stopped == []


def test_missing_previous_package_is_named_before_anything_stops(flink: FakeFlink, settings: Path, tmp_path: Path):
    with pytest.raises(SubmitError, match="there is no package"):
        upgraded(settings, previous=tmp_path / "none.zip")
    assert flink.submissions() == []


def test_job_that_is_not_well_is_replaced_by_the_previous_code(flink: FakeFlink, settings: Path, previous: Path):
    said: list[str] = []
    done = upgraded(settings, ill, previous, said)
    assert done[:3] == (JOB, "s3://s/1", OLD) and done.rolled_back == "no canary came through"
    assert flink.cancelled == [NEW], "the new job is cancelled first: two would write"
    new, old = flink.submissions()
    assert new.startswith("s3://s/1 run ") and " -p 4 " in new
    assert f"-s s3://s/1 -p 2 -pyfs {previous} " in old, "with the parallelism that ran, for which there is room"
    assert any("rolling back to the code of job" in line for line in said)


def test_roll_back_uses_the_code_and_the_settings_that_were_kept(flink: FakeFlink, settings: Path, monkeypatch):
    first = upgraded(settings)
    assert first.rolled_back is None and flink.cancelled == []
    monkeypatch.setattr(upgrading, "running_job", lambda flink, name: first.job)
    settings.write_text("# newer, with a setting that the previous code does not know")
    done = upgraded(settings, ill)
    found = kept(releases(), first.job)
    assert found is not None and found.settings.read_text() == "# new"
    assert done.rolled_back and f"-p 2 -pyfs {found.package} " in flink.submissions()[-1]
    assert f"--settings {found.settings}" in flink.submissions()[-1]
    again = kept(releases(), done.job)
    assert again is not None and again.settings.read_text() == "# new", "a job that was rolled back to is kept, too"


@pytest.mark.parametrize(
    "error", [NotReadyError("waited 1 s"), RestError("away"), KafkaTimeoutError(), OSError("disk")]
)
def test_whatever_goes_wrong_after_the_stop_is_rolled_back(
    flink: FakeFlink, settings: Path, previous: Path, error: Exception
):
    def prove() -> None:
        raise error

    assert upgraded(settings, prove, previous).job == OLD


def test_job_that_restarts_while_it_is_verified_is_not_well(flink: FakeFlink, settings: Path, previous: Path):
    flink.failures = "ValueError: on the first element"
    done = upgraded(settings, well, previous)
    assert done.rolled_back == f"job {NEW} fails and restarts:\nValueError: on the first element"


def test_job_that_the_client_did_not_report_is_cancelled_too(flink: FakeFlink, settings: Path, previous: Path):
    """The client may lose its connection after Flink has accepted the job."""
    flink.accepts(first="echo the connection was lost; exit 1")
    done = upgraded(settings, well, previous)
    assert done.rolled_back and "the connection was lost" in done.rolled_back
    assert flink.cancelled == [NEW] and done.job == OLD


def test_roll_back_that_fails_names_both_reasons_and_the_command(flink: FakeFlink, settings: Path, previous: Path):
    flink.accepts(second='echo "not submitted: Redis is away"; exit 1')
    with pytest.raises(SubmitError) as raised:
        upgraded(settings, ill, previous)
    told = str(raised.value)
    assert told.startswith("no canary came through. The previous code does not run, either: Redis is away")
    command = f"freshet submit --settings {settings} --flink http://f:1 --savepoint s3://s/1 --parallelism 2"
    assert told.endswith(f"`{command} --package {previous}`")


def test_without_previous_code_nothing_is_rolled_back_and_the_way_is_named(flink: FakeFlink, settings: Path):
    said: list[str] = []
    with pytest.raises(
        SubmitError, match=r"no canary.*Nothing was rolled back.*`freshet submit .*s3://s/1 .*` in a checkout"
    ):
        upgraded(settings, ill, None, said)
    assert said[0].startswith(f"there is no copy of the code of job {JOB} here") and flink.cancelled == []


def test_stop_that_fails_starts_nothing_and_says_how_to_go_on(
    flink: FakeFlink, settings: Path, previous: Path, monkeypatch: pytest.MonkeyPatch
):
    def stop(self: object, job: str, folder: str | None) -> str:
        raise RestError("the savepoint failed")

    monkeypatch.setattr(upgrading.FlinkRest, "stop_with_savepoint", stop)
    with pytest.raises(SubmitError, match=rf"the savepoint failed.*{JOB} was not replaced.*SAVEPOINT .*{previous}"):
        upgraded(settings, well, previous)
    assert flink.submissions() == []


@pytest.fixture
def ended_by_signal() -> Iterator[None]:
    """As in a command, SIGTERM raises in this process."""
    before = signal.signal(signal.SIGTERM, _end)
    yield
    signal.signal(signal.SIGTERM, before)


def end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.usefixtures("ended_by_signal")
@pytest.mark.parametrize("at", ["savepoint", "submission", "verification", "roll-back"])
def test_upgrade_that_is_ended_says_how_to_go_on(
    flink: FakeFlink, settings: Path, previous: Path, monkeypatch: pytest.MonkeyPatch, at: str
):
    """SIGTERM after the savepoint left a stopped job, and no word of how to go on."""
    said: list[str] = []
    kill = f"kill -TERM {os.getpid()}; sleep 0.2"
    flink.accepts(kill if at == "submission" else "", kill if at == "roll-back" else "")
    if at == "savepoint":
        monkeypatch.setattr(upgrading.FlinkRest, "stop_with_savepoint", lambda self, job, folder: end())
    with pytest.raises(SystemExit):
        upgraded(settings, {"verification": end, "roll-back": ill}.get(at, well), previous, said)
    savepoint = "SAVEPOINT" if at == "savepoint" else "s3://s/1"
    package = "" if at == "submission" else f" --parallelism 2 --package {re.escape(str(previous))}"
    if at == "submission":
        package = " --parallelism 4"
    assert re.search(rf"`freshet submit .* --flink http://f:1 --savepoint {savepoint}{package}`", said[-1]), said
