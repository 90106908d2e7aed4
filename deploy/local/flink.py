"""A Flink session cluster from the pip package: one JobManager, any number of TaskManagers with one slot each.

Java is started directly, with the memory flags that Flink's own BashJavaUtils computes from config.yaml: the scripts
below pyflink/bin start three more Java machines for each process, which is most of the time that they take.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pyflink

from deploy.local import flink_config
from deploy.local.errors import JarError, StackError, SubmitError
from deploy.local.files import tail, write_atomically
from deploy.local.flink_jvm import memory_arguments
from deploy.local.flink_rest import FlinkRest
from deploy.local.paths import FLINK_CONF, JARS
from deploy.local.ports import LOOPBACK
from deploy.local.processes import ProcessRecord, ProcessTable

FLINK_HOME = Path(pyflink.__file__).parent
_JOB_MANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
_TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
_CLIENT = "org.apache.flink.client.cli.CliFrontend"
_JOB_ID = re.compile(r"Job has been submitted with JobID ([0-9a-f]{32})")


class FlinkCluster:
    """Call order: prepare(), start_job_manager() and add_task_manager() in any order, then wait on rest."""

    def __init__(self, table: ProcessTable, rpc_port: int, rest_port: int, settings: Mapping[str, str]) -> None:
        self._table = table
        self._directory = table.directory / "flink"
        self._conf = self._directory / "conf"
        self._lib = self._directory / "lib"
        self._settings = settings
        self.rpc_port = rpc_port
        self.rest_port = rest_port
        self.rest = FlinkRest(LOOPBACK, rest_port)

    @property
    def url(self) -> str:
        """The address of the REST interface and of the web interface."""
        return f"http://{LOOPBACK}:{self.rest_port}"

    def prepare(self) -> None:
        """Lay out the configuration and the library directory that the processes read."""
        for name in ("conf", "lib", "tmp", "checkpoints", "savepoints"):
            (self._directory / name).mkdir(parents=True, exist_ok=True)
        place = flink_config.place_settings(self._table.directory, self.rpc_port, self.rest_port, sys.executable)
        text = flink_config.render(FLINK_CONF.read_text(), {**place, **self._settings})
        write_atomically(self._conf / "config.yaml", text)
        for stock in (FLINK_HOME / "conf").glob("log4j*.properties"):
            shutil.copyfile(stock, self._conf / stock.name)
        self._link_libraries()

    def start_job_manager(self) -> ProcessRecord:
        """Start the JobManager; it is ready when rest.is_up() says so."""
        return self._start("jobmanager", "jobmanager", _JOB_MANAGER, "GET_JM_RESOURCE_PARAMS")

    def add_task_manager(self) -> ProcessRecord:
        """Start one more TaskManager, under a number that none has had, so that each log tells of one process."""
        logs = (self._table.directory / "log").glob("taskmanager-*.out")
        number = 1 + max((int(log.stem.partition("-")[2]) for log in logs), default=0)
        return self._start("taskmanager", f"taskmanager-{number}", _TASK_MANAGER, "GET_TM_RESOURCE_PARAMS")

    def task_managers(self) -> list[ProcessRecord]:
        """The running TaskManagers."""
        records = self._table.records()
        return [record for record in records if record.name.startswith("taskmanager-") and record.is_running()]

    def run(self, arguments: list[str], environment: Mapping[str, str], timeout_s: float) -> str:
        """`flink run -d <arguments>` against this cluster; gives the job's id. Raises SubmitError."""
        log = self._table.directory / "log" / "client.log"
        target = ["run", "-d", "-m", f"{LOOPBACK}:{self.rest_port}", *arguments]
        command = self._java(self._java_options("client"), log, "log4j-cli.properties", [_CLIENT, *target])
        environment = self._table.environment({**self.environment(), **environment})
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise SubmitError(f"flink run did not end within {timeout_s:g} s:\n{_last(error.output)}") from error
        submitted = _JOB_ID.search(done.stdout)
        if done.returncode != 0 or submitted is None:
            output = _last(done.stdout + done.stderr)
            raise SubmitError(f"flink run failed ({done.returncode}):\n{output}\n{tail(log)}\nLog: {log}")
        return submitted.group(1)

    def environment(self) -> dict[str, str]:
        """What Flink's processes, its client and its Python workers need to know."""
        # Thread mode looks for pemja with the `python` that is first on PATH, whatever python.executable says.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        return {
            "PATH": path,
            "FLINK_HOME": str(FLINK_HOME),
            "FLINK_BIN_DIR": str(FLINK_HOME / "bin"),
            "FLINK_CONF_DIR": str(self._conf),
            "FLINK_LIB_DIR": str(self._lib),
            "FLINK_OPT_DIR": str(FLINK_HOME / "opt"),
            "FLINK_PLUGINS_DIR": str(FLINK_HOME / "plugins"),
            "FLINK_LOG_DIR": str(self._table.directory / "log"),
        }

    def _start(self, role: str, name: str, main: str, memory_command: str) -> ProcessRecord:
        flags, dynamic = memory_arguments(self._conf / "config.yaml", self._lib, memory_command)
        log = self._table.directory / "log" / f"{name}.log"
        # The console would repeat the log file; .out is left for what the JVM and Python functions print.
        options = [*flags, *self._java_options(role), "-Dconsole.log.level=OFF"]
        arguments = ["--configDir", str(self._conf), *dynamic]
        command = self._java(options, log, "log4j-console.properties", [main, *arguments])
        return self._table.start(name, command, self.environment())

    def _java_options(self, role: str) -> list[str]:
        settings = flink_config.read_flat((self._conf / "config.yaml").read_text())
        options = [json.loads(settings.get(f"env.java.opts.{name}", '""')) for name in ("all", role)]
        return " ".join(options).split()

    def _java(self, options: list[str], log: Path, logging: str, words: list[str]) -> list[str]:
        java = shutil.which("java")
        if java is None:
            raise StackError("java is not on PATH; install Java 17")
        log_options = [f"-Dlog.file={log}", f"-Dlog4j.configurationFile={(self._conf / logging).as_uri()}"]
        # Flink's own scripts put flink-dist last, so that the connectors come first.
        jars = sorted(self._lib.glob("*.jar"), key=lambda jar: (jar.name.startswith("flink-dist"), jar.name))
        classpath = ":".join(str(jar) for jar in jars)
        return [java, *options, *log_options, "-classpath", classpath, *words]

    def _link_libraries(self) -> None:
        connector = list((JARS / "flink").glob("*.jar"))
        if not connector:
            raise JarError("the Kafka connector is not here yet; run `make setup`")
        # The Python jar belongs here and not to the job: a job that brings it along loads pemja's library into a class
        # loader of its own, and the second such job in the same TaskManager fails.
        for jar in [*(FLINK_HOME / "lib").glob("*.jar"), *(FLINK_HOME / "opt").glob("flink-python*.jar"), *connector]:
            link = self._lib / jar.name
            link.unlink(missing_ok=True)
            link.symlink_to(jar)


def _last(output: str | bytes | None, lines: int = 30) -> str:
    text = output.decode(errors="replace") if isinstance(output, bytes) else output or ""
    return "\n".join(text.splitlines()[-lines:])
