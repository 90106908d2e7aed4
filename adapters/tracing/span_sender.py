"""Sends spans to a collector of OpenTelemetry, or to Jaeger, from a thread of its own.

Whoever makes spans only puts them into a queue of bounded length: a collector that is away or slow costs spans, which
are counted, and nobody's time. OpenTelemetry's exporter sends them, by OTLP over HTTP; it takes headers, certificates
and compression from the variables `OTEL_EXPORTER_OTLP_…`. Its own queue is not used: that counts no drops, and may
hold up whoever closes it for half a minute.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from adapters.log_output import RepeatLimit
from schemas.errors import SettingsError
from schemas.threads import in_background
from schemas.traces import TraceSpan

SPANS_HELD_MAX: Final = 2_048
SPANS_SENT_MAX: Final = 512
"""How many spans a request has at most."""
SEND_EVERY_S: Final = 1.0
CLOSE_S: Final = 3.0
PATH: Final = "/v1/traces"
REQUIREMENTS: Final = "requirements-traces.txt"
SCOPE: Final = "freshet"
logger = logging.getLogger(__name__)
_ONCE: Final = RepeatLimit(1)
Export = Callable[[Sequence[TraceSpan]], bool]


class TraceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Traces of events that arrive with a sampled `traceparent`. They need `requirements-traces.txt`."""

    otlp_url: str | None = None
    """The address of a collector that takes OTLP over HTTP, such as `http://collector:4318`. Without one, nothing is
    traced.
    """

    def complaint(self) -> str | None:
        """What is wrong with the address, if anything."""
        url = urlsplit(self.otlp_url or "http://x")
        if url.scheme not in ("http", "https") or not url.hostname or url.username or url.password or url.query:
            return (
                "otlp_url must be http(s)://host[:port], without a password: it is in the job graph. "
                "Headers with a key belong in the variable OTEL_EXPORTER_OTLP_HEADERS"
            )
        return None


class SpanSender:
    """Takes spans, and sends them each second. Close it to send the rest.

    Spans come from one thread: the gateway's event loop, or the operator's.
    """

    def __init__(self, export: Export, stop: Callable[[], None]) -> None:
        self._export, self._stop = export, stop
        self._waiting: deque[TraceSpan] = deque()
        self._too_many = self._unsent = self._told = 0
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def __call__(self, span: TraceSpan) -> None:
        """Take a span, without waiting; it is dropped if too many wait."""
        if len(self._waiting) >= SPANS_HELD_MAX:
            self._too_many += 1
            return
        self._waiting.append(span)
        if self._thread is None and not self._closing.is_set():
            self._thread = in_background("freshet-spans", self._run)

    def take_dropped(self) -> int:
        """How many spans were dropped since the last call: because too many waited, or none took them."""
        dropped = self._too_many + self._unsent
        new, self._told = dropped - self._told, dropped
        return new

    def close(self) -> None:
        """Send what waits, unless that takes longer than :data:`CLOSE_S`, and end the thread."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)
        self._stop()

    def _run(self) -> None:
        while not self._closing.wait(SEND_EVERY_S):
            self._send()
        self._send()

    def _send(self) -> None:
        while self._waiting:
            spans = [self._waiting.popleft() for _ in range(min(SPANS_SENT_MAX, len(self._waiting)))]
            if not self._export(spans):
                self._unsent += len(spans)


def span_sender(settings: TraceSettings, service: str) -> SpanSender | None:
    """Sends spans of `service`; None if the settings want none.

    Raises :class:`SettingsError` if OpenTelemetry's packages are not installed.
    """
    if settings.otlp_url is None:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http import trace_exporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace.export import SpanExportResult
    except ImportError:
        raise SettingsError(
            f"traces.otlp_url is set, but OpenTelemetry is not installed: pip install -r {REQUIREMENTS}"
        ) from None
    logging.getLogger(trace_exporter.__name__).addFilter(_ONCE)
    exporter = trace_exporter.OTLPSpanExporter(settings.otlp_url.rstrip("/") + PATH)
    resource = Resource.create({"service.name": service})

    def export(spans: Sequence[TraceSpan]) -> bool:
        return exporter.export([_readable(span, resource) for span in spans]) is SpanExportResult.SUCCESS

    return SpanSender(guarded(export), exporter.shutdown)


def guarded(export: Export) -> Export:
    """`export`, which raises nothing: whatever the library does, the thread goes on."""

    def attempt(spans: Sequence[TraceSpan]) -> bool:
        try:
            return export(spans)
        except Exception as error:
            logger.warning("spans were dropped: %s", type(error).__name__)
            return False

    return attempt


def _readable(span: TraceSpan, resource: Any) -> Any:
    """`span` as OpenTelemetry's exporter takes it."""
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, TraceFlags

    def context(span_id: str, is_remote: bool) -> SpanContext:
        return SpanContext(int(span.trace_id, 16), int(span_id, 16), is_remote, TraceFlags(TraceFlags.SAMPLED))

    return ReadableSpan(
        span.name,
        context(span.span_id, False),
        context(span.parent_id, True) if span.parent_id else None,
        resource,
        span.attributes,
        kind=SpanKind[span.kind.value],
        start_time=span.begun_ns,
        end_time=span.ended_ns,
        instrumentation_scope=InstrumentationScope(SCOPE),
    )
