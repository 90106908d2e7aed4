"""Trace contexts (W3C Trace Context): who asked for a trace, and under which span."""

import re
from typing import Final

_TRACEPARENT: Final = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_ZEROS: Final = re.compile(rb"0+")


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
