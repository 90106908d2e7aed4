"""The gateway, loopback only."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from pathlib import Path

from deploy.local.paths import ROOT
from deploy.local.ports import LOOPBACK
from deploy.local.processes import ProcessRecord, ProcessTable


class GatewayServer:
    """`freshet gateway run`, which starts when it is told with which settings."""

    name = "gateway"

    def __init__(self, table: ProcessTable, port: int) -> None:
        self._table = table
        self.port = port

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{LOOPBACK}:{self.port}"

    def start(self, settings: Path) -> ProcessRecord:
        """Start it; it is ready when is_ready() says so."""
        command = [sys.executable, "-m", "freshet", "gateway", "run", "--settings", str(settings)]
        return self._table.start(self.name, command, {"PYTHONPATH": str(ROOT)})

    def is_ready(self) -> bool:
        """Whether it takes requests."""
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=1) as answer:  # noqa: S310 - our own address
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False
