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
from typing import Final, NamedTuple
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
    raise SubmitError("Flink's client reported no job; see the lines above, and the jobs that run in Flink")


def check(settings: Path, package: Path, how: Submission, before: str, say: Say) -> None:
    """Raise :class:`SubmitError` if the submission would be rejected once the job `before` is stopped."""
    arguments = [*run_arguments(settings, package, how), "--check-in-place-of", before]
    try:
        said = _run_client(arguments, how, say)
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


def _run_client(arguments: Sequence[str], how: Submission, say: Say) -> list[str]:
    """Run Flink's client; returns its output lines. Raises :class:`SubmitError` with the reason if it fails.

    Lines before a failure are passed to `say`; the full output is then in a log, whose path is in the error. The client
    leaves temporary files behind, which are deleted.
    """
    with tempfile.TemporaryDirectory(prefix="freshet-client-") as folder:
        return _run_client_in(folder, arguments, how, say)


def _run_client_in(folder: str, arguments: Sequence[str], how: Submission, say: Say) -> list[str]:
    # What is submitted is the package, and not what lies in the folder that this command was called in.
    environment = client_environment(how.flink) | {"PYTHONSAFEPATH": "1"}
    if not re.search(r"\s", folder):  # Flink's script splits the variable at spaces
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
