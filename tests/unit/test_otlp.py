"""Spans: what a collector gets, what happens without one, and what a request and an element make."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from adapters import otlp
from adapters.otlp import SPANS_HELD_MAX, SpanSender, TraceSettings, otlp_request
from adapters.waiting import until
from schemas.traces import SpanKind, TraceSpan, sampled_trace
from serving.gateway.tracing import traced_post
from tests.support.collector import OtlpListener

TRACE, PARENT = "a" * 32, "b" * 16
HEADERS = [(b"traceparent", f"00-{TRACE}-{PARENT}-01".encode()), (b"x-request-id", b"r1")]


def a_span(name: str = "write list", **attributes: Any) -> TraceSpan:
    return TraceSpan(name, SpanKind.CONSUMER, TRACE, "c" * 16, PARENT, 1_000, 2_000, attributes)


@pytest.fixture(params=[200])
def collected(request: pytest.FixtureRequest) -> Iterator[OtlpListener]:
    made = OtlpListener(request.param)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "SEND_EVERY_S", 0.01)


def test_request_has_the_names_and_types_of_otlp() -> None:
    read = json.loads(otlp_request("freshet-job", [a_span(bucket=3, kept=True, topic="t")]))
    [of_service] = read["resourceSpans"]
    assert of_service["resource"]["attributes"] == [{"key": "service.name", "value": {"stringValue": "freshet-job"}}]
    [scope] = of_service["scopeSpans"]
    assert scope["spans"] == [
        {
            "traceId": TRACE, "spanId": "c" * 16, "parentSpanId": PARENT, "name": "write list", "kind": 5,
            "startTimeUnixNano": "1000", "endTimeUnixNano": "2000",
            "attributes": [
                {"key": "bucket", "value": {"intValue": "3"}},
                {"key": "kept", "value": {"boolValue": True}},
                {"key": "topic", "value": {"stringValue": "t"}},
            ],
        }
    ]  # fmt: skip


def test_spans_arrive_and_the_rest_when_it_is_closed(collected: OtlpListener) -> None:
    sender = SpanSender(collected.url, "freshet-job")
    sender(a_span("first"))
    until(lambda: collected.requests, "the first span", 20)
    sender(a_span("last"))
    sender.close()
    assert {path for path, _ in collected.requests} == {"/v1/traces"}
    assert "last" in json.dumps(collected.requests)


@pytest.mark.parametrize("collected", [503], indirect=True)
def test_refused_spans_are_dropped_with_a_warning(collected: OtlpListener, caplog: pytest.LogCaptureFixture) -> None:
    sender = SpanSender(collected.url, "freshet-job")
    with caplog.at_level(logging.WARNING):
        sender(a_span())
        until(lambda: "1 spans were dropped" in caplog.text, "the warning", 20)
        sender.close()
    assert "status 503" in caplog.text and len(collected.requests) == 1, "not sent again"


def test_collector_that_is_away_holds_up_nobody_and_nothing_piles_up() -> None:
    sender = SpanSender("http://127.0.0.1:1", "freshet-job")
    for _ in range(3 * SPANS_HELD_MAX):
        sender(a_span())
    assert len(sender._waiting) <= SPANS_HELD_MAX
    sender.close()


@pytest.mark.parametrize(
    "url", ["collector:4318", "http://", "http://me:secret@collector:4318", "grpc://collector:4317"]
)
def test_address_that_is_none_is_refused(url: str) -> None:
    complaint = TraceSettings(url).complaint()
    assert complaint and "secret" not in complaint
    assert TraceSettings("http://collector:4318").complaint() is None and TraceSettings().complaint() is None


def test_request_becomes_the_parent_of_its_records() -> None:
    spans: list[TraceSpan] = []
    with traced_post(HEADERS, spans.append) as headers:
        pass
    [span] = spans
    assert (span.trace_id, span.parent_id, span.kind) == (TRACE, PARENT, SpanKind.SERVER)
    assert sampled_trace(dict(headers)["traceparent"]) == f"{TRACE}-{span.span_id}"
    assert dict(headers)["x-request-id"] == b"r1"


def test_failed_request_has_a_span_too() -> None:
    spans: list[TraceSpan] = []
    with pytest.raises(KeyError), traced_post(HEADERS, spans.append):
        raise KeyError
    assert len(spans) == 1


@pytest.mark.parametrize("flag", [b"00", b"02"])
def test_unsampled_request_has_no_span(flag: bytes) -> None:
    spans: list[TraceSpan] = []
    unsampled = [(b"traceparent", HEADERS[0][1][:-2] + flag)]
    with traced_post(unsampled, spans.append) as headers:
        assert headers == []
    assert spans == []


def test_without_a_collector_the_callers_trace_is_passed_on() -> None:
    with traced_post(HEADERS, None) as headers:
        assert dict(headers)["traceparent"] == HEADERS[0][1]
