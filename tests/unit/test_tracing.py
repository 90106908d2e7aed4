"""Spans: what a collector gets, what happens without one, and what a request and an element make."""

import builtins
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from adapters.tracing import span_sender as sender_module
from adapters.tracing.span_sender import SPANS_HELD_MAX, SpanSender, TraceSettings, span_sender
from adapters.waiting import until
from schemas.errors import SettingsError
from schemas.traces import SpanKind, TraceSpan, sampled_trace
from serving.gateway.gateway_settings import GatewayTraceSettings
from serving.gateway.tracing import PostTracing
from tests.support.collector import NOWHERE, OtlpListener
from udfs.operators.list_tracer import span_id

TRACE, PARENT = "a" * 32, "b" * 16
HEADERS = [(b"traceparent", f"00-{TRACE}-{PARENT}-01".encode()), (b"x-request-id", b"r1")]
UNSAMPLED = [(b"traceparent", f"00-{TRACE}-{PARENT}-00".encode())]


def a_span(name: str = "write list", **attributes: Any) -> TraceSpan:
    return TraceSpan(name, SpanKind.CONSUMER, TRACE, "c" * 16, PARENT, 1_000, 2_000, attributes)


def sending_to(url: str) -> SpanSender:
    made = span_sender(TraceSettings(url), "freshet-job")
    assert made is not None
    return made


@pytest.fixture(params=[200])
def collected(request: pytest.FixtureRequest) -> Iterator[OtlpListener]:
    made = OtlpListener(request.param)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_module, "SEND_EVERY_S", 0.01)


def dropped(sender: SpanSender, number: int) -> Callable[[], bool]:
    told = 0

    def so_far() -> bool:
        nonlocal told
        told += sender.take_dropped()
        return told >= number

    return so_far


def test_collector_gets_the_span_as_it_was_made(collected: OtlpListener) -> None:
    sender = sending_to(collected.url)
    sender(a_span(bucket=3, kept=True, topic="t"))
    sender.close()
    [(path, request)] = collected.requests
    [of_service] = request.resource_spans
    [scope] = of_service.scope_spans
    [span] = scope.spans
    named = {one.key: one.value.string_value for one in of_service.resource.attributes}
    assert path == "/v1/traces" and named["service.name"] == "freshet-job" and scope.scope.name == "freshet"
    assert (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()) == (TRACE, "c" * 16, PARENT)
    assert (span.name, span.kind) == ("write list", 5), "5 is CONSUMER"
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (1_000, 2_000)
    attributes = {one.key: one.value for one in span.attributes}
    assert attributes["bucket"].int_value == 3 and attributes["kept"].bool_value
    assert attributes["topic"].string_value == "t"


def test_span_without_a_parent_begins_its_trace(collected: OtlpListener) -> None:
    sender = sending_to(collected.url)
    sender(a_span()._replace(parent_id=""))
    sender.close()
    [span] = collected.requests[0][1].resource_spans[0].scope_spans[0].spans
    assert span.parent_span_id == b""


def test_spans_arrive_and_the_rest_when_it_is_closed(collected: OtlpListener) -> None:
    sender = sending_to(collected.url)
    sender(a_span("first"))
    until(lambda: collected.requests, "the first span", 20)
    sender(a_span("last"))
    sender.close()
    assert collected.names() == ["first", "last"] and sender.take_dropped() == 0


@pytest.mark.parametrize("collected", [400], indirect=True)
def test_refused_spans_are_counted_and_said_once(collected: OtlpListener, caplog: pytest.LogCaptureFixture) -> None:
    sender = sending_to(collected.url)
    sender_module._ONCE._seen.clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            sender(a_span())
            until(dropped(sender, 1), "the drop to be counted", 20)
    sender.close()
    assert len(collected.requests) == 3 and len(caplog.records) == 1, caplog.text


def test_collector_that_is_away_delays_no_close() -> None:
    sender = sending_to(NOWHERE)
    sender(a_span())
    closing = threading.Thread(target=sender.close)
    closing.start()
    closing.join(20)
    assert not closing.is_alive()
    until(dropped(sender, 1), "the drop to be counted", 20)


def test_slow_collector_costs_spans_only(collected: OtlpListener) -> None:
    collected.wait.clear()
    sender = sending_to(collected.url)
    sender(a_span("first"))
    until(lambda: collected.requests, "the request that hangs", 20)
    for _ in range(2 * SPANS_HELD_MAX):
        sender(a_span("more"))
    assert sender.take_dropped() == SPANS_HELD_MAX
    collected.wait.set()
    until(lambda: len(collected.names()) == 1 + SPANS_HELD_MAX, "the spans that waited", 20)
    sender.close()
    assert sender.take_dropped() == 0


def test_exporter_that_raises_costs_spans_only() -> None:
    def export(spans: Sequence[TraceSpan]) -> bool:
        if spans[0].name == "bad":
            raise ValueError("what a library may do")
        return True

    sender = SpanSender(sender_module.guarded(export), lambda: None)
    sender(a_span("bad"))
    until(dropped(sender, 1), "the drop to be counted", 20)
    sender(a_span("good"))
    sender.close()
    assert sender.take_dropped() == 0


@pytest.mark.parametrize(
    "url",
    ["collector:4318", "http://", "http://me:secret@collector:4318", "grpc://collector:4317", "http://c?key=secret"],
)
def test_address_that_is_none_is_refused(url: str) -> None:
    complaint = TraceSettings(url).complaint()
    assert complaint and "secret" not in complaint
    assert TraceSettings("http://collector:4318").complaint() is None and TraceSettings().complaint() is None


def test_share_without_a_collector_is_refused() -> None:
    assert GatewayTraceSettings(share=0.1).complaint()
    assert GatewayTraceSettings("http://collector:4318", 0.1).complaint() is None


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ImportError
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SettingsError, match=r"pip install -r requirements-traces\.txt"):
        sending_to(NOWHERE)
    assert span_sender(TraceSettings(), "freshet-job") is None, "no package is needed without traces"


def test_request_becomes_the_parent_of_its_records() -> None:
    spans: list[TraceSpan] = []
    with PostTracing(spans.append).post(HEADERS) as headers:
        pass
    [span] = spans
    assert (span.trace_id, span.parent_id, span.kind) == (TRACE, PARENT, SpanKind.SERVER)
    assert sampled_trace(dict(headers)["traceparent"]) == f"{TRACE}-{span.span_id}"
    assert dict(headers)["x-request-id"] == b"r1" and span.begun_ns <= span.ended_ns


def test_failed_request_has_a_span_too() -> None:
    spans: list[TraceSpan] = []
    with pytest.raises(KeyError), PostTracing(spans.append).post(HEADERS):
        raise KeyError
    assert len(spans) == 1


def test_caller_decides_whether_its_request_is_traced() -> None:
    spans: list[TraceSpan] = []
    with PostTracing(spans.append, share=1.0).post(UNSAMPLED) as headers:
        assert headers == []
    assert spans == []


@pytest.mark.parametrize("header", [[], [(b"traceparent", b"nonsense")]])
def test_share_of_requests_without_a_trace_begin_one(header: list[tuple[bytes, bytes]]) -> None:
    spans: list[TraceSpan] = []
    tracing = PostTracing(spans.append, share=0.5)
    for _ in range(200):
        with tracing.post(header) as headers:
            pass
        if headers:
            assert sampled_trace(dict(headers)["traceparent"]) == f"{spans[-1].trace_id}-{spans[-1].span_id}"
    assert 50 < len(spans) < 150 and len({span.trace_id for span in spans}) == len(spans)
    assert {span.parent_id for span in spans} == {""}


def test_share_of_none_traces_no_request() -> None:
    spans: list[TraceSpan] = []
    with PostTracing(spans.append).post([]) as headers:
        assert headers == []
    assert spans == []


def test_without_a_collector_the_callers_trace_is_passed_on() -> None:
    with PostTracing(None).post(HEADERS) as headers:
        assert dict(headers)["traceparent"] == HEADERS[0][1]


def test_record_that_is_processed_again_has_the_same_span() -> None:
    assert span_id(TRACE, "t", 1, 2) == span_id(TRACE, "t", 1, 2) and len(span_id(TRACE, "t", 1, 2)) == 16
    assert len({span_id(TRACE, "t", 1, 2), span_id(TRACE, "t", 2, 1), span_id("b" * 32, "t", 1, 2)}) == 3
