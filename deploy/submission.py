"""Submits the job to a Flink cluster as `flink run` does (`freshet submit`)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple, Self
from urllib.parse import SplitResult, urlsplit

import msgspec

from adapters.flink.rest import FlinkRest
from adapters.kafka.reachability import require_reachable_broker
from adapters.kafka.settings import KafkaSettings
from deploy.local.errors import SubmitError
from deploy.local.files import write_atomically
from deploy.local.paths import LOCAL
from deploy.local.stack import LocalStack, is_up
from deploy.package import build
from deploy.releases import FOLDER, Release, keep
from jobs.state_report import REPORTED, StateReport

Say = Callable[[str], None]
LOG: Final = LOCAL / "submit.log"
"""All that Flink's client said when it last failed."""
ANSWER_S: Final = 5.0
_JOB_ID: Final = re.compile(r"Job has been submitted with JobID ([0-9a-f]{32})")
_NOT_SUBMITTED: Final = "not submitted: "
"""The prefix of the last line printed by the job's own checks if they fail (`jobs/personalise.py`)."""
_CHECKED: Final = re.compile(r"^(checked: )")
"""How the line begins that they print if they passed and await a savepoint (`jobs/replacement.py`)."""
_NOTHING: Final = re.compile(r"$^.")
_NO_JOB: Final = "Flink's client reported no job; see the lines above, and the jobs that run in Flink"
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


def require_servers(kafka: KafkaSettings, flink: str | None) -> None:
    """Raise if Flink, given its URL, or Kafka does not answer: Flink's client takes long, and blames something else.

    Raises :class:`SubmitError`, :class:`RestError` or :class:`KafkaUnreachable`, with the address.
    """
    if flink is not None:
        _authority(flink)
        FlinkRest(_with_scheme(flink), ANSWER_S).get("/overview")
    require_reachable_broker(kafka)


def submit(settings: Path, how: Submission, say: Say, package: Path | None = None) -> str:
    """Submit the current code, or `package`, and keep a copy; returns the job's id. Raises :class:`SubmitError`."""
    with packed(package) as code:
        job = submit_package(settings, code, how, say)
        try:
            keep(releases(), job, Release(code, settings, how.parallelism, how.python, how.mode))
        except OSError as error:
            say(f"no copy of what job {job} runs was kept: an upgrade cannot be rolled back to it ({error})")
        return job


def releases() -> Path:
    """Where submissions from this machine keep what they submitted (:mod:`deploy.releases`)."""
    return LOCAL / FOLDER


def report_on_state(settings: Path, how: Submission, say: Say) -> StateReport:
    """Whether the current code may start from `how.savepoint`; starts and stops nothing. Raises :class:`SubmitError`.

    Flink's client examines it, with the state backend and the execution mode of the configuration that it submits with.
    """
    with packed() as package:
        said = _run_client([*run_arguments(settings, package, how), "--report-snapshot"], how, say)
    reports = [line.removeprefix(REPORTED) for line in said if line.startswith(REPORTED)]
    if len(reports) != 1:
        raise SubmitError("Flink's client did not say what it found in the snapshot")
    return msgspec.json.decode(reports[0], type=StateReport)


@contextmanager
def packed(package: Path | None = None) -> Iterator[Path]:
    """A package of the current code, which is deleted afterwards; or `package`, which is kept."""
    if package is not None:
        if not package.is_file():
            raise SubmitError(f"there is no package {package}: name a zip that `freshet submit` has kept or made")
        yield package.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="freshet-submit-") as folder:
        yield build(Path(folder) / "freshet.zip")


def submit_package(settings: Path, package: Path, how: Submission, say: Say) -> str:
    """Submit the code in `package`; returns the job's id. Raises :class:`SubmitError`."""
    said = _run_client(run_arguments(settings, package, how), how, say)
    if found := next(filter(None, map(_JOB_ID.search, said)), None):
        return found.group(1)
    raise SubmitError(_NO_JOB)


@contextmanager
def prepared(settings: Path, package: Path, how: Submission, before: str, say: Say) -> Iterator[Callable[[str], str]]:
    """Flink's client, which has made all checks and built the job while the job `before` runs.

    What this yields submits the job from a savepoint, and returns its id. Raises :class:`SubmitError` if the submission
    would be rejected once `before` is stopped, and what is yielded raises it if it is. If it is not called, nothing is
    submitted.
    """
    with tempfile.TemporaryDirectory(prefix="freshet-client-") as folder:
        pipe = Path(folder) / "savepoint"
        os.mkfifo(pipe, 0o600)
        arguments = [*run_arguments(settings, package, how), "--in-place-of", before, "--savepoint-from", str(pipe)]
        # Closed before the client is awaited, which then ends if it has no savepoint yet.
        with pipe.open("r+b", buffering=0) as orders, FlinkClient(arguments, folder, how, say, orders.close) as client:
            try:
                if client.read_to(_CHECKED) is None:
                    client.expect_success()
                    raise SubmitError("Flink's client did not say that it has checked")
            except SubmitError as error:
                raise SubmitError(f"{error}. Job {before} was not stopped, and runs on") from None

            def start(savepoint: str) -> str:
                orders.write(f"{savepoint}\n".encode())
                if (job := client.read_to(_JOB_ID)) is not None:
                    return job
                client.expect_success()
                raise SubmitError(_NO_JOB)

            yield start


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


def _run_client(arguments: Sequence[str], how: Submission, say: Say) -> list[str]:
    """Run Flink's client; returns its output lines. Raises :class:`SubmitError` with the reason if it fails."""
    with (
        tempfile.TemporaryDirectory(prefix="freshet-client-") as folder,
        FlinkClient(arguments, folder, how, say) as client,
    ):
        client.expect_success()
        return client.said


class FlinkClient:
    """A process of Flink's client; it leaves temporary files in `folder`.

    A context manager, which calls `end` and awaits the end of the process.

    Lines before a failure are passed to `say`; the full output is then in a log, whose path is in the error.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        folder: str,
        how: Submission,
        say: Say,
        end: Callable[[], None] = lambda: None,
    ) -> None:
        # What is submitted is the package, and not what lies in the folder that this command was called in.
        environment = client_environment(how.flink) | {"PYTHONSAFEPATH": "1"}
        if not re.search(r"\s", folder):  # Flink's script splits the variable at spaces
            environment["JVM_ARGS"] = f"{environment.get('JVM_ARGS', '')} -Djava.io.tmpdir={folder}".strip()
        self.said: list[str] = []
        self._say, self._end, self._is_failing = say, end, False
        self._process = subprocess.Popen(
            [str(flink_client(environment)), *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._end()
        with self._process:
            for _ in self._process.stdout or ():  # it must not wait for its reader
                pass

    def read_to(self, wanted: re.Pattern[str]) -> str | None:
        """What the first group of `wanted` matches, once a line does; None if the output ends before."""
        for line in map(str.rstrip, self._process.stdout or ()):
            self.said.append(line)
            self._is_failing = self._is_failing or line.startswith(_FAILURE)
            if not self._is_failing and not line.startswith(REPORTED):
                self._say(line)
            if found := wanted.search(line):
                return found.group(1)
        return None

    def expect_success(self) -> None:
        """Read to the end; raises :class:`SubmitError` with the reason if the client fails."""
        self.read_to(_NOTHING)
        if code := self._process.wait():
            raise SubmitError(f"{_reason_in(self.said, code)} (all that Flink's client said: {_logged(self.said)})")


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
