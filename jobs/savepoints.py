"""Savepoints for verification: taken through Flink's REST interface in the searchable format; and their age."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from adapters.flink.rest import FINAL, FlinkRest
from jobs.locations import location_of, path_of
from schemas.errors import JobSilent, NoJobError, SettingsError

ENDING: Final = FINAL | {"CANCELLING", "FAILING"}


def take_savepoint(flink: str, job_name: str, directory: Path, timeout_s: float) -> Path:
    """Take a canonical savepoint of the running job of this name below `directory`; returns its folder.

    `directory` must be the same place for Flink and for this process. Raises :class:`JobSilent`, and what
    :class:`FlinkRest` raises.
    """
    rest = FlinkRest(flink)
    return _folder(rest.take_savepoint(running_job(flink, job_name), location_of(directory.resolve()), timeout_s))


def completed_ms(folders: Iterable[Path]) -> list[int]:
    """When each checkpoint or savepoint below `folders` completed, in ms."""
    return [int(path.stat().st_mtime * 1000) for folder in folders for path in folder.rglob("_metadata")]


def running_job(flink: str, job_name: str) -> str:
    """The id of the only running job of this name. Raises :class:`SettingsError` if there is none, or more than one."""
    rest = FlinkRest(flink)
    mine = [job for job in rest.overview() if job["name"] == job_name and job["state"] not in ENDING]
    running = [str(job["jid"]) for job in mine if job["state"] == "RUNNING"]
    if len(running) == len(mine) == 1:
        return running[0]
    if not mine:
        raise NoJobError(f"no job named {job_name} runs in Flink at {flink}: `freshet submit` submits it")
    if len(mine) > 1:
        raise SettingsError(
            f"{len(mine)} jobs named {job_name} run in Flink at {flink}, and one is expected: if a take-over was "
            "interrupted, run `freshet take-over` again, which completes it or cancels the second job"
        )
    job, state = str(mine[0]["jid"]), mine[0]["state"]
    raise SettingsError(f"job {job} is {state} in Flink at {flink}: {rest.root_cause(job) or 'it gave no reason'}")


def _folder(operation: dict[str, Any]) -> Path:
    if cause := operation.get("failure-cause"):
        raise JobSilent(f"Flink could not take the savepoint: {str(cause.get('class', cause))[:200]}")
    folder = path_of(operation["location"])
    if not (folder / "_metadata").is_file():
        raise SettingsError(
            f"Flink wrote a savepoint to {folder}, which this process cannot read: --work-dir must be a folder "
            "that both share, or give a copy of a savepoint by --savepoint"
        )
    return folder
