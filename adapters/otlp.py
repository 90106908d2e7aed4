"""Sends spans to a collector of OpenTelemetry or to Jaeger: OTLP over HTTP in JSON, from a thread of its own.

Spans are for people who look for a slow step: if the collector is away or too slow, they are dropped, and nobody waits.
"""

import logging
import secrets
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from adapters.http_client import HttpClient
from schemas.errors import HttpUnanswered
from schemas.threads import in_background
from schemas.traces import TraceSpan

SPANS_HELD_MAX: Final = 2_048
SEND_EVERY_S: Final = 1.0
TIMEOUT_S: Final = 5.0
PATH: Final = "/v1/traces"
logger = logging.getLogger(__name__)


class TraceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Traces of events that a frontend samples (`traceparent`): from the gateway to the list in Redis."""

    otlp_url: str | None = None
    """The address of a collector that takes OTLP over HTTP, such as `http://collector:4318`. Without one, nothing is
    traced.
    """

    def complaint(self) -> str | None:
        """What is wrong with the address, if anything."""
        url = urlsplit(self.otlp_url or "http://x")
        if url.scheme not in ("http", "https") or not url.hostname or url.username or url.password:
            return "otlp_url must be http(s)://host[:port], without a password: it is in the job graph"
        return None


def new_span_id() -> str:
    """A random id, 16 hexadecimal digits."""
    return secrets.token_hex(8)


class SpanSender:
    """Takes spans of `service` from any thread, and sends them each second. Close it to send the rest."""

    def __init__(self, url: str, service: str) -> None:
        self._client = HttpClient(url, TIMEOUT_S, {"Content-Type": "application/json"})
        self._service = service
        self._waiting: deque[TraceSpan] = deque(maxlen=SPANS_HELD_MAX)
        self._closing, self._lock = threading.Event(), threading.Lock()
        self._thread: threading.Thread | None = None

    def __call__(self, span: TraceSpan) -> None:
        """Take a span. The oldest is dropped if too many wait."""
        self._waiting.append(span)
        if self._thread is None:
            with self._lock:
                if self._thread is None and not self._closing.is_set():
                    self._thread = in_background("freshet-spans", self._run)

    def close(self) -> None:
        """Send what waits, for as long as one request may take, and end the thread."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(2 * TIMEOUT_S)

    def _run(self) -> None:
        while not self._closing.wait(SEND_EVERY_S):
            self._send()
        self._send()

    def _send(self) -> None:
        spans = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if not spans:
            return
        try:
            status = self._client.ask("POST", PATH, otlp_request(self._service, spans)).status
            why = "" if status < 300 else f"status {status}"
        except HttpUnanswered as error:
            why = str(error)
        if why:
            logger.warning(
                "%d spans were dropped: the collector in traces.otlp_url did not take them (%s)", len(spans), why
            )


def otlp_request(service: str, spans: Sequence[TraceSpan]) -> bytes:
    """The body of a request with `spans`: ExportTraceServiceRequest as JSON."""
    of_service = {"attributes": [_attribute("service.name", service)]}
    scope = {"scope": {"name": "freshet"}, "spans": [_otlp(span) for span in spans]}
    return msgspec.json.encode({"resourceSpans": [{"resource": of_service, "scopeSpans": [scope]}]})


def _otlp(span: TraceSpan) -> dict[str, Any]:
    return {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "parentSpanId": span.parent_id,
        "name": span.name,
        "kind": int(span.kind),
        "startTimeUnixNano": str(span.begun_ns),
        "endTimeUnixNano": str(span.ended_ns),
        "attributes": [_attribute(name, value) for name, value in span.attributes.items()],
    }


def _attribute(name: str, value: str | int | bool) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"key": name, "value": {"boolValue": value}}
    if isinstance(value, int):
        return {"key": name, "value": {"intValue": str(value)}}
    return {"key": name, "value": {"stringValue": value}}
