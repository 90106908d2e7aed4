"""A Flink session cluster from the pip package: one JobManager and any number of TaskManagers with one slot each.

Java is started directly, with the memory flags that Flink's own BashJavaUtils computes from config.yaml: the scripts in
pyflink/bin start three additional JVMs per process, which take most of the startup time.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from adapters.flink.rest import FlinkRest
from deploy.local import flink_config, flink_libraries, flink_reporter
from deploy.local.errors import SubmitError
from deploy.local.files import tail, write_atomically
from deploy.local.flink_jvm import memory_arguments
from deploy.local.flink_libraries import FLINK_HOME
from deploy.local.java import Java
from deploy.local.paths import FLINK_CONF, LOG4J, SUPERVISE
from deploy.local.ports import LOOPBACK
from deploy.local.processes import ProcessRecord, ProcessTable
from schemas.log_lines import LogFormat

_JOB_MANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
_TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
_CLIENT = "org.apache.flink.client.cli.CliFrontend"
CONSOLE = "log4j-console.properties"
"""Where Flink's processes look for the settings of their log when they run in a container, and here."""
_JOB_ID = re.compile(r"Job has been submitted with JobID ([0-9a-f]{32})")


class FlinkCluster:
    """Call order: prepare(), start_job_manager() and add_task_manager() in any order, then wait on rest."""

    job_manager = "jobmanager"

    def __init__(
        self,
        table: ProcessTable,
        java: Java,
        rpc_port: int,
        rest_port: int,
        settings: Mapping[str, str],
        log_format: LogFormat = "text",
    ) -> None:
        self._table = table
        self._java = java
        self._directory = table.directory / "flink"
        self._conf = self._directory / "conf"
        self._settings = settings
        self._log_format = log_format
        self.rpc_port = rpc_port
        self.rest_port = rest_port
        self.rest = FlinkRest(self.url)

    @property
    def url(self) -> str:
        """The address of the REST interface and of the web interface."""
        return f"http://{LOOPBACK}:{self.rest_port}"

    def prepare(self) -> None:
        """Create the configuration and the library directory that the processes read."""
        for name in ("conf", "checkpoints", "savepoints"):
            (self._directory / name).mkdir(parents=True, exist_ok=True)
        place = flink_config.place_settings(self._table.directory, self.rpc_port, self.rest_port, sys.executable)
        text = flink_config.render(FLINK_CONF.read_text(encoding="utf-8"), {**place, **self._settings})
        write_atomically(self._conf / "config.yaml", text)
        for stock in (FLINK_HOME / "conf").glob("log4j*.properties"):
            shutil.copyfile(stock, self._conf / stock.name)
        shutil.copyfile(LOG4J / f"log4j-{self._log_format}.properties", self._conf / CONSOLE)

    def start_job_manager(self) -> ProcessRecord:
        """Start the JobManager; it is ready when rest.is_up() returns true."""
        return self._start("jobmanager", self.job_manager, _JOB_MANAGER, "GET_JM_RESOURCE_PARAMS")

    def add_task_manager(self) -> ProcessRecord:
        """Start one more TaskManager, with an unused number, so that each log belongs to one process."""
        logs = (self._table.directory / "log").glob("taskmanager-*.out")
        number = 1 + max((int(log.stem.partition("-")[2]) for log in logs), default=0)
        name = f"taskmanager-{number}"
        return self._start("taskmanager", name, _TASK_MANAGER, "GET_TM_RESOURCE_PARAMS", supervised=True)

    def metrics(self) -> dict[str, str]:
        """Where each process serves metrics to Prometheus, if the settings switch its reporter on."""
        return flink_reporter.addresses(self._conf)

    def task_managers(self) -> list[ProcessRecord]:
        """The running TaskManagers."""
        records = self._table.records()
        return [record for record in records if record.name.startswith("taskmanager-") and record.is_running()]

    def run(self, arguments: list[str], environment: Mapping[str, str], timeout_s: float) -> str:
        """`flink run -d <arguments>` against this cluster; returns the job's id. Raises SubmitError."""
        log = self._table.directory / "log" / "client.log"
        target = ["run", "-d", "-m", f"{LOOPBACK}:{self.rest_port}", *arguments]
        command = self._command("client", [], log, "log4j-cli.properties", [_CLIENT, *target])
        environment = self._table.environment({**self.environment(), **environment})
        try:
            done = subprocess.run(
                command,
                env=environment,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise SubmitError(f"flink run did not end within {timeout_s:g} s:\n{_last(error.output)}") from error
        submitted = _JOB_ID.search(done.stdout)
        if done.returncode != 0 or submitted is None:
            # The job's own traceback is in one of them, Flink's reason in the other.
            output = "\n".join(filter(None, (_last(done.stdout), _last(done.stderr)))) or tail(log)
            raise SubmitError(f"flink run failed ({done.returncode}):\n{output}\nLog: {log}")
        return submitted.group(1)

    def environment(self) -> dict[str, str]:
        """The environment of Flink's processes, its client and its Python workers."""
        # Thread mode looks for pemja with the `python` that is first on PATH, whatever python.executable says.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        return {
            "PATH": path,
            "FLINK_HOME": str(FLINK_HOME),
            "FLINK_BIN_DIR": str(FLINK_HOME / "bin"),
            "FLINK_CONF_DIR": str(self._conf),
            "FLINK_LIB_DIR": str(flink_libraries.directory()),
            "FLINK_OPT_DIR": str(FLINK_HOME / "opt"),
            "FLINK_PLUGINS_DIR": str(FLINK_HOME / "plugins"),
            # Temporary files of Python functions and workers are deleted with the stack.
            "TMPDIR": str(self._table.directory / "tmp"),
            "FLINK_LOG_DIR": str(self._table.directory / "log"),
        }

    def _start(self, role: str, name: str, main: str, memory_command: str, supervised: bool = False) -> ProcessRecord:
        config, libraries = self._conf / "config.yaml", flink_libraries.classpath()
        flags, dynamic = memory_arguments(self._java, config, libraries, memory_command)
        # Relative to the working directory: Log4j would interpret `%` and `${` in the full path as its own patterns.
        log = Path("log", f"{name}.log")
        serves = flink_reporter.is_on(self._settings)
        ports = flink_reporter.place_port(self._conf, name) if serves else []
        words = [main, "--configDir", str(self._conf), *dynamic, *ports]
        # The console would repeat the log file; .out contains only what the JVM and Python functions print.
        options = [*flags, "-Dconsole.log.level=OFF", *(flink_reporter.OPTIONS if serves else ())]
        command = self._command(role, options, log, CONSOLE, words, [flink_reporter.jar()] if serves else [])
        if supervised:
            words_file = self._directory / "conf" / f"{name}.json"
            write_atomically(words_file, json.dumps(command))
            command = [sys.executable, "-P", str(SUPERVISE), str(words_file)]
        return self._table.start(name, command, self.environment())

    def _command(
        self, role: str, options: list[str], log: Path, logging: str, words: list[str], appended: Sequence[Path] = ()
    ) -> list[str]:
        settings = flink_config.read_flat((self._conf / "config.yaml").read_text())
        configured = [json.loads(settings.get(f"env.java.opts.{name}", '""')) for name in ("all", role)]
        logged = [f"-Dlog.file={log}", f"-Dlog4j.configurationFile={(self._conf / logging).as_uri()}"]
        all_options = [*options, *" ".join(configured).split(), *logged]
        return self._java.command(role, flink_libraries.classpath(), all_options, words, appended)


def _last(output: str | bytes | None, lines: int = 30) -> str:
    text = output.decode(errors="replace") if isinstance(output, bytes) else output or ""
    return "\n".join(text.splitlines()[-lines:])
