"""Traces: their contexts (W3C Trace Context), and the spans that gateway and job add to those that are sampled."""

import re
from collections.abc import Mapping
from enum import Enum
from typing import Final, NamedTuple

_TRACEPARENT: Final = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_ZEROS: Final = re.compile(rb"0+")


class SpanKind(Enum):
    """The kinds of spans that there are here, by their names in OpenTelemetry."""

    SERVER = "SERVER"
    CONSUMER = "CONSUMER"


def sampled_trace(header: bytes | None) -> str | None:
    """`<trace id>-<span id>` of the `traceparent` of a sampled trace; None for any other, and for what is none.

    >>> sampled_trace(b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01") == "a" * 32 + "-" + "b" * 16
    True
    >>> sampled_trace(b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-00"), sampled_trace(b"nonsense"), sampled_trace(None)
    (None, None, None)
    """
    found = None if header is None else _TRACEPARENT.fullmatch(header)
    if found is None or not int(found[3], 16) & 1 or _ZEROS.fullmatch(found[1]) or _ZEROS.fullmatch(found[2]):
        return None
    return f"{found[1].decode()}-{found[2].decode()}"


def is_trace_context(header: bytes) -> bool:
    """Whether `header` is a `traceparent`, of a sampled trace or not.

    >>> is_trace_context(b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-00"), is_trace_context(b"nonsense")
    (True, False)
    """
    return _TRACEPARENT.match(header) is not None


def traceparent(trace_id: str, span_id: str) -> bytes:
    """The header that makes `span_id`, of a sampled trace, the parent of what follows."""
    return f"00-{trace_id}-{span_id}-01".encode()


class TraceSpan(NamedTuple):
    """One timed step of a trace; ids in hexadecimal, times in ns since the epoch."""

    name: str
    kind: SpanKind
    trace_id: str
    span_id: str
    parent_id: str
    begun_ns: int
    ended_ns: int
    attributes: Mapping[str, str | int | bool]
