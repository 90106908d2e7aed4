"""Flink's REST interface: jobs, their state and failures, checkpoints and savepoints, metrics."""

import json
import re
import time
from typing import Any
from urllib.parse import quote

from adapters.http_client import HttpClient
from adapters.waiting import until
from schemas.errors import HttpUnanswered, RestError

FINAL = frozenset({"FAILED", "CANCELED", "FINISHED"})
"""The states of a job that has ended."""
_CAUSED_BY = "Caused by: "
_FRAMES = re.compile(r"^\t(?:at|\.\.\.) .*\n|^  File \".*/site-packages/.*\n(?:    .*\n)*", re.MULTILINE)
"""A Java stack frame, or a Python frame in a library with its source lines."""


class FlinkRest:
    """A client of the JobManager at `url`, ``http(s)://host[:port][/path]``. Thread-safe.

    All methods raise :class:`RestError` if Flink does not answer or refuses.
    """

    def __init__(self, url: str, timeout_s: float = 10) -> None:
        self.url = url
        self._http = HttpClient(url, timeout_s, {"Content-Type": "application/json"})

    def get(self, path: str) -> Any:
        """GET a path and decode the answer. Raises RestError."""
        return self._call("GET", path, None)

    def is_up(self) -> bool:
        """Whether the JobManager answers."""
        try:
            self.get("/overview")
        except RestError:
            return False
        return True

    def task_managers(self) -> list[dict[str, Any]]:
        """The registered TaskManagers, as /taskmanagers lists them."""
        return list(self.get("/taskmanagers")["taskmanagers"])

    def wait_task_managers(self, count: int, timeout_s: float = 300) -> None:
        """Wait until exactly `count` TaskManagers are registered; a killed one counts until Flink notices."""
        until(lambda: len(self.task_managers()) == count, f"{count} TaskManagers", timeout_s)

    def jobs(self) -> dict[str, str]:
        """Job id → state, of all jobs that the JobManager remembers."""
        return {job["id"]: job["status"] for job in self.get("/jobs")["jobs"]}

    def overview(self) -> list[dict[str, Any]]:
        """All jobs that the JobManager remembers, with their current `jid`, `name`, `state` and `tasks`.

        /jobs/<id> may be up to three seconds old (web.refresh-interval).
        """
        return list(self.get("/jobs/overview")["jobs"])

    def state(self, job: str) -> str:
        """The state of a job: CREATED, RUNNING, RESTARTING, FAILED and so on."""
        return str(self._overview(job)["state"])

    def is_running(self, job: str) -> bool:
        """Whether the job and each of its subtasks run. Raises RestError if the job has ended."""
        found = self._overview(job)
        if found["state"] in FINAL:
            raise RestError(f"job {job} is {found['state']}:\n{self.exceptions(job)}")
        return bool(found["state"] == "RUNNING" and found["tasks"]["running"] == found["tasks"]["total"])

    def _overview(self, job: str) -> dict[str, Any]:
        jobs = {found["jid"]: found for found in self.overview()}
        if job not in jobs:
            raise RestError(f"job {job} is not known to Flink at {self.url}", 404)
        return dict(jobs[job])

    def wait_running(self, job: str, timeout_s: float = 300) -> None:
        """Wait until all subtasks run. Raises NotReadyError with the last exceptions, RestError if the job ended."""
        until(lambda: self.is_running(job), f"job {job} to run", timeout_s, 0.1, lambda: self.exceptions(job))

    def wait_state(self, job: str, state: str, timeout_s: float = 300) -> None:
        """Wait until the job is in this state."""
        until(
            lambda: self.state(job) == state, f"job {job} to be {state}", timeout_s, 0.1, lambda: self.exceptions(job)
        )

    def exceptions(self, job: str, characters_max: int = 4000) -> str:
        """The newest failures of a job, newest first, truncated; empty if there were none. Leaves out library frames.

        The Python error is at the end of a trace, after some hundred frames.
        """
        entries = self.get(f"/jobs/{job}/exceptions")["exceptionHistory"]["entries"]
        return _FRAMES.sub("", "\n".join(f"{entry['stacktrace']}\n" for entry in entries))[:characters_max]

    def clock_ms(self, job: str) -> int:
        """The time by the JobManager's clock, in ms."""
        return int(self.get(f"/jobs/{job}")["now"])

    def failures_since(self, job: str, since_ms: int, characters_max: int = 4000) -> str:
        """As :meth:`exceptions`, of failures since a time by the JobManager's clock, up to this call.

        Takes as long as Flink may answer with what it has read before (`web.refresh-interval`, 3 seconds).
        """
        time.sleep(self.get("/config")["refresh-interval"] / 1_000)
        entries = self.get(f"/jobs/{job}/exceptions")["exceptionHistory"]["entries"]
        newer = [entry["stacktrace"] for entry in entries if entry["timestamp"] >= since_ms]
        return _FRAMES.sub("", "\n".join(f"{trace}\n" for trace in newer))[:characters_max]

    def root_cause(self, job: str, characters_max: int = 300) -> str:
        """The innermost cause of the newest failure of a job, on one line; empty if it has not failed."""
        entries = self.get(f"/jobs/{job}/exceptions")["exceptionHistory"]["entries"]
        lines = entries[0]["stacktrace"].splitlines() if entries else []
        causes = [line.removeprefix(_CAUSED_BY) for line in lines if line.startswith(_CAUSED_BY)]
        return str((causes or lines[:1] or [""])[-1])[:characters_max]

    def checkpoints(self, job: str) -> dict[str, Any]:
        """Checkpoint counts, the latest ones and their sizes, as /jobs/…/checkpoints gives them."""
        return dict(self.get(f"/jobs/{job}/checkpoints"))

    def checkpoint(self, job: str, timeout_s: float = 300) -> int:
        """Take a checkpoint now and return its number: it contains everything that the job did before this call."""
        trigger = self._call("POST", f"/jobs/{job}/checkpoints", {"checkpointType": "CONFIGURED"})["request-id"]
        operation = self._await_operation(f"/jobs/{job}/checkpoints/{trigger}", f"a checkpoint of {job}", timeout_s)
        return int(operation["checkpointId"])

    def metrics(self, path: str, names: list[str]) -> dict[str, str]:
        """Metric id → value. path is where they live, for example `/jobs/<id>/vertices/<id>/subtasks`."""
        wanted = quote(",".join(names), safe=",")
        return {row["id"]: str(row.get("value", row)) for row in self.get(f"{path}/metrics?get={wanted}")}

    def metric_names(self, path: str) -> list[str]:
        """The ids of all metrics at a path."""
        return [row["id"] for row in self.get(f"{path}/metrics")]

    def take_savepoint(self, job: str, directory: str | None, timeout_s: float) -> dict[str, Any]:
        """Take a canonical savepoint without stopping the job; returns Flink's description of it.

        Below `directory`, or where Flink's settings say.
        """
        target = {"target-directory": directory} if directory else {}
        body = {"cancel-job": False, "formatType": "CANONICAL", **target}
        trigger = self._call("POST", f"/jobs/{job}/savepoints", body)["request-id"]
        return self._await_end(f"/jobs/{job}/savepoints/{trigger}", f"the savepoint of {job}", timeout_s)

    def cancel(self, job: str, timeout_s: float = 300) -> None:
        """Cancel a job and wait until it is gone; it may have failed meanwhile."""
        try:
            self._call("PATCH", f"/jobs/{job}?mode=cancel", None)
        except RestError:
            if self.state(job) not in FINAL:
                raise
        until(
            lambda: self.state(job) in FINAL, f"job {job} to be cancelled", timeout_s, 0.1, lambda: self.exceptions(job)
        )

    def stop_with_savepoint(self, job: str, directory: str | None = None, timeout_s: float = 300) -> str:
        """Stop a job with a savepoint and return the savepoint's path. Raises RestError with Flink's reason."""
        body = {"drain": False, "formatType": "CANONICAL", **({"targetDirectory": directory} if directory else {})}
        trigger = self._call("POST", f"/jobs/{job}/stop", body)["request-id"]
        operation = self._await_operation(f"/jobs/{job}/savepoints/{trigger}", f"the savepoint of {job}", timeout_s)
        self.wait_state(job, "FINISHED", timeout_s)
        return str(operation["location"])

    def _await_operation(self, path: str, what: str, timeout_s: float) -> dict[str, Any]:
        operation = self._await_end(path, what, timeout_s)
        if operation.get("failure-cause"):
            raise RestError(f"{what} failed: {str(operation['failure-cause'])[:4000]}")
        return operation

    def _await_end(self, path: str, what: str, timeout_s: float) -> dict[str, Any]:
        answer: dict[str, Any] = {}

        def is_done() -> bool:
            answer.update(self.get(path))
            return bool(answer["status"]["id"] == "COMPLETED")

        until(is_done, what, timeout_s)
        return dict(answer["operation"])

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        try:
            status, content = self._http.ask(method, path, None if body is None else json.dumps(body).encode())
            if status >= 400:
                raise RestError(f"Flink at {self.url} refused {method} {path}: {status} {_said(content)}", status)
            return json.loads(content) if content else None
        except (HttpUnanswered, ValueError) as error:
            why = error if isinstance(error, HttpUnanswered) else "no JSON"
            raise RestError(f"Flink at {self.url} does not answer {method} {path} ({why}): check the address") from None


def _said(content: bytes) -> str:
    return content[:2000].decode(errors="replace")
