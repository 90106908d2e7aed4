"""The repository's flink-conf.yaml, and the settings that each stack adds to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from deploy.local.errors import StackError
from deploy.local.ports import LOOPBACK
from jobs.locations import location_of


def read_flat(text: str) -> dict[str, str]:
    """The settings of a file with one flat `key: value` per line. Nesting is rejected: a key must have one spelling.

    >>> read_flat("# why\\nheartbeat.timeout: 8 s\\n")
    {'heartbeat.timeout': '8 s'}
    """
    settings: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        key, colon, value = line.partition(": ")
        if not colon or key != key.strip() or not value.strip():
            raise StackError(f"flink-conf.yaml line {number}: expected a flat `key: value`, found {line!r}")
        if key in settings:
            raise StackError(f"flink-conf.yaml line {number}: {key} is set twice")
        settings[key] = value.strip()
    return settings


def render(defaults: str, overrides: Mapping[str, str]) -> str:
    """config.yaml: the defaults, with the overrides in place of the corresponding defaults.

    >>> render("a.b: 1\\nc: 2", {"c": "3 s"})
    'a.b: "1"\\nc: "3 s"\\n'
    """
    settings = {**read_flat(defaults), **overrides}
    # A JSON string is a YAML string, so no value can be misinterpreted.
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items())


def place_settings(directory: Path, rpc_port: int, rest_port: int, python: str) -> dict[str, str]:
    """Settings that depend on the location: everything listens on loopback and lies below the stack's directory."""
    data = directory / "flink"
    return {
        "jobmanager.rpc.address": LOOPBACK,
        "jobmanager.rpc.port": str(rpc_port),
        "jobmanager.bind-host": LOOPBACK,
        "taskmanager.host": LOOPBACK,
        "taskmanager.bind-host": LOOPBACK,
        # 0 lets the system choose; the JobManager informs the rest of the cluster.
        "taskmanager.rpc.port": "0",
        "taskmanager.data.port": "0",
        "blob.server.port": "0",
        "metrics.internal.query-service.port": "0",
        # `freshet up` switches Prometheus' on (flink_reporter.py); the REST interface has the same metrics.
        "metrics.reporters": "none",
        "rest.address": LOOPBACK,
        "rest.bind-address": LOOPBACK,
        "rest.port": str(rest_port),
        "rest.bind-port": str(rest_port),
        "execution.checkpointing.dir": location_of(data / "checkpoints"),
        "execution.checkpointing.savepoint-dir": location_of(data / "savepoints"),
        "io.tmp.dirs": str(directory / "tmp"),
        # They live for seconds or have little to do, or share two cores with everything else: the second compiler would
        # take a core of it for minutes, and most of a TaskManager's work is Python's.
        "env.java.opts.client": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "env.java.opts.jobmanager": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "env.java.opts.taskmanager": "-XX:TieredStopAtLevel=1 -XX:+UseParallelGC",
        "python.executable": python,
        "python.client.executable": python,
    }
