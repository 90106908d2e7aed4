"""Keeps in Flink's keyed state what a bucket adds to popularity, and its known segments (:mod:`udfs.segments`)."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from pyflink.common import Row, Types
from pyflink.datastream import RuntimeContext
from pyflink.datastream.state import ListStateDescriptor, ValueStateDescriptor

from schemas.store import ALL
from udfs.assortment import CATEGORY, Assortment
from udfs.elements import EventRecord
from udfs.operators.timers import register_end_of
from udfs.popularity import (
    NO_SUMS,
    PopularitySettings,
    decode_weighing,
    encode_sums,
    encode_weighing,
    sum_by_segment,
    weighing,
)
from udfs.segments import KnownSegments, admit, decode_known, encode_known

SUMS_EVERY_MS: Final = 1_000
"""How often a bucket sends its sums. One record per element and segment would cost more than the lists."""


class Weighed(NamedTuple):
    """An element's contribution to popularity: encoded events, changed segments, and how many were left out."""

    raw: bytes
    known: KnownSegments | None
    left_out: int


class PopularityKeeper:
    """Keeps what the bucket being processed adds to popularity."""

    def __init__(self, context: RuntimeContext, settings: PopularitySettings, assortment: Assortment) -> None:
        raw = Types.PICKLED_BYTE_ARRAY()
        self._weighing = context.get_list_state(ListStateDescriptor("weighing-v1", raw))
        self._segments = context.get_state(ValueStateDescriptor("segments-v1", raw))
        self._settings = settings
        self._assortment = assortment if CATEGORY in settings.segments else None
        self._known: dict[Any, KnownSegments] = {}
        """Decoded state by bucket key."""

    def weigh(self, accepted: Sequence[EventRecord], now_ms: int, ctx: Any) -> Weighed:
        """The contribution of `accepted` events, without surplus segments. Only reads state."""
        key = ctx.get_current_key()
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = decode_known(self._segments.value())
        categories = self._assortment
        category_of = categories.category_of if categories is not None and categories.code_of else None
        admitted = admit(known, weighing(accepted, category_of), now_ms, self._settings)
        raw = encode_weighing(admitted.events) if admitted.events else b""
        return Weighed(raw, admitted.known, admitted.left_out)

    def put(self, weighed: Weighed, ctx: Any) -> None:
        """Store the contribution until the second ends."""
        if weighed.raw:
            self._weighing.add(weighed.raw)
            register_end_of(SUMS_EVERY_MS, ctx)
        if weighed.known is not None:
            self._known[ctx.get_current_key()] = weighed.known
            self._segments.update(encode_known(weighed.known))

    def sums(self) -> Iterator[Row]:
        """Sum and clear the contributions stored since the last call."""
        events = [event for raw in self._weighing.get() or () for event in decode_weighing(raw)]
        if events:
            self._weighing.clear()
        for sums in sum_by_segment(events, self._settings.half_life_ms):
            yield Row(sums.segment, encode_sums(sums))


def empty_sums() -> Row:
    """A row of no sums, which makes the popular lists be published again."""
    return Row(ALL, encode_sums(NO_SUMS))
