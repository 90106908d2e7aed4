"""The job on a stack: its state, and the snapshot from which an ended job can be continued."""

from __future__ import annotations

from typing import Any, NamedTuple

from adapters.flink.rest import FINAL, FlinkRest
from jobs.locations import path_of


class LocalJob(NamedTuple):
    """A job and its state in Flink: RUNNING, RESTARTING, FAILED and so on."""

    id: str
    state: str

    def has_ended(self) -> bool:
        """Whether it has ended for good."""
        return self.state in FINAL


def newest_job(rest: FlinkRest, name: str) -> LocalJob | None:
    """The job `name` that has not ended, or else the one that started last; None if there is none.

    Raises :class:`RestError` if Flink does not respond.
    """
    jobs = [job for job in rest.overview() if job["name"] == name]
    newest = max(jobs, key=lambda job: (job["state"] not in FINAL, job["start-time"]), default=None)
    return None if newest is None else LocalJob(newest["jid"], newest["state"])


def latest_snapshot(rest: FlinkRest, job: LocalJob) -> str | None:
    """The newest existing savepoint or checkpoint of `job`, or else the one from which it was started."""
    latest = rest.checkpoints(job.id)["latest"]
    own = [found for kind in ("savepoint", "completed") if (found := latest.get(kind))]
    own.sort(key=lambda found: found["trigger_timestamp"], reverse=True)
    places = [_place(found) for found in (*own, latest.get("restored") or {}) if not found.get("discarded")]
    return next((place for place in places if place and (path_of(place) / "_metadata").is_file()), None)


def _place(found: dict[str, Any]) -> str:
    return str(found.get("external_path") or "")
