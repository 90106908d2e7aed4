"""Spans of requests that post events: children of the caller's span, and parents of what the job does."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from adapters.otlp import new_span_id
from schemas.traces import SpanKind, TraceSpan, sampled_trace, traceparent
from serving.gateway.logs import TRACE, record_headers

NAME: Final = "POST /v1/events"
RecordHeaders = list[tuple[str, bytes]]


@contextmanager
def traced_post(
    headers: Sequence[tuple[bytes, bytes]], spans: Callable[[TraceSpan], None] | None
) -> Iterator[RecordHeaders]:
    """The headers of the records that a request sends; with `spans`, its span is sent when it ends."""
    plain = record_headers(headers)
    context = None if spans is None else sampled_trace(dict(headers).get(TRACE))
    if spans is None or context is None:
        yield plain
        return
    trace_id, _, parent_id = context.partition("-")
    own_id, begun_ns = new_span_id(), time.time_ns()
    try:
        yield [*(pair for pair in plain if pair[0] != TRACE.decode()), (TRACE.decode(), traceparent(trace_id, own_id))]
    finally:
        route = {"http.route": "/v1/events", "http.request.method": "POST"}
        spans(TraceSpan(NAME, SpanKind.SERVER, trace_id, own_id, parent_id, begun_ns, time.time_ns(), route))
