"""Savepoints as verifications need them: one in the form that can be searched, taken by Flink's REST, and their age."""

import http.client
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from jobs.locations import location_of, path_of
from schemas.errors import JobSilent, SettingsError

TIMEOUT_S: Final = 10.0
POLL_S: Final = 0.2


def take_savepoint(flink: str, job_name: str, directory: Path, timeout_s: float) -> Path:
    """A savepoint of the running job of this name, in canonical format, below `directory`; returns its folder.

    `directory` must be the same place for Flink and for this process. Raises :class:`JobSilent`.
    """
    job = running_job(flink, job_name)
    body = {"cancel-job": False, "formatType": "CANONICAL", "target-directory": location_of(directory.resolve())}
    trigger = ask_flink(flink, "POST", f"/jobs/{job}/savepoints", body)["request-id"]
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        answer = ask_flink(flink, "GET", f"/jobs/{job}/savepoints/{trigger}")
        if answer["status"]["id"] == "COMPLETED":
            return _folder(answer["operation"])
        time.sleep(POLL_S)
    raise JobSilent(f"Flink took no savepoint within {timeout_s:g} s")


def completed_ms(folders: Iterable[Path]) -> list[int]:
    """When each checkpoint or savepoint below `folders` was completed, in ms."""
    return [int(path.stat().st_mtime * 1000) for folder in folders for path in folder.rglob("_metadata")]


def running_job(flink: str, job_name: str) -> str:
    """The id of the one running job of this name. Raises :class:`SettingsError` where there is none, or several."""
    jobs = [job["jid"] for job in ask_flink(flink, "GET", "/jobs/overview")["jobs"] if _is_it(job, job_name)]
    if len(jobs) != 1:
        raise SettingsError(f"{len(jobs)} jobs named {job_name} run in Flink at {flink}; exactly one is expected")
    return str(jobs[0])


def _is_it(job: dict[str, Any], name: str) -> bool:
    return bool(job["name"] == name and job["state"] == "RUNNING")


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


def ask_flink(flink: str, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """Call the REST interface at `flink` and decode the answer; raises :class:`JobSilent`."""
    parts = urlsplit(flink)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    # Not urlopen: it would send requests for loopback to a proxy that the environment names.
    connection = kind(parts.hostname or "localhost", parts.port, timeout=TIMEOUT_S)
    try:
        text = None if body is None else json.dumps(body)
        connection.request(method, parts.path.rstrip("/") + path, text, {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
        if response.status >= 400:
            raise JobSilent(f"Flink at {flink} refused {method} {path}: {response.status}")
        return json.loads(content)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise JobSilent(f"Flink at {flink} does not answer ({type(error).__name__}): check --flink") from None
    finally:
        connection.close()
