"""Gives the job to a Flink cluster as `flink run` does, and takes it over from the one that runs (`freshet submit`)."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from adapters.flink.rest import FlinkRest
from deploy.local.errors import SubmitError
from deploy.package import build
from jobs.savepoints import running_job

Say = Callable[[str], None]
_JOB_ID: Final = re.compile(r"Job has been submitted with JobID ([0-9a-f]{32})")
_NOT_SUBMITTED: Final = "not submitted: "
"""What the job's own checks begin their last line with (`jobs/personalise.py`)."""


class Submission(NamedTuple):
    """How the job is submitted. `flink` is the URL of the REST interface, `python` the interpreter of the workers."""

    flink: str | None = None
    savepoint: str | None = None
    parallelism: int | None = None
    python: str | None = None
    new_deployment: bool = False


class Upgraded(NamedTuple):
    """The job before, the savepoint that it was stopped with, and the job that continues from it."""

    before: str
    savepoint: str
    job: str


def submit(settings: Path, how: Submission, say: Say) -> str:
    """Pack the code that is here and submit it; returns the job's id. Raises :class:`SubmitError`."""
    with tempfile.TemporaryDirectory(prefix="freshet-submit-") as folder:
        package = build(Path(folder) / "freshet.zip")
        return _id_in(_lines_of([str(flink_client()), *run_arguments(settings, package, how)]), say)


def upgrade(settings: Path, job_name: str, how: Submission, savepoints: str | None, say: Say) -> Upgraded:
    """Stop the running job called `job_name` with a savepoint and submit from it.

    Raises :class:`SubmitError` that names the savepoint where the new job is refused.
    """
    flink = how.flink or ""
    before = running_job(flink, job_name)
    say(f"stopping job {before} with a savepoint")
    savepoint = FlinkRest(flink).stop_with_savepoint(before, savepoints)
    say(f"stopped; its state is in {savepoint}")
    try:
        job = submit(settings, how._replace(savepoint=savepoint), say)
    except SubmitError as error:
        command = ["freshet", "submit", "--settings", str(settings), "--flink", flink, "--savepoint", savepoint]
        raise SubmitError(
            f"{error}. The job is stopped, and nothing is lost: fix that, then run `{shlex.join(command)}`"
        ) from None
    return Upgraded(before, savepoint, job)


def run_arguments(settings: Path, package: Path, how: Submission) -> list[str]:
    """The words behind `flink` that submit the job.

    >>> how = Submission("http://localhost:8081", "s3://s/1", 2, "/env/bin/python")
    >>> " ".join(run_arguments(Path("/f.toml"), Path("f.zip"), how))  # doctest: +ELLIPSIS
    'run -d -m localhost:8081 -s s3://s/1 -p 2 -pyfs f.zip -pyexec /env/bin/python -pyclientexec ... --settings /f.toml'
    """
    words = ["run", "-d"]
    if how.flink is not None:
        words += ["-m", urlsplit(how.flink).netloc or how.flink]
    if how.savepoint is not None:
        words += ["-s", how.savepoint]
    if how.parallelism is not None:
        words += ["-p", str(how.parallelism)]
    words += ["-pyfs", str(package), "-pyexec", how.python or sys.executable, "-pyclientexec", sys.executable]
    words += ["-pym", "jobs.personalise", "--settings", str(settings.absolute())]
    return [*words, "--new-deployment"] if how.new_deployment else words


def flink_client() -> Path:
    """Flink's own client: of FLINK_HOME, on PATH, or of the pip package. Raises :class:`SubmitError` without one."""
    home, on_path, package = os.environ.get("FLINK_HOME"), shutil.which("flink"), find_spec("pyflink")
    if home:
        return Path(home) / "bin" / "flink"
    if on_path is not None:
        return Path(on_path)
    if package is not None and package.origin is not None:
        return Path(package.origin).parent / "bin" / "flink"
    raise SubmitError("Flink's client was not found: set FLINK_HOME, or put `flink` on PATH")


def _lines_of(command: list[str]) -> Iterator[str]:
    """What `command` prints, a line each; raises :class:`SubmitError` at its end if it failed."""
    # Thread mode looks for pemja with the `python` that is first on PATH, whatever python.executable says.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    environment = {**os.environ, "PATH": path}
    why = ""
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
    ) as client:
        for line in client.stdout or ():
            if line.startswith(_NOT_SUBMITTED):
                why = line.removeprefix(_NOT_SUBMITTED).rstrip()
            yield line.rstrip("\n")
    if client.returncode != 0:
        raise SubmitError(why or f"`{command[0]} run` failed ({client.returncode}); the lines above say why")


def _id_in(lines: Iterator[str], say: Say) -> str:
    job = None
    for line in lines:
        say(line)
        if found := _JOB_ID.search(line):
            job = found.group(1)
    if job is None:
        raise SubmitError("Flink's client reported no job; see the lines above, and the jobs that run in Flink")
    return job
