"""The job in Flink's application mode with high availability: the JobManager runs `main()` at each of its starts.

ZooKeeper, which is part of flink-dist, keeps what a JobManager needs to recover the job.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.local import flink_libraries
from deploy.local.flink import FlinkCluster
from deploy.local.flink_jvm import memory_arguments
from deploy.local.java import Java
from deploy.local.ports import LOOPBACK, free_port, is_listening
from deploy.local.processes import ProcessRecord, ProcessTable
from deploy.package import build
from jobs.locations import location_of
from tests.support.live import until

_ZOOKEEPER = "org.apache.flink.runtime.zookeeper.FlinkZooKeeperQuorumPeer"
_APPLICATION = "org.apache.flink.container.entrypoint.StandaloneApplicationClusterEntryPoint"
_MEMORY = "GET_JM_RESOURCE_PARAMS"


class ApplicationCluster(FlinkCluster):
    """One JobManager, which may be killed and started again, and TaskManagers."""

    def __init__(self, table: ProcessTable, java: Java, zookeeper: int, settings: dict[str, str]) -> None:
        data = table.directory / "flink"
        recovery = {
            "high-availability.type": "zookeeper",
            "high-availability.zookeeper.quorum": f"{LOOPBACK}:{zookeeper}",
            "high-availability.storageDir": location_of(data / "recovery"),
            "high-availability.jobmanager.port": "0",
            # A killed JobManager leads until its session has ended.
            "high-availability.zookeeper.client.session-timeout": "6000",
        }
        super().__init__(table, java, free_port(), free_port(), {**recovery, **settings})
        self._zookeeper = zookeeper
        self._starts = 0

    def start_zookeeper(self) -> None:
        """Start ZooKeeper, and wait until it listens."""
        folder = self._directory / "zookeeper"
        folder.mkdir(parents=True)
        config = folder / "zoo.cfg"
        ports = f"{free_port()}:{free_port()}"
        config.write_text(
            f"tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir={folder}\nclientPort={self._zookeeper}\n"
            f"clientPortAddress={LOOPBACK}\nadmin.enableServer=false\nserver.1={LOOPBACK}:{ports}\n"
        )
        words = [_ZOOKEEPER, "--zkConfigFile", str(config), "--peerId", "1"]
        log = self._directory / "zookeeper.log"
        command = self._command("zookeeper", ["-Xmx128m"], log, "log4j-console.properties", words)
        self._table.start("zookeeper", command, self.environment())
        until(lambda: is_listening(self._zookeeper), "ZooKeeper")

    def start_application(self, package: Path, settings: Path, options: tuple[str, ...] = ()) -> ProcessRecord:
        """Start a JobManager that runs the job with these settings; `options` are Flink's own."""
        self._starts += 1
        flags, dynamic = memory_arguments(self._java, self._conf / "config.yaml", flink_libraries.classpath(), _MEMORY)
        name = f"{self.job_manager}-{self._starts}"
        words = [_APPLICATION, "--configDir", str(self._conf), *dynamic]
        words += ["--job-classname", "org.apache.flink.client.python.PythonDriver", *options]
        words += ["-pyfs", str(package), "-pyexec", sys.executable, "-pyclientexec", sys.executable]
        words += ["-pym", "jobs.personalise", "--settings", str(settings)]
        options_of_java = [*flags, "-Dconsole.log.level=OFF"]
        log = Path("log", f"{name}.log")
        command = self._command("jobmanager", options_of_java, log, "log4j-console.properties", words)
        return self._table.start(name, command, self.environment())

    def kill(self, record: ProcessRecord) -> None:
        """Kill a JobManager as a crash would."""
        self._table.kill(record)

    def said(self, record: ProcessRecord) -> str:
        """What the JobManager and its `main()` printed and logged."""
        logs = (Path(record.log), Path(record.log).with_suffix(".log"))
        return "".join(log.read_text(errors="replace") for log in logs if log.exists())

    def running_job(self) -> str | None:
        """The id of the job, if all its tasks run."""
        for job in self.rest.overview() if self.rest.is_up() else ():
            if job["state"] == "RUNNING" and 0 < job["tasks"]["total"] == job["tasks"]["running"]:
                return str(job["jid"])
        return None


@contextmanager
def application_cluster(directory: Path, settings: dict[str, str]) -> Iterator[tuple[ApplicationCluster, Path]]:
    """A cluster with one TaskManager and no JobManager yet, and the packaged job."""
    (directory / "tmp").mkdir(parents=True)
    table = ProcessTable(directory)
    cluster = ApplicationCluster(table, Java(directory / "tmp", False), free_port(), settings)
    try:
        cluster.prepare()
        cluster.start_zookeeper()
        cluster.add_task_manager()
        yield cluster, build(directory / "freshet.zip")
    finally:
        table.end(table.records(), 2)
