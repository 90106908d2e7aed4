"""Limits the segments that a bucket reports popularity for, because producers choose their names.

Each one costs a table, a timer and a key in Redis until it has idled for a list's life. A bucket therefore passes on
the first so many, and lets one go only when its table is gone as well; what all others would add is left out and
counted. The list of everybody is no segment, and has what was left out, too.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from schemas.topics import HOUR_MS
from udfs.popularity import PopularitySettings, Weighing

GONE_AFTER_HOURS: Final = 2
"""A table goes with the hour behind its last life; what was on its way to it may have come an hour late."""


class KnownSegments(msgspec.Struct, array_like=True, gc=False):
    """Segments that are passed on, with the hour since the epoch of their last event. `swept` is when old ones went."""

    swept: int = 0
    seen: dict[str, int] = {}


class Admitted(NamedTuple):
    """`events` without the segments that are left out, how many times one was, and `known` where that has changed."""

    events: list[Weighing]
    left_out: int
    known: KnownSegments | None


def admit(known: KnownSegments, events: Sequence[Weighing], now_ms: int, settings: PopularitySettings) -> Admitted:
    """Leave out of `events` the segments that are too many. `known` stays as it is."""
    hour, seen, left_out, passed = now_ms // HOUR_MS, known.seen, 0, []
    if all(seen.get(segment) == hour for event in events for segment in event.segments):
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
    """A copy; once an hour without those whose tables are gone."""
    if known.swept >= hour:
        return KnownSegments(known.swept, dict(known.seen))
    return KnownSegments(hour, {name: at for name, at in known.seen.items() if hour - at <= kept_hours})


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(KnownSegments)
_HEAD: Final = b"\x01"


def encode_known(known: KnownSegments) -> bytes:
    """The bytes of `known` for `segments-v1`: a version, then MessagePack with fields by place."""
    return _HEAD + _encoder.encode(known)


def decode_known(raw: bytes | None) -> KnownSegments:
    """What `raw` says; of no bytes, or those of a version not known here, that no segment is known yet."""
    if raw is None or raw[:1] != _HEAD:
        return KnownSegments()
    return _decoder.decode(raw[1:])
