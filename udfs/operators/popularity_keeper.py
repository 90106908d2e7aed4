"""The shell part of what a bucket adds to popularity, and of :mod:`udfs.segments`: in keyed state, and beside it."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from pyflink.common import Row, Types
from pyflink.datastream import RuntimeContext
from pyflink.datastream.state import ListStateDescriptor, ValueStateDescriptor

from schemas.store import ALL
from udfs.elements import EventRecord
from udfs.operators.timers import register_end_of
from udfs.popularity import (
    NOTHING_NEW,
    PopularitySettings,
    decode_weighing,
    encode_sums,
    encode_weighing,
    sum_by_segment,
    weighing,
)
from udfs.segments import KnownSegments, admit, decode_known, encode_known

SUMS_EVERY_MS: Final = 1_000
"""How often a bucket tells popularity what it adds. A record for each element and segment costs more than the lists."""


class Weighed(NamedTuple):
    """What an element adds to popularity: bytes to keep, and the segments if they changed. So many were left out."""

    raw: bytes
    known: KnownSegments | None
    left_out: int


class PopularityKeeper:
    """Keeps what whichever bucket is being processed adds to popularity."""

    def __init__(self, context: RuntimeContext, settings: PopularitySettings) -> None:
        raw = Types.PICKLED_BYTE_ARRAY()
        self._weighing = context.get_list_state(ListStateDescriptor("weighing-v1", raw))
        self._segments = context.get_state(ValueStateDescriptor("segments-v1", raw))
        self._settings = settings
        self._known: dict[Any, KnownSegments] = {}
        """By bucket key, beside its bytes in state."""

    def weigh(self, accepted: Sequence[EventRecord], now_ms: int, ctx: Any) -> Weighed:
        """What `accepted` events add, without those of segments that are too many; only reads state."""
        key = ctx.get_current_key()
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = decode_known(self._segments.value())
        admitted = admit(known, weighing(accepted), now_ms, self._settings)
        raw = encode_weighing(admitted.events) if admitted.events else b""
        return Weighed(raw, admitted.known, admitted.left_out)

    def put(self, weighed: Weighed, ctx: Any) -> None:
        """Keep it until the second ends."""
        if weighed.raw:
            self._weighing.add(weighed.raw)
            register_end_of(SUMS_EVERY_MS, ctx)
        if weighed.known is not None:
            self._known[ctx.get_current_key()] = weighed.known
            self._segments.update(encode_known(weighed.known))

    def sums(self) -> Iterator[Row]:
        """What this bucket has added since it last said so."""
        events = [event for raw in self._weighing.get() or () for event in decode_weighing(raw)]
        if events:
            self._weighing.clear()
        for sums in sum_by_segment(events, self._settings.half_life_ms):
            yield Row(sums.segment, encode_sums(sums))


def nothing_new() -> Row:
    """Has popular lists written again, with nothing added."""
    return Row(ALL, encode_sums(NOTHING_NEW))
