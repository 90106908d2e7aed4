"""What takes spans: a collector of OpenTelemetry where `make collector` has built one, or else a listener for OTLP."""

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from adapters.waiting import until
from deploy.local.paths import LOCAL
from deploy.local.ports import LOOPBACK, free_port, is_listening

BINARY = LOCAL / "otelcol" / "otelcol"


class Collector(Protocol):
    url: str

    def spans(self) -> list[dict[str, Any]]: ...


def spans_in(body: Any) -> list[dict[str, Any]]:
    """The spans of a request, each with the name of its `service` and its attributes by name."""
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


class OtlpListener:
    """Takes requests, and answers all with `status`."""

    def __init__(self, status: int = 200) -> None:
        requests: list[tuple[str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                requests.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *words: Any) -> None:
                pass

        self.requests = requests
        self._server = HTTPServer((LOOPBACK, 0), Handler)
        self.url = f"http://{LOOPBACK}:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def spans(self) -> list[dict[str, Any]]:
        return [span for _, body in self.requests for span in spans_in(body)]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class RealCollector(NamedTuple):
    url: str
    file: Path

    def spans(self) -> list[dict[str, Any]]:
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        return [span for line in lines if line.endswith("}") for span in spans_in(json.loads(line))]


@contextmanager
def collector(folder: Path) -> Iterator[Collector]:
    """A real collector that writes what it gets to a file; without one, a listener."""
    if not BINARY.exists():
        listener = OtlpListener()
        yield listener
        listener.close()
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
            yield RealCollector(f"http://{LOOPBACK}:{port}", file)
        finally:
            process.terminate()
            process.wait(30)
