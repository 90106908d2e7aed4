"""Spans of requests that post events: children of the caller's span, and parents of what the job does."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from schemas.traces import SpanKind, TraceSpan, is_trace_context, sampled_trace, traceparent
from serving.gateway.logs import TRACE, record_headers

NAME: Final = "POST /v1/events"
ROUTE: Final = {"http.route": "/v1/events", "http.request.method": "POST"}
RecordHeaders = list[tuple[str, bytes]]


class PostTracing:
    """Makes the spans of requests, if `spans` takes them; `share` as in the settings."""

    def __init__(self, spans: Callable[[TraceSpan], None] | None, share: float = 0.0) -> None:
        self._spans, self._share = spans, share
        self._random = random.Random()  # noqa: S311 - ids of spans are no secrets

    @contextmanager
    def post(self, headers: Sequence[tuple[bytes, bytes]]) -> Iterator[RecordHeaders]:
        """The headers of the records that a request sends; its span is handed over when it ends."""
        plain, spans = record_headers(headers), self._spans
        context = None if spans is None else self._context(dict(headers).get(TRACE))
        if spans is None or context is None:
            yield plain
            return
        trace_id, _, parent_id = context.partition("-")
        own_id, begun_ns, begun_s = self._new_id(64), time.time_ns(), time.perf_counter()
        name = TRACE.decode()
        try:
            yield [*(pair for pair in plain if pair[0] != name), (name, traceparent(trace_id, own_id))]
        finally:
            ended_ns = begun_ns + round(1e9 * (time.perf_counter() - begun_s))
            spans(TraceSpan(NAME, SpanKind.SERVER, trace_id, own_id, parent_id, begun_ns, ended_ns, ROUTE))

    def _context(self, header: bytes | None) -> str | None:
        """The trace of a request, and the caller's span in it; None if it is not sampled."""
        if header is not None and is_trace_context(header):
            return sampled_trace(header)
        # `random()` is below 1, and a share of 0 asks for none.
        return f"{self._new_id(128)}-" if self._share and self._random.random() < self._share else None

    def _new_id(self, bits: int) -> str:
        """A random id in hexadecimal; never 0, which stands for none."""
        return f"{self._random.randrange(1, 1 << bits):0{bits // 4}x}"
