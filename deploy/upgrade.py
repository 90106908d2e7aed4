"""Upgrades a running job, verifies the new one, and otherwise lets the previous code continue (`freshet upgrade`)."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from adapters.flink.rest import FINAL, FlinkRest
from deploy.local.errors import SubmitError
from deploy.releases import Release, keep, kept
from deploy.submission import Say, Submission, packed, prepared, releases, submit_package
from jobs.savepoints import running_job
from schemas.errors import FreshetError, RestError

_ENDED: Final = (KeyboardInterrupt, SystemExit)
"""What Ctrl-C and SIGTERM raise in a command."""


class Safety(NamedTuple):
    """How an upgrade is verified, and what it is rolled back to.

    `prove` raises unless a canary passes through the new job. `previous` is the package of the running job; None means
    the copy that its submission kept on this machine.
    """

    timeout_s: float
    prove: Callable[[], None]
    previous: Path | None = None


class UpgradeResult(NamedTuple):
    """The previous job, the savepoint with which it was stopped, and the job that continues from it.

    The checks and the building of the graph took `prepared_s` seconds, while the previous job ran. The others are
    counted from the order to stop: until the savepoint was taken (`saved_s`), Flink had accepted `job`
    (`submitted_s`), and all its tasks ran (`stopped_s`). If the new code was not well, `rolled_back` says why, and
    `job` runs the previous code.
    """

    before: str
    savepoint: str
    job: str
    prepared_s: float
    saved_s: float
    submitted_s: float
    stopped_s: float
    rolled_back: str | None = None


class _Times(NamedTuple):
    """By the monotonic clock: when the checks began, the job was to stop, and its savepoint was taken."""

    begun_s: float
    stopping_s: float
    saved_s: float = 0.0


class _Upgrade(NamedTuple):
    """An upgrade in progress, of the job `before`, which runs `previous`."""

    new: Release
    how: Submission
    job_name: str
    before: str
    previous: Release | None
    safety: Safety
    say: Say

    @property
    def rest(self) -> FlinkRest:
        return FlinkRest(self.how.flink or "")

    def go_back(self, previous: Release, savepoint: str) -> str:
        """Submit the previous code from `savepoint`; returns the job's id."""
        how = self.how._replace(
            savepoint=savepoint, parallelism=previous.parallelism, python=previous.python, mode=previous.mode
        )
        return submit_package(previous.settings, previous.package, how, self.say)

    def by_hand(self, release: Release, savepoint: str) -> str:
        """The command that does the same."""
        words = ["freshet", "submit", "--settings", str(release.settings), "--flink", self.how.flink or ""]
        words += ["--savepoint", savepoint]
        if release.parallelism is not None:
            words += ["--parallelism", str(release.parallelism)]
        if release.python is not None:
            words += ["--python", release.python]
        return shlex.join(words if release is self.new else [*words, "--package", str(release.package)])

    def way_back(self, savepoint: str) -> str:
        """What returns to the previous code."""
        if self.previous is not None:
            return f"`{self.by_hand(self.previous, savepoint)}`"
        return f"`{self.by_hand(self.new, savepoint)}` in a checkout of the previous release"


def upgrade(
    settings: Path, job_name: str, how: Submission, savepoints: str | None, safety: Safety, say: Say
) -> UpgradeResult:
    """Check the submission, stop the running job `job_name` with a savepoint, submit from it, and verify the new job.

    If the new job is rejected or not well, the previous code continues from the same savepoint, with its own settings
    and parallelism. Raises :class:`SubmitError` if the new job is rejected before the running job is stopped; or if
    nothing could be rolled back, with the command that does it.
    """
    flink = how.flink or ""
    with packed() as package:
        before = running_job(flink, job_name)
        parallelism = _parallelism(FlinkRest(flink), before)
        previous = _previous(settings, how, before, parallelism, safety.previous, say)
        new = Release(package, settings, how.parallelism, how.python, how.mode)
        run = _Upgrade(new, how, job_name, before, previous, safety, say)
        say(f"checking the submission while job {before} runs")
        begun_s = time.monotonic()
        with prepared(settings, package, how, before, say) as start:
            times = _Times(begun_s, time.monotonic())
            savepoint = _stop(run, savepoints)
            return _go_on(run, start, savepoint, times)


def _parallelism(rest: FlinkRest, job: str) -> int:
    return max(int(vertex["parallelism"]) for vertex in rest.get(f"/jobs/{job}")["vertices"])


def _previous(
    settings: Path, how: Submission, before: str, parallelism: int, given: Path | None, say: Say
) -> Release | None:
    """What the job `before` was submitted with. Raises :class:`SubmitError` if the given package does not exist."""
    if given is not None:
        if not given.is_file():
            raise SubmitError(f"there is no package {given}: --previous names the package of the code that runs now")
        return Release(given.absolute(), settings, parallelism, how.python, how.mode)
    found = kept(releases(), before)
    if found is None:
        say(f"there is no copy of the code of job {before} here: without --previous, nothing is rolled back")
        return None
    return found._replace(parallelism=parallelism)


def _stop(run: _Upgrade, savepoints: str | None) -> str:
    before, say = run.before, run.say
    say(f"stopping job {before} with a savepoint")
    unless_it_goes_on = f"if the job stops, run {run.way_back('SAVEPOINT')} with the savepoint that Flink names"
    try:
        savepoint = run.rest.stop_with_savepoint(before, savepoints)
    except _ENDED:
        say(f"ended while Flink takes a savepoint of job {before}: {unless_it_goes_on}")
        raise
    except FreshetError as error:
        raise SubmitError(f"{error}. Job {before} was not replaced, see whether it runs: {unless_it_goes_on}") from None
    say(f"stopped; its state is in {savepoint}")
    return savepoint


def _go_on(run: _Upgrade, start: Callable[[str], str], savepoint: str, times: _Times) -> UpgradeResult:
    """Start the new code from the savepoint, and verify it; else, roll back."""
    times = times._replace(saved_s=time.monotonic())
    job: str | None = None
    try:
        job = start(savepoint)
        done = _when_it_runs(run, job, savepoint, times)
        run.say(
            f"job {job} runs, {done.stopped_s:.1f} s after the order to stop: the savepoint took {done.saved_s:.1f} s, "
            f"the submission {done.submitted_s - done.saved_s:.1f} s, the start of the tasks "
            f"{done.stopped_s - done.submitted_s:.1f} s"
        )
        _verify(run, job)
    except _ENDED:
        _say_how_to_go_on(run, savepoint, job)
        raise
    except Exception as error:  # whatever it is, no job of the previous code runs now
        why = str(error) if isinstance(error, FreshetError) else f"{type(error).__name__}: {error}"
        run.say(f"not well: {why}")
        return _roll_back(run, savepoint, why, times)
    _keep(run, run.new, job)
    return done


def _when_it_runs(run: _Upgrade, job: str, savepoint: str, times: _Times) -> UpgradeResult:
    submitted_s = time.monotonic()
    run.rest.wait_running(job, run.safety.timeout_s)
    stopping_s = times.stopping_s
    return UpgradeResult(
        run.before,
        savepoint,
        job,
        prepared_s=stopping_s - times.begun_s,
        saved_s=times.saved_s - stopping_s,
        submitted_s=submitted_s - stopping_s,
        stopped_s=time.monotonic() - stopping_s,
    )


def _say_how_to_go_on(run: _Upgrade, savepoint: str, job: str | None) -> None:
    if job is None:
        run.say(
            "ended while the job is stopped, and nothing is lost: unless Flink runs the new job already, run "
            f"`{run.by_hand(run.new, savepoint)}`"
        )
    else:
        run.say(
            f"ended before job {job} was verified: see whether it runs. To return to the previous code, cancel it and "
            f"run {run.way_back(savepoint)}"
        )


def _verify(run: _Upgrade, job: str) -> None:
    """Raise unless the job, all of which runs, completes a checkpoint, passes a canary, and fails nowhere meanwhile."""
    rest, timeout_s = run.rest, run.safety.timeout_s
    since_ms = rest.clock_ms(job)
    rest.checkpoint(job, timeout_s)
    run.safety.prove()
    if failures := rest.failures_since(job, since_ms):
        raise RestError(f"job {job} fails and restarts:\n{failures}")
    run.say(f"job {job} has completed a checkpoint, and has processed a canary")


def _roll_back(run: _Upgrade, savepoint: str, why: str, times: _Times) -> UpgradeResult:
    """Let the previous code continue from the savepoint. Raises :class:`SubmitError` if that fails, too."""
    if run.previous is None:
        raise SubmitError(
            f"{why}. Nothing was rolled back, and nothing is lost: cancel the job if it runs, and run "
            f"{run.way_back(savepoint)}"
        )
    run.say(f"rolling back to the code of job {run.before}, from {savepoint}")
    try:
        _cancel_all(run)
        job = run.go_back(run.previous, savepoint)
        run.say(f"job {job} was submitted; if TaskManagers were replaced for the new code, replace them again")
        done = _when_it_runs(run, job, savepoint, times)
    except _ENDED:
        run.say(f"ended while it is rolled back: unless Flink runs a job already, run {run.way_back(savepoint)}")
        raise
    except Exception as error:
        raise SubmitError(
            f"{why}. The previous code does not run, either: {error}. Nothing is lost: once that is mended, cancel the "
            f"job if it runs, and run {run.way_back(savepoint)}"
        ) from error
    _keep(run, run.previous, job)
    return done._replace(rolled_back=why)


def _cancel_all(run: _Upgrade) -> None:
    """Cancel what was submitted, even if its client did not say so: exactly one job of this name ran before."""
    for found in run.rest.overview():
        if found["name"] == run.job_name and found["jid"] != run.before and found["state"] not in FINAL:
            run.say(f"cancelling job {found['jid']}")
            run.rest.cancel(found["jid"])


def _keep(run: _Upgrade, release: Release, job: str) -> None:
    try:
        keep(releases(), job, release)
    except OSError as error:
        run.say(f"no copy of what job {job} runs was kept: the next upgrade needs --previous ({error})")
