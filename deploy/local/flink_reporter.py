"""Flink's Prometheus reporter in the local stack: on loopback only, each process on a free port of its own.

The reporter listens on all addresses, and cannot be told otherwise. Java takes its HTTP servers from the class that a
system property names: `LoopbackHttpProvider.java` is compiled when it is first needed, and then kept.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from deploy.local.errors import StackError
from deploy.local.files import write_atomically
from deploy.local.java import ENVIRONMENT
from deploy.local.paths import CACHE
from deploy.local.ports import LOOPBACK, free_port

SOURCE: Final = Path(__file__).with_name("LoopbackHttpProvider.java")
EXPORTS: Final = "jdk.httpserver/sun.net.httpserver=ALL-UNNAMED"
OPTIONS: Final = (f"-Dcom.sun.net.httpserver.HttpServerProvider={SOURCE.stem}", f"--add-exports={EXPORTS}")
"""Of the JVM, with :func:`jar` in its class path."""
SWITCHED_ON: Final = {"metrics.reporters": "prometheus"}
"""The setting of a stack with metrics."""


def is_on(settings: Mapping[str, str]) -> bool:
    """Whether the processes of a cluster with these settings serve metrics."""
    return settings.items() >= SWITCHED_ON.items()


def jar() -> Path:
    """The jar with the class. Raises :class:`StackError` if it cannot be compiled."""
    found = CACHE / f"loopback-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]}.jar"
    if not found.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE, prefix="loopback-") as directory:
            _compile(Path(directory))
            draft = Path(directory) / "draft.jar"
            with zipfile.ZipFile(draft, "w") as archive:
                archive.write(Path(directory) / f"{SOURCE.stem}.class", f"{SOURCE.stem}.class")
            draft.replace(found)
    return found


def place_port(directory: Path, name: str) -> list[str]:
    """The words for process `name` of Flink that give its reporter a free port, which is written to `directory`."""
    port = free_port()
    write_atomically(directory / f"{name}.metrics", str(port))
    return ["-D", f"metrics.reporter.prometheus.port={port}"]


def addresses(directory: Path) -> dict[str, str]:
    """Where each process serves metrics: `metrics-<name>` and its URL."""
    found = sorted(directory.glob("*.metrics"))
    return {f"metrics-{file.stem}": f"http://{LOOPBACK}:{file.read_text()}/metrics" for file in found}


def _compile(directory: Path) -> None:
    javac = shutil.which("javac")
    if javac is None:
        raise StackError("javac is not on PATH; install the JDK of Java 17")
    command = [javac, "-nowarn", "-XDignore.symbol.file", "--add-exports", EXPORTS, "-d", str(directory), str(SOURCE)]
    # Java reads file names as the locale says.
    environment = {**os.environ, **ENVIRONMENT}
    done = subprocess.run(
        command, env=environment, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    if done.returncode:
        raise StackError(f"{SOURCE.name} cannot be compiled: {done.stderr.strip()}")
