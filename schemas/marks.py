"""Marks in `consents`: a reader that has read one from each partition has read everything written before the marks.

The job writes them when Redis may have lost decisions: a bucket that has read the marks of a generation has read every
decision acknowledged before, and may apply consents in that generation.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

MARK_KEY: Final = b"\x00freshet-mark"
"""Not a user id: those have no control characters. It is one key, so compaction keeps the last mark of a partition."""

MOVE_ON_KEY: Final = b"\x00freshet-move-on"
"""The key of empty records without a meaning: Kafka closes a segment of a partition only when a record arrives."""


class Mark(msgspec.Struct, frozen=True, gc=False):
    """Written to each of `partitions` partitions of `consents` for the generation `token`."""

    token: Annotated[str, Meta(pattern="^[0-9a-f]{12}$")]
    partitions: Annotated[int, Meta(ge=1, le=100_000)]


_decode: Final = msgspec.json.Decoder(Mark).decode


def encode_mark(mark: Mark) -> bytes:
    """The value of a mark's record.

    >>> encode_mark(Mark("0123456789ab", 4))
    b'{"token":"0123456789ab","partitions":4}'
    """
    return msgspec.json.encode(mark)


def decode_mark(raw: bytes | None) -> Mark | None:
    """The mark in `raw`, or None if there is none."""
    try:
        return _decode(raw or b"")
    except (ValueError, RecursionError):
        return None
