"""One Kafka broker (KRaft, broker and controller in one), loopback only, from plain jars."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from deploy.local.errors import JarError, StackError
from deploy.local.escaping import properties_of
from deploy.local.java import ENVIRONMENT, Java
from deploy.local.paths import CACHE, JARS, KAFKA_LOG4J
from deploy.local.ports import LOOPBACK, free_port, is_listening
from deploy.local.processes import ProcessRecord, ProcessTable

# Any id will do: it names a cluster of one broker whose data is in one directory.
_CLUSTER_ID = "ZnJlc2hldC1sb2NhbC0wMQ"

# In such a small broker, the C2 compiler takes a core for the first seconds and gains little.
_JAVA_OPTIONS = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", f"-Dlog4j2.configurationFile={KAFKA_LOG4J.as_uri()}")


class KafkaBroker:
    """Starts empty or with existing data; ready once an admin client gets a response."""

    name = "kafka"

    def __init__(
        self,
        table: ProcessTable,
        java: Java,
        port: int,
        controller_port: int,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        """`properties` extend or override the broker's default properties."""
        self._table = table
        self._java = java
        self.port = port
        self._controller_port = controller_port
        self._directory = table.directory / "kafka"
        self._more = dict(properties or {})

    @property
    def bootstrap_servers(self) -> str:
        """The address in the form used by Kafka clients."""
        return f"{LOOPBACK}:{self.port}"

    def add_listener(self, protocol: str, settings: Mapping[str, str]) -> str:
        """Listen with `protocol` (such as SASL_SSL) in addition to the plain listener, from the next start() on.

        `settings` are the listener's, without their prefix. Returns the listener's address.
        """
        address = f"{LOOPBACK}:{free_port()}"
        plain = _properties(self.port, self._controller_port, self._directory)
        self._more |= {f"listener.name.secured.{name}": value for name, value in settings.items()}
        self._more |= {name: f"{plain[name]},SECURED://{address}" for name in ("listeners", "advertised.listeners")}
        protocols = "listener.security.protocol.map"
        self._more[protocols] = f"{plain[protocols]},SECURED:{protocol}"
        return address

    def advertise(self, port: int) -> None:
        """Advertise this port of this machine, where a proxy listens, to clients, from the next start() on."""
        self._more["advertised.listeners"] = f"PLAINTEXT://{LOOPBACK}:{port}"

    def start(self) -> ProcessRecord:
        """Start the broker on formatted storage; it is ready when is_ready() returns true."""
        data = self._directory / "data"
        if not data.exists():
            shutil.copytree(_formatted_storage(self._java), data)
        properties = self._directory / "server.properties"
        properties.write_bytes(properties_of({**_properties(self.port, self._controller_port, data), **self._more}))
        options = ["-Xms256m", "-Xmx512m", *_JAVA_OPTIONS]
        command = self._java.command(self.name, _jars(), options, ["kafka.Kafka", str(properties)])
        return self._table.start(self.name, command, {})

    def is_ready(self) -> bool:
        """Whether the broker responds to an admin client."""
        if not is_listening(self.port):
            return False
        try:
            client = KafkaAdminClient(bootstrap_servers=self.bootstrap_servers, request_timeout_ms=2000)
        except (KafkaError, OSError, ValueError):
            return False
        try:
            return bool(client.describe_cluster().get("brokers"))
        except (KafkaError, OSError, ValueError):
            return False
        finally:
            client.close()


def _properties(port: int, controller_port: int, data: Path) -> dict[str, str]:
    address, controller = f"{LOOPBACK}:{port}", f"{LOOPBACK}:{controller_port}"
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{controller}",
        "listeners": f"PLAINTEXT://{address},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{address}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(data),
        # The defaults are three and eight threads: with few cores they would only take turns.
        "num.network.threads": "1",
        "num.io.threads": "2",
        # A misspelt topic must be an error, and the order across topics is the order of appends.
        "auto.create.topics.enable": "false",
        "log.message.timestamp.type": "LogAppendTime",
        # One broker has no replicas, and few partitions of the internal topics make the first commit fast.
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "1",
        # The job's transactions must stay open while it is down, for as long as a snapshot may be restored: a week. The
        # default is 15 minutes.
        "transaction.max.timeout.ms": "604800000",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
    }


def _formatted_storage(java: Java) -> Path:
    """An empty storage directory for the broker, created once for each version and then copied.

    Formatting writes a few hundred bytes, does not depend on ports and starts a JVM.
    """
    version = next(iter((JARS / "kafka").glob("kafka_*.jar")), Path("none")).stem
    kept = CACHE / f"storage-{version}"
    if not (kept / "meta.properties").exists():
        draft = CACHE / f".storage-{os.getpid()}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        properties = draft.with_suffix(".properties")
        properties.write_bytes(properties_of(_properties(9092, 9093, draft)))
        tool = ["kafka.tools.StorageTool", "format", "--cluster-id", _CLUSTER_ID, "--config", str(properties)]
        command = java.command("format", _jars(), _JAVA_OPTIONS, tool)
        done = subprocess.run(
            command, env={**os.environ, **ENVIRONMENT}, check=False, capture_output=True, encoding="utf-8"
        )
        if done.returncode != 0:
            raise StackError(f"formatting Kafka's storage failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        properties.unlink()
        shutil.rmtree(kept, ignore_errors=True)
        draft.rename(kept)
    return kept


def _jars() -> list[Path]:
    jars = sorted((JARS / "kafka").glob("*.jar"))
    if not jars:
        raise JarError("Kafka's jars are not installed yet; run `make setup`")
    return jars
