"""Limits the segments that a bucket reports popularity for, because producers choose their names.

Each segment costs a table, a timer and a Redis key until it has been idle for a list's life. So a bucket passes on the
first `segments_max`, and drops one only once its table is gone as well; it leaves out all others, and counts how often.
The overall list is not a segment, and includes the events that were left out.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from schemas.topics import HOUR_MS
from udfs.popularity import PopularitySettings, Weighing

GONE_AFTER_HOURS: Final = 2
"""A table is dropped at the end of the hour in which its life ends; late sums may add another hour."""


class KnownSegments(msgspec.Struct, array_like=True, gc=False):
    """Segments that are passed on, with the hour (since the epoch) of their last event. `swept`: the last clean-up."""

    swept: int = 0
    seen: dict[str, int] = {}


class Admitted(NamedTuple):
    """`events` without surplus segments, how many segments were left out, and `known` if it has changed."""

    events: list[Weighing]
    left_out: int
    known: KnownSegments | None


def admit(known: KnownSegments, events: Sequence[Weighing], now_ms: int, settings: PopularitySettings) -> Admitted:
    """Remove surplus segments from `events`. Does not modify `known`."""
    hour, seen, left_out, passed = now_ms // HOUR_MS, known.seen, 0, []
    # Few combinations of segments occur in an element, and they are known but for the first events of an hour.
    occurring = {event.segments for event in events}
    if all(seen.get(segment) == hour for segments in occurring for segment in segments):
        return Admitted(list(events), 0, None)
    changed = _without_old(known, hour, -(-settings.list_ttl_ms // HOUR_MS) + GONE_AFTER_HOURS)
    for event in events:
        segments = tuple(name for name in event.segments if _is_known(changed.seen, name, settings.segments_max))
        for segment in segments:
            changed.seen[segment] = max(hour, changed.seen.get(segment, 0))
        if len(segments) < len(event.segments):
            left_out += len(event.segments) - len(segments)
            event = msgspec.structs.replace(event, segments=segments)
        passed.append(event)
    return Admitted(passed, left_out, None if changed == known else changed)


def _is_known(seen: dict[str, int], segment: str, segments_max: int) -> bool:
    if segment not in seen and len(seen) < segments_max:
        seen[segment] = 0
    return segment in seen


def _without_old(known: KnownSegments, hour: int, kept_hours: int) -> KnownSegments:
    """A copy of `known`; once an hour without segments whose tables are gone."""
    if known.swept >= hour:
        return KnownSegments(known.swept, dict(known.seen))
    return KnownSegments(hour, {name: at for name, at in known.seen.items() if hour - at <= kept_hours})


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(KnownSegments)
_HEAD: Final = b"\x01"


def encode_known(known: KnownSegments) -> bytes:
    """Encode `known` for `segments-v1`: a version byte, then MessagePack with positional fields."""
    return _HEAD + _encoder.encode(known)


def decode_known(raw: bytes | None) -> KnownSegments:
    """Decode `raw`; no segments for no bytes, or for an unknown version."""
    if raw is None or raw[:1] != _HEAD:
        return KnownSegments()
    return _decoder.decode(raw[1:])
