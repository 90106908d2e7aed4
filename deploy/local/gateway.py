"""The gateway, on loopback only."""

from __future__ import annotations

import sys
from http import HTTPStatus
from pathlib import Path

from adapters.http_client import HttpClient
from deploy.local.paths import ROOT
from deploy.local.ports import LOOPBACK
from deploy.local.processes import ProcessRecord, ProcessTable
from schemas.errors import HttpUnanswered


class GatewayServer:
    """`freshet gateway run`; its settings are passed when it is started."""

    name = "gateway"

    def __init__(self, table: ProcessTable, port: int) -> None:
        self._table = table
        self.port = port

    @property
    def url(self) -> str:
        """The address at which it listens."""
        return f"http://{LOOPBACK}:{self.port}"

    def start(self, settings: Path) -> ProcessRecord:
        """Start it; it is ready when is_ready() returns true."""
        command = [sys.executable, "-m", "freshet", "gateway", "run", "--settings", str(settings)]
        return self._table.start(self.name, command, {"PYTHONPATH": str(ROOT)})

    def is_ready(self) -> bool:
        """Whether it accepts requests."""
        try:
            return HttpClient(self.url, timeout_s=1).get("/readyz").status == HTTPStatus.OK
        except HttpUnanswered:
            return False
