"""Spans of the lists that sampled events lead to: from the time that the operator has them to the answer of Redis."""

import hashlib
import time
from typing import Final, Protocol

from schemas.traces import SpanKind, TraceSpan
from udfs.operators.outputs import AppliedElement

NAME: Final = "write list"
NO_LIST: Final = "none"


class SpanQueue(Protocol):
    """Takes spans, and sends them: :class:`adapters.tracing.span_sender.SpanSender`."""

    def __call__(self, span: TraceSpan) -> None:
        """Take a span, without waiting."""
        ...

    def take_dropped(self) -> int:
        """How many spans were dropped since the last call."""
        ...

    def close(self) -> None:
        """Send the rest."""
        ...


class ListTracer:
    """Adds a span to the trace of each sampled event of an element; `spans` takes them."""

    def __init__(self, spans: SpanQueue, interactions: str) -> None:
        self._spans = spans
        self._interactions = interactions
        self._begun_ns = 0

    def begin(self) -> None:
        """An element has arrived."""
        self._begun_ns = time.time_ns()

    def end(self, applied: AppliedElement, written_s: float) -> None:
        """The element, or a part of it, has been applied; its lists are in Redis since `written_s`."""
        changes = applied.changes
        traced = [event for event in (*changes.accepted, *changes.kept) if event.trace is not None]
        if not traced:
            return
        ended_ns, written = (
            max(self._begun_ns, round(1e9 * written_s)),
            zip(applied.lists, applied.written.lists, strict=True),
        )
        outcomes = {write.pseudonym: outcome.name.lower() for write, outcome in written}
        for event in traced:
            trace_id, _, parent_id = (event.trace or "").partition("-")
            attributes: dict[str, str | int | bool] = {
                "messaging.system": "kafka",
                "messaging.destination.name": self._interactions,
                "messaging.destination.partition.id": str(event.partition),
                "messaging.kafka.offset": event.offset,
                "freshet.bucket": applied.bucket,
                "freshet.list": outcomes.get(event.pseudonym, NO_LIST),
                "freshet.since_append_ms": max(0, ended_ns // 1_000_000 - event.append_ts),
            }
            own_id = span_id(trace_id, self._interactions, event.partition, event.offset)
            self._spans(
                TraceSpan(NAME, SpanKind.CONSUMER, trace_id, own_id, parent_id, self._begun_ns, ended_ns, attributes)
            )


def span_id(trace_id: str, topic: str, partition: int, offset: int) -> str:
    """The id of the span of a record: the same when it is processed again after a restart, so that it is one span."""
    record = f"{trace_id} {topic} {partition} {offset}".encode()
    return hashlib.blake2b(record, digest_size=8).hexdigest()
