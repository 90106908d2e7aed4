"""Spans of lists: which events have one, and what it says."""

import msgspec
import pytest

from schemas import metrics
from schemas.traces import SpanKind, TraceSpan
from tests.support.bucket import INTERACTIONS, Bucket
from tests.support.vocabulary import BEGINNING, SECOND, a_consent, an_interaction
from udfs.elements import EventRecord

TRACE, CALLER = "a" * 32, "b" * 16


def sampled(event: EventRecord) -> EventRecord:
    return msgspec.structs.replace(event, trace=f"{TRACE}-{CALLER}")


class SpanList(list[TraceSpan]):
    """Takes spans, and has `dropped` some."""

    dropped = 0
    closed = False

    def __call__(self, span: TraceSpan) -> None:
        self.append(span)

    def take_dropped(self) -> int:
        dropped, self.dropped = self.dropped, 0
        return dropped

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def spans() -> SpanList:
    return SpanList()


@pytest.fixture
def traced(spans: SpanList) -> Bucket:
    return Bucket(spans=spans)


def test_sampled_event_has_a_span_and_no_other(traced: Bucket, spans: SpanList) -> None:
    event = sampled(an_interaction(at=BEGINNING, item="tea", offset=7))
    traced.take(a_consent(), event, an_interaction(at=BEGINNING + 1, item="cup"))
    [span] = spans
    assert (span.name, span.kind, span.trace_id, span.parent_id) == ("write list", SpanKind.CONSUMER, TRACE, CALLER)
    assert span.begun_ns <= span.ended_ns
    since_append_ms = span.attributes["freshet.since_append_ms"]
    assert isinstance(since_append_ms, int) and since_append_ms >= 0
    assert {**span.attributes, "freshet.since_append_ms": 0} == {
        "messaging.system": "kafka",
        "messaging.destination.name": INTERACTIONS,
        "messaging.destination.partition.id": "0",
        "messaging.kafka.offset": 7,
        "freshet.bucket": 3,
        "freshet.list": "written",
        "freshet.since_append_ms": 0,
    }


@pytest.mark.privacy
def test_span_says_nothing_of_the_user(traced: Bucket, spans: SpanList) -> None:
    event = sampled(an_interaction("ada-zqxj", session="wvkq"))
    traced.take(a_consent("ada-zqxj"), event)
    assert len(spans) == 1 and "zqxj" not in repr(spans) and event.event.hex() not in repr(spans)


def test_event_without_consent_has_no_span(traced: Bucket, spans: SpanList) -> None:
    traced.take(sampled(an_interaction()))
    assert spans == []


def test_replayed_event_has_the_span_it_had(traced: Bucket, spans: SpanList) -> None:
    snapshot, event = traced.keyed.snapshot(), sampled(an_interaction())
    traced.take(a_consent(), event)
    traced.restart(snapshot)
    traced.take(a_consent(), event)
    assert len(spans) == 2 and len({span.span_id for span in spans}) == 1


def test_dropped_spans_are_counted(traced: Bucket, spans: SpanList) -> None:
    spans.dropped = 3
    traced.take(a_consent(), an_interaction())
    traced.pass_time(SECOND)
    assert traced.keyed.counts[metrics.SPANS_DROPPED.name] == 3


def test_end_of_the_operator_closes_the_sender(traced: Bucket, spans: SpanList) -> None:
    traced.harness.operator.close()
    assert spans.closed
