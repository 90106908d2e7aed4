"""The shell part of :mod:`udfs.segments`: the segments of a bucket in keyed state, and beside it in memory."""

from collections.abc import Sequence
from typing import Any

from pyflink.common import Types
from pyflink.datastream import RuntimeContext
from pyflink.datastream.state import ValueStateDescriptor

from udfs.popularity import PopularitySettings, Weighing
from udfs.segments import Admitted, KnownSegments, admit, decode_known, encode_known


class SegmentKeeper:
    """Keeps the segments of whichever bucket is being processed."""

    def __init__(self, context: RuntimeContext, settings: PopularitySettings) -> None:
        self._state = context.get_state(ValueStateDescriptor("segments-v1", Types.PICKLED_BYTE_ARRAY()))
        self._settings = settings
        self._known: dict[Any, KnownSegments] = {}
        """By bucket key, beside its bytes in state."""

    def admit(self, events: Sequence[Weighing], now_ms: int, ctx: Any) -> Admitted:
        """Leave out of `events` the segments that are too many; only reads state."""
        key = ctx.get_current_key()
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = decode_known(self._state.value())
        return admit(known, events, now_ms, self._settings)

    def put(self, admitted: Admitted, ctx: Any) -> None:
        """Keep what has changed."""
        if admitted.known is not None:
            self._known[ctx.get_current_key()] = admitted.known
            self._state.update(encode_known(admitted.known))
