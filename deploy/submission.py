"""Submits the job to a Flink cluster as `flink run` does, and upgrades a running job (`freshet submit`)."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

import msgspec

from adapters.flink.rest import FINAL, FlinkRest
from adapters.kafka.reachability import require_reachable_broker
from adapters.kafka.settings import KafkaSettings
from deploy.local.errors import SubmitError
from deploy.local.files import write_atomically
from deploy.local.paths import LOCAL
from deploy.local.stack import LocalStack, is_up
from deploy.package import build
from jobs.savepoints import running_job
from jobs.state_report import REPORTED, StateReport
from schemas.errors import FreshetError

Say = Callable[[str], None]
RELEASES: Final = LOCAL / "releases"
"""Copies of the packages that were submitted last, by the ids of their jobs: what an upgrade is rolled back to."""
LOG: Final = LOCAL / "submit.log"
"""All that Flink's client said when it last failed."""
ANSWER_S: Final = 5.0
_JOB_ID: Final = re.compile(r"Job has been submitted with JobID ([0-9a-f]{32})")
_NOT_SUBMITTED: Final = "not submitted: "
"""The prefix of the last line printed by the job's own checks if they fail (`jobs/personalise.py`)."""
_CHECKED: Final = "checked: "
"""The prefix of what they print if they were only to check, and passed."""
_FAILURE: Final = (_NOT_SUBMITTED, "Traceback (most recent call last)", "-" * 20, "java.lang.", "org.apache.flink.")
"""Prefixes of lines that belong only into the log: after one of them, a failing client prints stack traces."""
_CAUSE: Final = "Caused by: "
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


class Submission(NamedTuple):
    """How the job is submitted. `flink` is the URL of the REST interface, `python` the interpreter of the workers.

    The job takes over from the running job `beside`, if that is given. `mode` is its execution mode, by default that of
    Flink's settings.
    """

    flink: str | None = None
    savepoint: str | None = None
    parallelism: int | None = None
    python: str | None = None
    new_deployment: bool = False
    beside: str | None = None
    mode: str | None = None


class Safety(NamedTuple):
    """How an upgrade is verified, and from what it is rolled back.

    `prove` raises :class:`FreshetError` unless a canary passes through the new job. `previous` is the package of the
    running job; None means the copy that its submission kept on this machine.
    """

    timeout_s: float
    prove: Callable[[], None]
    previous: Path | None = None


class UpgradeResult(NamedTuple):
    """The previous job, the savepoint with which it was stopped, and the job that continues from it.

    `stopped_s` is the time from the order to stop until all tasks of the new job ran. If the new code was not well,
    `rolled_back` says why, and `job` runs the previous code.
    """

    before: str
    savepoint: str
    job: str
    stopped_s: float
    rolled_back: str | None = None


_ENDED: Final = (KeyboardInterrupt, SystemExit)
"""What Ctrl-C and SIGTERM raise in a command."""


def require_servers(kafka: KafkaSettings, flink: str | None) -> None:
    """Raise if Flink, given its URL, or Kafka does not answer: Flink's client takes long, and blames something else.

    Raises :class:`SubmitError`, :class:`RestError` or :class:`KafkaUnreachable`, with the address.
    """
    if flink is not None:
        _authority(flink)
        FlinkRest(_with_scheme(flink), ANSWER_S).get("/overview")
    require_reachable_broker(kafka)


def submit(settings: Path, how: Submission, say: Say) -> str:
    """Package the current code and submit it; returns the job's id. Raises :class:`SubmitError`."""
    with _package() as package:
        job = _submit(settings, package, how, say)
        _keep(package, job)
        return job


def report_on_state(settings: Path, how: Submission, say: Say) -> StateReport:
    """Whether the current code may start from `how.savepoint`; starts and stops nothing. Raises :class:`SubmitError`.

    Flink's client examines it, with the state backend and the execution mode of the configuration that it submits with.
    """
    with _package() as package:
        arguments = [*run_arguments(settings, package, how), "--report-snapshot"]
        said = _run_client(arguments, package.parent, how, say)
    reports = [line.removeprefix(REPORTED) for line in said if line.startswith(REPORTED)]
    if len(reports) != 1:
        raise SubmitError("Flink's client did not say what it found in the snapshot")
    return msgspec.json.decode(reports[0], type=StateReport)


def upgrade(
    settings: Path, job_name: str, how: Submission, savepoints: str | None, safety: Safety, say: Say
) -> UpgradeResult:
    """Check the submission, stop the running job `job_name` with a savepoint, submit from it, and verify the new job.

    If the new job is rejected or not well, the previous code continues from the same savepoint. Raises
    :class:`SubmitError` if the new job is rejected before the running job is stopped; or if nothing could be rolled
    back, with the name of the savepoint.
    """
    with _package() as package:
        flink = how.flink or ""
        before = running_job(flink, job_name)
        previous = _previous(before, safety.previous, say)
        say(f"checking the submission while job {before} runs")
        _check(settings, package, how, before, say)
        stopping_s = time.monotonic()
        from_savepoint = how._replace(savepoint=_stop(settings, before, how, savepoints, say))
        job: str | None = None
        try:
            job = _resume(settings, package, from_savepoint, say)
            FlinkRest(flink).wait_running(job, safety.timeout_s)
            stopped_s = time.monotonic() - stopping_s
            _verify(flink, job, safety, say)
            _keep(package, job)
            return UpgradeResult(before, from_savepoint.savepoint or "", job, stopped_s)
        except FreshetError as error:
            if previous is None:
                raise SubmitError(f"{error}. Nothing was rolled back: {_by_hand(settings, from_savepoint)}") from None
            say(f"not well: {error}")
            return _roll_back(settings, previous, before, job, from_savepoint, str(error), stopping_s, safety, say)


def _stop(settings: Path, before: str, how: Submission, savepoints: str | None, say: Say) -> str:
    say(f"stopping job {before} with a savepoint")
    try:
        savepoint = FlinkRest(how.flink or "").stop_with_savepoint(before, savepoints)
    except _ENDED:
        say(
            f"ended while Flink takes a savepoint of job {before}: if the job stops, run "
            f"`{shlex.join(_resuming(settings, how))} SAVEPOINT` with the savepoint that Flink names"
        )
        raise
    say(f"stopped; its state is in {savepoint}")
    return savepoint


def _resuming(settings: Path, how: Submission) -> list[str]:
    return ["freshet", "submit", "--settings", str(settings), "--flink", how.flink or "", "--savepoint"]


def _resume(settings: Path, package: Path, how: Submission, say: Say, is_previous: bool = False) -> str:
    resume = shlex.join([*_resuming(settings, how), how.savepoint or ""])
    try:
        return _submit(settings, package, how, say, is_previous)
    except SubmitError as error:
        raise SubmitError(f"{error}. The job is stopped, and nothing is lost: fix that, then run `{resume}`") from None
    except _ENDED:
        say(
            "ended while the job is stopped, and nothing is lost: unless Flink runs the new job already, run "
            f"`{resume}`"
        )
        raise


def _verify(flink: str, job: str, safety: Safety, say: Say) -> None:
    """Raise :class:`FreshetError` unless the job, all of which runs, completes a checkpoint and passes a canary."""
    FlinkRest(flink).checkpoint(job, safety.timeout_s)
    safety.prove()
    say(f"job {job} runs, has completed a checkpoint, and has processed a canary")


def _roll_back(
    settings: Path,
    previous: Path,
    before: str,
    failed: str | None,
    how: Submission,
    why: str,
    stopping_s: float,
    safety: Safety,
    say: Say,
) -> UpgradeResult:
    """Let the previous package continue from the savepoint `how.savepoint`."""
    rest = FlinkRest(how.flink or "")
    say(f"rolling back to the code of job {before}, from {how.savepoint}")
    if failed is not None and rest.jobs().get(failed) not in FINAL:
        rest.cancel(failed)
    job = _resume(settings, previous, how, say, is_previous=True)
    rest.wait_running(job, safety.timeout_s)
    _keep(previous, job)
    return UpgradeResult(before, how.savepoint or "", job, time.monotonic() - stopping_s, why)


def _by_hand(settings: Path, how: Submission) -> str:
    resume = shlex.join([*_resuming(settings, how), how.savepoint or ""])
    return f"cancel the job if it runs, and run `{resume}` in a checkout of the previous release"


def _previous(before: str, given: Path | None, say: Say) -> Path | None:
    """The package of the job `before`. Raises :class:`SubmitError` if the given one does not exist."""
    if given is not None:
        if not given.is_file():
            raise SubmitError(f"there is no package {given}: --previous names the package of the code that runs now")
        return given.absolute()
    kept = RELEASES / f"{before}.zip"
    if kept.is_file():
        return kept
    say(f"there is no copy of the code of job {before} here: without --previous, nothing is rolled back")
    return None


def _keep(package: Path, job: str) -> None:
    """Keep a copy of the package that `job` runs, and of the one before it."""
    RELEASES.mkdir(parents=True, exist_ok=True)
    kept = RELEASES / f"{job}.zip"
    kept.write_bytes(package.read_bytes())
    others = sorted((path for path in RELEASES.glob("*.zip") if path != kept), key=lambda path: path.stat().st_mtime)
    for path in others[:-1]:
        path.unlink()


@contextmanager
def _package() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="freshet-submit-") as folder:
        yield build(Path(folder) / "freshet.zip")


def _submit(settings: Path, package: Path, how: Submission, say: Say, is_previous: bool = False) -> str:
    with tempfile.TemporaryDirectory(prefix="freshet-client-") as folder:
        said = _run_client(run_arguments(settings, package, how), Path(folder), how, say, is_previous)
    if found := next(filter(None, map(_JOB_ID.search, said)), None):
        return found.group(1)
    raise SubmitError("Flink's client reported no job; see the lines above, and the jobs that run in Flink")


def _check(settings: Path, package: Path, how: Submission, before: str, say: Say) -> None:
    """Raise :class:`SubmitError` if the submission would be rejected once the job `before` is stopped."""
    arguments = [*run_arguments(settings, package, how), "--check-in-place-of", before]
    try:
        said = _run_client(arguments, package.parent, how, say)
    except SubmitError as error:
        raise SubmitError(f"{error}. Job {before} was not stopped, and runs on") from None
    if not any(line.startswith(_CHECKED) for line in said):
        raise SubmitError(f"Flink's client did not say that it has checked; job {before} was not stopped, and runs on")


def run_arguments(settings: Path, package: Path, how: Submission) -> list[str]:
    """The arguments of `flink` that submit the job.

    >>> how = Submission("http://localhost:8081", "s3://s/1", 2, "/env/bin/python")
    >>> " ".join(run_arguments(Path("/f.toml"), Path("f.zip"), how))  # doctest: +ELLIPSIS
    'run -d -m localhost:8081 -s s3://s/1 -p 2 -pyfs f.zip -pyexec /env/bin/python -pyclientexec ... --settings /f.toml'
    """
    words = ["run", "-d"]
    if how.flink is not None:
        words += ["-m", _authority(how.flink)]
    if how.mode is not None:
        words.append(f"-Dpython.execution-mode={how.mode}")
    if how.savepoint is not None:
        words += ["-s", how.savepoint]
    if how.parallelism is not None:
        words += ["-p", str(how.parallelism)]
    words += ["-pyfs", str(package), "-pyexec", how.python or sys.executable, "-pyclientexec", sys.executable]
    words += ["-pym", "jobs.personalise", "--settings", str(settings.absolute())]
    if how.beside is not None:
        words += ["--beside", how.beside]
    return [*words, "--new-deployment"] if how.new_deployment else words


def _authority(flink: str) -> str:
    """
    >>> _authority("http://localhost:8081/"), _authority("flink:8081")
    ('localhost:8081', 'flink:8081')
    """
    host, _ = _host_and_port(flink)
    if host is None:
        raise SubmitError(f"{flink!r} is not an address of Flink's REST interface: give --flink http://host:port")
    return _parts(flink).netloc


def flink_client(environment: Mapping[str, str]) -> Path:
    """Flink's own client: from FLINK_HOME, PATH or the pip package. Raises :class:`SubmitError` if there is none."""
    home, package = environment.get("FLINK_HOME"), find_spec("pyflink")
    on_path = shutil.which("flink", path=environment.get("PATH"))
    if home:
        return Path(home) / "bin" / "flink"
    if on_path is not None:
        return Path(on_path)
    if package is not None and package.origin is not None:
        return Path(package.origin).parent / "bin" / "flink"
    raise SubmitError("Flink's client was not found: set FLINK_HOME, or put `flink` on PATH")


def client_environment(flink: str | None) -> dict[str, str]:
    """The environment of Flink's client: for a stack of `freshet up` or `freshet demo`, its settings and libraries.

    Its libraries include the Kafka connector and its dependencies, which the pip package lacks.
    """
    # Thread mode looks for pemja with the `python` that is first on PATH, whatever python.executable says.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    environment = {**os.environ, "PATH": path}
    for directory in (LOCAL, LOCAL / "demo", LOCAL / "bench"):
        if flink is not None and is_up(directory):
            cluster = LocalStack.attach(directory).flink
            if _host_and_port(cluster.url) == _host_and_port(flink):
                return environment | cluster.environment()
    return environment


def _host_and_port(url: str) -> tuple[str | None, int | None]:
    try:
        parts = _parts(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None, None
    if parts.scheme not in ("http", "https"):
        return None, None
    return "127.0.0.1" if host in _LOOPBACK else host, port


def _parts(url: str) -> SplitResult:
    return urlsplit(_with_scheme(url))


def _with_scheme(url: str) -> str:
    return url if "://" in url else f"http://{url}"


def _run_client(
    arguments: Sequence[str], folder: Path, how: Submission, say: Say, is_previous: bool = False
) -> list[str]:
    """Run Flink's client; returns its output lines. Raises :class:`SubmitError` with the reason if it fails.

    Lines before a failure are passed to `say`; the full output is then in a log, whose path is in the error. The client
    leaves temporary files in `folder`. For the package of previous code, it imports nothing from this folder.
    """
    environment = client_environment(how.flink)
    if is_previous:
        environment["PYTHONSAFEPATH"] = "1"
    if not re.search(r"\s", str(folder)):  # Flink's script splits the variable at spaces
        environment["JVM_ARGS"] = f"{environment.get('JVM_ARGS', '')} -Djava.io.tmpdir={folder}".strip()
    command = [str(flink_client(environment)), *arguments]
    said: list[str] = []
    is_failing = False
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
    ) as client:
        for line in map(str.rstrip, client.stdout or ()):
            said.append(line)
            is_failing = is_failing or line.startswith(_FAILURE)
            if not is_failing and not line.startswith(REPORTED):
                say(line)
    if client.returncode != 0:
        raise SubmitError(f"{_reason_in(said, client.returncode)} (all that Flink's client said: {_logged(said)})")
    return said


def _reason_in(said: Sequence[str], code: int) -> str:
    """The job's own reason, or the innermost cause printed by Flink's client.

    >>> _reason_in(["not submitted: no topic", "java.lang.RuntimeException"], 1)
    'no topic'
    >>> _reason_in(["java.lang.RuntimeException", "Caused by: java.net.ConnectException: refused"], 1)
    'flink run failed (1): java.net.ConnectException: refused'
    >>> _reason_in(["what?"], 3)
    'flink run failed (3): what?'
    """
    for line in said:
        if line.startswith(_NOT_SUBMITTED):
            return line.removeprefix(_NOT_SUBMITTED)
    causes = [line.removeprefix(_CAUSE) for line in said if line.startswith(_CAUSE)]
    last = (causes or [line.strip() for line in said if line.strip()] or ["it said nothing"])[-1]
    return f"flink run failed ({code}): {last}"


def _logged(lines: Sequence[str]) -> Path:
    """Write `lines` to :data:`LOG`, readable only by this user, in place of the last log; returns its path."""
    write_atomically(LOG, "".join(f"{line}\n" for line in lines), 0o600)
    return LOG
