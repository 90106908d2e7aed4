"""What logs are shipped to: a real OpenSearch, a listener for GELF; and syslog-ng, which ships them."""

import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.waiting import until
from deploy.local.errors import JarError
from deploy.local.fetch_jars import run_maven
from deploy.local.paths import LOCAL, LOG4J
from deploy.local.ports import LOOPBACK, free_port

SOURCES = Path(__file__).with_name("opensearch")
JARS = LOCAL / "opensearch"
START_S = 120


def syslog_ng() -> str:
    """The command; without it, the test that wants it says that it did not run."""
    found = shutil.which("syslog-ng", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.skip("syslog-ng is not installed (Debian: syslog-ng-core, syslog-ng-mod-http): no log was shipped")
    return found


def opensearch_jars() -> Path:
    """The folder with the jars of OpenSearch, from Maven."""
    if not (JARS / ".complete").exists():
        try:
            run_maven(["-q", "-f", str(SOURCES / "pom.xml"), "package", f"-Djars.directory={JARS}"])
        except JarError as error:
            pytest.skip(f"OpenSearch could not be fetched, no log was shipped: {error}")
        (JARS / ".complete").touch()
    return JARS


@contextmanager
def opensearch(folder: Path) -> Iterator[httpx.Client]:
    """A client of a node of its own."""
    port = free_port()
    (folder / "config").mkdir(parents=True)
    command = [
        "java",
        "-Xmx512m",
        "-Dlog4j2.level=ERROR",
        "-cp",
        f"{opensearch_jars()}/*",
        str(SOURCES / "OsNode.java"),
    ]
    with (folder / "opensearch.log").open("w") as log:
        process = subprocess.Popen([*command, str(folder), str(port), str(free_port())], stdout=log, stderr=log)
        try:
            with httpx.Client(base_url=f"http://{LOOPBACK}:{port}", timeout=30) as client:
                until(lambda: process.poll() is not None or is_up(client), "OpenSearch", START_S)
                assert process.poll() is None, (folder / "opensearch.log").read_text()
                yield client
        finally:
            process.kill()
            process.wait()


def is_up(client: httpx.Client) -> bool:
    try:
        return client.get("/_cluster/health").json()["status"] in ("green", "yellow")
    except (httpx.TransportError, ValueError, KeyError):
        return False


class GelfListener:
    """An input "GELF TCP": each message is a JSON object that ends with a null byte."""

    def __init__(self) -> None:
        self._listening = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listening.getsockname()[1]
        self.messages: list[dict[str, Any]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._read, args=(peer,), daemon=True).start()

    def _read(self, peer: socket.socket) -> None:
        rest = b""
        while received := peer.recv(1 << 16):
            *whole, rest = (rest + received).split(b"\0")
            self.messages += [json.loads(message) for message in whole]

    def close(self) -> None:
        self._listening.close()


@contextmanager
def shipped(logs: Path, state: Path, opensearch_url: str, gelf_port: int) -> Iterator[None]:
    """Ship the files below `logs`, with `deploy/logs/syslog-ng.conf` as it is."""
    state.mkdir()
    places = {
        "LOG_DIR": str(logs),
        "OPENSEARCH_URL": opensearch_url,
        "GELF_HOST": LOOPBACK,
        "GELF_PORT": str(gelf_port),
    }
    files = {"--persist-file": "persist", "--pidfile": "pid", "--control": "control"}
    command = [syslog_ng(), "-F", "--no-caps", "--stderr", "-f", str(LOG4J / "syslog-ng.conf")]
    command += [f"{option}={state / name}" for option, name in files.items()]
    with (state / "syslog-ng.out").open("w") as out:
        process = subprocess.Popen(command, env={**os.environ, **places}, stdout=out, stderr=out, cwd=state)
        try:
            yield
            assert process.poll() is None, (state / "syslog-ng.out").read_text()
        finally:
            process.terminate()
            process.wait(30)
