"""The whole local stack: Kafka, Redis and Flink, started and ended together, and attached to from other shells."""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from adapters.flink.rest import FlinkRest
from adapters.waiting import until
from deploy.local.errors import StackError
from deploy.local.escaping import check_directory
from deploy.local.files import write_atomically
from deploy.local.flink import FlinkCluster
from deploy.local.gateway import GatewayServer
from deploy.local.java import Java
from deploy.local.kafka import KafkaBroker
from deploy.local.paths import ROOT
from deploy.local.ports import free_port
from deploy.local.processes import ProcessRecord, ProcessTable, end_processes
from deploy.local.redis import RedisServer
from schemas.log_lines import LogFormat

START_TIMEOUT_S = 300
END_GRACE_S = 8
_DATA = ("kafka", "redis", "flink", "tmp")


@dataclass(frozen=True)
class StartingPart:
    """A part that is starting: its processes, and a function that checks whether it is ready."""

    name: str
    records: tuple[ProcessRecord, ...]
    is_ready: Callable[[], bool]


class LocalStack:
    """One stack below one directory; several can run side by side.

    start() begins empty: the data of the parts belong together (lists in Redis, consents in Kafka, state in
    checkpoints), so they exist from start() to stop() and are never mixed with those of an earlier run. Logs of the
    last run are kept until the next start(). LocalStack.attach(directory) attaches to a stack started by another
    process.

        with LocalStack(tmp_path, task_managers=2) as stack:
            job = stack.flink_run(["-py", "jobs/personalise.py"])
            stack.rest.wait_running(job)
    """

    def __init__(
        self,
        directory: Path,
        task_managers: int = 1,
        flink_settings: Mapping[str, str] | None = None,
        report: Callable[[str], None] = lambda line: None,
        records_classes: bool = False,
        end_grace_s: float = END_GRACE_S,
        log_format: LogFormat = "text",
    ) -> None:
        self.directory = directory.resolve()
        self._task_managers = task_managers
        self._report = report
        self._end_grace_s = end_grace_s
        self._table = ProcessTable(self.directory)
        ports = _read_ports(self.directory) or {name: free_port() for name in _PORTS}
        self._ports = ports
        java = Java(self.directory / "tmp", records_classes)
        self.kafka = KafkaBroker(self._table, java, ports["kafka"], ports["kafka_controller"])
        self.redis = RedisServer(self._table, ports["redis"])
        self.gateway = GatewayServer(self._table, ports["gateway"])
        self.flink = FlinkCluster(
            self._table, java, ports["flink_rpc"], ports["flink_rest"], flink_settings or {}, log_format
        )

    @classmethod
    def attach(cls, directory: Path) -> LocalStack:
        """The stack that runs below this directory. Raises StackError if there is none."""
        if not is_up(directory):
            raise StackError(f"no stack is up below {directory}")
        return cls(directory)

    @property
    def rest(self) -> FlinkRest:
        """Flink's REST interface."""
        return self.flink.rest

    @property
    def endpoints_path(self) -> Path:
        """The file from which external clients read the addresses."""
        return self.directory / "endpoints.json"

    @property
    def addresses(self) -> dict[str, str]:
        """The addresses of the parts, by their names in endpoints.json."""
        servers = {"kafka": self.kafka.bootstrap_servers, "redis": self.redis.url, "flink": self.flink.url}
        return {**servers, **self.flink.metrics()}

    def start(self) -> None:
        """Start all parts in parallel and wait until each is ready. Cleans up if it fails or is interrupted."""
        for directory in (self.directory, ROOT):
            check_directory(directory)
        with self._exclusively():
            if is_up(self.directory):
                raise StackError(f"a stack is up below {self.directory} already")
            self._end_all(grace_s=0)  # Python workers left behind by an earlier stack
            try:
                self._begin_empty()
                self._start_parts()
            except BaseException:
                self._end_all(grace_s=0)  # its data are discarded, so no graceful end is needed
                self._forget_data()
                raise

    def stop(self) -> None:
        """End every process of the stack and its Python workers, and delete its data. Does nothing if nothing runs."""
        self.endpoints_path.unlink(missing_ok=True)
        self._end_all(self._end_grace_s)
        self._forget_data()

    def publish_endpoints(self, **more: str) -> None:
        """Write endpoints.json: the addresses and the product's entries (topic_prefix, key_ring and so on).

        `freshet up` and `freshet status` print them: none of them may be a secret.
        """
        write_atomically(self.endpoints_path, json.dumps({**self.addresses, **more}, indent=2) + "\n", mode=0o600)

    def endpoints(self) -> dict[str, str]:
        """The published entries; empty if there are none yet."""
        return json.loads(self.endpoints_path.read_text()) if self.endpoints_path.exists() else {}

    def flink_run(
        self, arguments: list[str], environment: Mapping[str, str] | None = None, timeout_s: float = 600
    ) -> str:
        """`flink run -d <arguments>`; returns the job's id. Raises SubmitError with the client's last lines."""
        return self.flink.run(arguments, environment or {}, timeout_s)

    def task_managers(self) -> list[ProcessRecord]:
        """The running TaskManagers, by number."""
        return self.flink.task_managers()

    def add_task_manager(self, timeout_s: float = START_TIMEOUT_S) -> ProcessRecord:
        """Start one more TaskManager and wait until it is registered."""
        before = {manager["id"] for manager in self.rest.task_managers()}
        record = self.flink.add_task_manager()

        def has_arrived() -> bool:
            return bool({manager["id"] for manager in self.rest.task_managers()} - before)

        self._wait(StartingPart(record.name, (record,), has_arrived), timeout_s)
        return record

    def kill_task_manager(self, index: int = 0) -> ProcessRecord:
        """Kill a TaskManager as a crash would; its supervisor starts a replacement.

        The JobManager notices immediately if a connection breaks, or else after heartbeat.timeout.
        """
        record = self.task_managers()[index]
        self._table.kill_supervised(record)
        return record

    def replace_task_managers(self) -> None:
        """Replace every TaskManager with a new one, as required in thread mode after a code change.

        In thread mode, each TaskManager has one interpreter, which imports a module once. It rejects a job submitted
        later with changed modules.
        """
        old = self.task_managers()
        self._table.end(old, self._end_grace_s)
        for _ in old:
            self.add_task_manager()

    def kill_flink(self) -> None:
        """Kill all TaskManagers and the JobManager as a power failure would; jobs are lost, checkpoints remain."""
        for record in self.task_managers():
            self._table.kill(record)
        self._kill(self.flink.job_manager)

    def start_flink(self) -> None:
        """Start Flink again after kill_flink(), without any job."""
        self._wait(self._begin_flink(), START_TIMEOUT_S)

    def wait_ready(self) -> None:
        """Wait until Kafka, Redis and Flink, which another process started, accept requests."""
        for name, is_ready in {
            self.redis.name: self.redis.is_ready,
            self.kafka.name: self.kafka.is_ready,
            "flink": self._flink_is_ready,
        }.items():
            until(is_ready, name, START_TIMEOUT_S, 0.05, lambda: f"its log is below {self.directory / 'log'}")

    def kill_redis(self) -> None:
        """Kill Redis as a crash would; start_redis() restarts it on the same port, with the contents of its AOF."""
        self._kill(self.redis.name)

    def start_redis(self) -> None:
        """Start Redis again after kill_redis()."""
        self._wait(StartingPart(self.redis.name, (self.redis.start(),), self.redis.is_ready), START_TIMEOUT_S)

    def start_gateway(self, settings: Path) -> None:
        """Start the gateway with these settings, which contain its port; stop() ends it, too."""
        self._wait(
            StartingPart(self.gateway.name, (self.gateway.start(settings),), self.gateway.is_ready), START_TIMEOUT_S
        )

    def kill_kafka(self) -> None:
        """Kill the broker as a crash would; start_kafka() restarts it on the same port with its data."""
        self._kill(self.kafka.name)

    def start_kafka(self) -> None:
        """Start the broker again after kill_kafka()."""
        self._wait(StartingPart(self.kafka.name, (self.kafka.start(),), self.kafka.is_ready), START_TIMEOUT_S)

    def ended(self) -> list[str]:
        """The names of the started parts that have ended by themselves."""
        return [record.name for record in self.processes() if not record.is_running()]

    def restart(self, names: Sequence[str]) -> list[str]:
        """Restart Kafka, Redis and the gateway with their ports and data; returns the names of other parts.

        Flink's processes are not restarted: a new JobManager would have no jobs, and a running one replaces its
        TaskManagers.
        """
        begin: dict[str, Callable[[], None]] = {
            self.kafka.name: self.start_kafka,
            self.redis.name: self.start_redis,
            self.gateway.name: lambda: self.start_gateway(self.directory / "gateway.toml"),
        }
        with self._exclusively():
            for name in [name for name in begin if name in names]:
                begin[name]()
                self._report(f"{name} had ended and runs again, with its data")
        return [name for name in names if name not in begin]

    def processes(self) -> list[ProcessRecord]:
        """All recorded processes, whether running or not."""
        return self._table.records()

    def python_workers(self) -> list[int]:
        """Process ids of Flink's Python workers (thread mode has none)."""
        return [process.pid for process in self._table.unrecorded()]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _begin_empty(self) -> None:
        self._forget_data()
        self.endpoints_path.unlink(missing_ok=True)
        shutil.rmtree(self.directory / "log", ignore_errors=True)
        (self.directory / "tmp").mkdir()
        write_atomically(self.directory / "run" / "ports", json.dumps(self._ports) + "\n")

    def _forget_data(self) -> None:
        for name in _DATA:
            shutil.rmtree(self.directory / name, ignore_errors=True)
        (self.directory / "run" / "ports").unlink(missing_ok=True)

    def _start_parts(self) -> None:
        begun = time.monotonic()
        self.flink.prepare()
        redis = StartingPart("redis", (self.redis.start(),), self.redis.is_ready)
        kafka = StartingPart("kafka", (self.kafka.start(),), self.kafka.is_ready)
        waiting = [redis, kafka, self._begin_flink()]
        until(
            lambda: self._all_ready(waiting, begun), "the stack", START_TIMEOUT_S, 0.05, lambda: self._missing(waiting)
        )

    def _begin_flink(self) -> StartingPart:
        manager = self.flink.start_job_manager()
        workers = tuple(self.flink.add_task_manager() for _ in range(self._task_managers))
        return StartingPart(f"flink with {len(workers)} TaskManager(s)", (manager, *workers), self._flink_is_ready)

    def _all_ready(self, waiting: list[StartingPart], begun: float) -> bool:
        for part in list(waiting):
            if self._is_ready(part):
                waiting.remove(part)
                self._report(f"{part.name}: ready after {time.monotonic() - begun:.1f} s")
        return not waiting

    def _is_ready(self, part: StartingPart) -> bool:
        for record in part.records:
            self._table.check_running(record)
        return part.is_ready()

    def _missing(self, waiting: list[StartingPart]) -> str:
        return "\n".join(f"{part.name} is not ready; log: {part.records[-1].log}" for part in waiting)

    def _wait(self, part: StartingPart, timeout_s: float) -> None:
        until(lambda: self._is_ready(part), part.name, timeout_s, 0.05, lambda: self._missing([part]))

    def _flink_is_ready(self) -> bool:
        return self.rest.is_up() and len(self.rest.task_managers()) >= self._task_managers

    def _kill(self, name: str) -> None:
        record = self._table.record(name)
        if record is not None:
            self._table.kill(record)

    def _end_all(self, grace_s: float) -> None:
        self._table.end(self._table.records(), grace_s)
        end_processes(self._table.unrecorded(), min(grace_s, 1))

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        """Allow one start() at a time per directory; the lock is released when this process ends."""
        lock = self.directory / "run" / "lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("w") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StackError(f"another start is under way below {self.directory}") from error
            yield


_PORTS = ("kafka", "kafka_controller", "redis", "flink_rpc", "flink_rest", "gateway")


def is_up(directory: Path) -> bool:
    """Whether a stack runs below this directory (or is starting, or was only partly ended)."""
    return any(record.is_running() for record in ProcessTable(directory).records())


def _read_ports(directory: Path) -> dict[str, int] | None:
    file = directory / "run" / "ports"
    return json.loads(file.read_text()) if is_up(directory) and file.exists() else None
