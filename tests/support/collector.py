"""What takes spans: a real collector of OpenTelemetry, which `make collector` builds, and a listener for OTLP."""

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from adapters.waiting import until
from deploy.local.paths import LOCAL
from deploy.local.ports import LOOPBACK, free_port, is_listening

BINARY = LOCAL / "otelcol" / "otelcol"
NOWHERE = f"http://{LOOPBACK}:1"
"""Where no collector is."""


class OtlpListener:
    """Takes requests, and answers all with `status` after `wait` is set; `requests` are paths and what was sent."""

    def __init__(self, status: int = 200) -> None:
        self.requests: list[tuple[str, ExportTraceServiceRequest]] = []
        self.wait = threading.Event()
        self.wait.set()
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                listener.requests.append((self.path, ExportTraceServiceRequest.FromString(body)))
                listener.wait.wait(60)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *words: Any) -> None:
                pass

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://{LOOPBACK}:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def names(self) -> list[str]:
        return [
            span.name
            for _, request in self.requests
            for of_service in request.resource_spans
            for scope in of_service.scope_spans
            for span in scope.spans
        ]

    def close(self) -> None:
        self.wait.set()
        self._server.shutdown()
        self._server.server_close()


class Collector(NamedTuple):
    """A collector that writes what it gets to `file`; without a file, there is none."""

    url: str
    file: Path | None = None

    def spans(self) -> list[dict[str, Any]]:
        """All spans, each with the name of its `service`, and its attributes by name."""
        assert self.file is not None
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        return [span for line in lines if line.endswith("}") for span in spans_in(json.loads(line))]


def spans_in(body: Any) -> list[dict[str, Any]]:
    return [
        {
            **span,
            "service": _named(of_service["resource"]["attributes"])["service.name"],
            "attributes": _named(span.get("attributes", [])),
        }
        for of_service in body["resourceSpans"]
        for scope in of_service["scopeSpans"]
        for span in scope["spans"]
    ]


def _named(attributes: list[dict[str, Any]]) -> dict[str, Any]:
    return {one["key"]: next(iter(one["value"].values())) for one in attributes}


@contextmanager
def collector(folder: Path) -> Iterator[Collector]:
    """A collector, or none where `make collector` has not built one."""
    if not BINARY.exists():
        yield Collector(NOWHERE)
        return
    folder.mkdir()
    port, config, file = free_port(), folder / "config.yaml", folder / "spans.jsonl"
    config.write_text(
        f'receivers: {{otlp: {{protocols: {{http: {{endpoint: "{LOOPBACK}:{port}"}}}}}}}}\n'
        f'exporters: {{file: {{path: "{file}", flush_interval: 100ms}}}}\n'
        "service: {telemetry: {metrics: {level: none}}, "
        "pipelines: {traces: {receivers: [otlp], exporters: [file]}}}\n"
    )
    with (folder / "otelcol.log").open("w") as log:
        process = subprocess.Popen([BINARY, "--config", f"file:{config}"], stdout=log, stderr=log)
        try:
            until(lambda: process.poll() is not None or is_listening(port), "the collector", 60)
            assert process.poll() is None, (folder / "otelcol.log").read_text()
            yield Collector(f"http://{LOOPBACK}:{port}", file)
        finally:
            process.terminate()
            process.wait(30)
