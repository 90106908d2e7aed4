"""Starts, records and ends processes, also from a different shell than the one that started them.

A record on disk identifies each process by id *and* creation time, because ids are reused and `freshet down` must never
end an unrelated process. Every process also has the stack's directory in its environment, which its children inherit.
This is how Flink's Python workers are found when their TaskManager was killed and could not end them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from deploy.local.errors import ProcessDiedError
from deploy.local.files import tail, write_atomically
from deploy.local.java import ENVIRONMENT

MARKER = "FRESHET_STACK"
_CREATE_TIME_TOLERANCE_S = 0.02
_KILL_WAIT_S = 10


@dataclass(frozen=True)
class ProcessRecord:
    """One process of the stack. `create_time` is in seconds since the epoch, as returned by psutil."""

    name: str
    pid: int
    create_time: float
    log: str

    def process(self) -> psutil.Process | None:
        """The running process, or None if it has ended (even if its id now belongs to another process)."""
        try:
            process = psutil.Process(self.pid)
            is_ours = abs(process.create_time() - self.create_time) <= _CREATE_TIME_TOLERANCE_S
            return process if is_ours and not _has_ended(process) else None
        except psutil.Error:
            return None

    def is_running(self) -> bool:
        """Whether exactly this process still runs."""
        return self.process() is not None


class ProcessTable:
    """The processes of one stack, recorded as `<directory>/run/<name>.json`; logs go to `<directory>/log`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self._run = self.directory / "run"
        self._log = self.directory / "log"
        # Kept only to reap ended children, which would remain as zombies; the records on disk are authoritative.
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        """This process's environment with the stack's locale, the marker and a part's own variables.

        PYTHONPATH is removed: Python workers would import modules from there instead of the submitted ones.
        """
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return {**inherited, **ENVIRONMENT, MARKER: str(self.directory), **extra}

    def start(self, name: str, command: Sequence[str], extra_environment: Mapping[str, str]) -> ProcessRecord:
        """Start a process in a session of its own (so a Ctrl-C in the terminal does not reach it) and record it."""
        self._log.mkdir(parents=True, exist_ok=True)
        log = self._log / f"{name}.out"
        with log.open("ab") as output:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment(extra_environment),
                cwd=self.directory,
                start_new_session=True,
            )
        self._children[child.pid] = child
        record = ProcessRecord(name, child.pid, psutil.Process(child.pid).create_time(), str(log))
        write_atomically(self._run / f"{name}.json", json.dumps(asdict(record)) + "\n")
        return record

    def records(self) -> list[ProcessRecord]:
        """All recorded processes by name, running or not."""
        files = sorted(self._run.glob("*.json"))
        return [ProcessRecord(**json.loads(file.read_text())) for file in files]

    def record(self, name: str) -> ProcessRecord | None:
        """The record of that name, whether running or not."""
        return next((record for record in self.records() if record.name == name), None)

    def check_running(self, record: ProcessRecord) -> None:
        """Raise ProcessDiedError with the end of the log if the process has ended."""
        if record.is_running():
            return
        logs = [Path(record.log).with_suffix(".log"), Path(record.log)]
        shown = [log for log in logs if log.exists() and log.stat().st_size]
        text = "\n".join(tail(log) for log in shown) or "(it wrote nothing)"
        where = " and ".join(str(log) for log in shown or [Path(record.log)])
        raise ProcessDiedError(f"{record.name} ended while it was needed. Its last lines:\n{text}\nLog: {where}")

    def end(self, records: Iterable[ProcessRecord], grace_s: float) -> None:
        """End these processes and delete their records.

        TERM, then KILL for those still running after grace_s seconds.
        """
        records = list(records)
        end_processes([process for record in records if (process := record.process())], grace_s)
        self._reap()
        for record in records:
            (self._run / f"{record.name}.json").unlink(missing_ok=True)

    def kill(self, record: ProcessRecord) -> None:
        """End one process as a crash would (KILL), then the children it leaves behind, and delete its record."""
        process = record.process()
        children = _children(process) if process else []
        self.end([record], grace_s=0)
        end_processes(children, grace_s=0)

    def kill_supervised(self, record: ProcessRecord) -> None:
        """Kill the process that a supervisor runs, as a crash would; the supervisor restarts it."""
        process = record.process()
        children = list(process.children()) if process else []
        end_processes(children, grace_s=0)

    def unrecorded(self) -> list[psutil.Process]:
        """Processes with this stack's marker but without a record: mostly Python workers."""
        known = {record.pid for record in self.records() if record.is_running()}
        return [process for process in _marked(self.directory) if process.pid not in known]

    def _reap(self) -> None:
        for pid, child in list(self._children.items()):
            if child.poll() is not None:
                del self._children[pid]


def end_processes(processes: list[psutil.Process], grace_s: float) -> None:
    """TERM all of them, wait, then KILL the remaining ones. Processes that have already ended are ignored."""
    for process in processes:
        _signal(process, signal.SIGTERM if grace_s > 0 else signal.SIGKILL)
    for process in _left_after(grace_s or _KILL_WAIT_S, processes):
        _signal(process, signal.SIGKILL)
    _left_after(_KILL_WAIT_S, processes)


def _left_after(timeout_s: float, processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those still running after timeout_s; returns earlier once all have ended.

    Not psutil.wait_procs: it waits for zombies, and an orphan remains a zombie until process 1 reaps it.
    """
    deadline = time.monotonic() + timeout_s
    while (left := [process for process in processes if _runs(process)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and not _has_ended(process)
    except psutil.Error:
        return False


def _has_ended(process: psutil.Process) -> bool:
    """Whether all threads have ended, and with them the process's sockets and files.

    A killed process is a zombie as soon as its first thread has ended. Another thread may still be in the kernel, such
    as the one of Redis that syncs the AOF, and the port stays taken for as long.
    """
    with process.oneshot():
        return bool(process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)  # psutil itself checks the creation time again
    except psutil.NoSuchProcess:
        return


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def _ancestors(process: psutil.Process) -> list[int]:
    try:
        return [parent.pid for parent in process.parents()]
    except psutil.Error:
        return []


def _marked(directory: Path) -> list[psutil.Process]:
    """All processes of this user with the marker, except this one and its ancestors."""
    mine = {os.getpid(), *_ancestors(psutil.Process())}
    return [
        process for process in psutil.process_iter() if process.pid not in mine and _marker(process) == str(directory)
    ]


def _marker(process: psutil.Process) -> str | None:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return str(process.environ().get(MARKER, ""))
    except (psutil.Error, OSError):
        return None  # another user's process, or ended meanwhile
