"""Collects in keyed state what a bucket's users did with their lists, and passes the counts on each second."""

from collections.abc import Iterator
from typing import Any, Final

from pyflink.common import Types
from pyflink.datastream import OutputTag, RuntimeContext
from pyflink.datastream.state import ListStateDescriptor

from udfs.elements import EventRecord
from udfs.feedback import FeedbackSettings, Knowing, Measuring, added, decode_sums, encode_sums
from udfs.operators.timers import register_end_of

FEEDBACK: Final = OutputTag("feedback", Types.PRIMITIVE_ARRAY(Types.BYTE()))
SUMS_EVERY_MS: Final = 1_000


class FeedbackKeeper:
    """Keeps the counts of the bucket being processed until the second ends. `longest`: see :class:`Measuring`."""

    def __init__(self, context: RuntimeContext, settings: FeedbackSettings, longest: int) -> None:
        raw = Types.PICKLED_BYTE_ARRAY()
        self._sums = context.get_list_state(ListStateDescriptor("feedback-sums-v1", raw))
        self._settings, self._longest = settings, longest

    def measuring(self) -> Measuring:
        """What the next element is to be measured with."""
        return Measuring(self._settings, self._longest)

    def measured(self, measuring: Measuring, events: list[EventRecord], model: Knowing) -> bytes:
        """The counts of an element: of users whose `events` were accepted in the end. `model` makes most lists."""
        sums = measuring.sums({event.pseudonym for event in events}, model)
        return encode_sums(sums) if any(sums.kinds) else b""

    def put(self, measured: bytes, ctx: Any) -> None:
        """Store counts until the second ends."""
        if measured:
            self._sums.add(measured)
            register_end_of(SUMS_EVERY_MS, ctx)

    def sums(self) -> Iterator[Any]:
        """The sums of what was stored since the last call."""
        stored = list(self._sums.get() or ())
        if stored:
            self._sums.clear()
            yield FEEDBACK, encode_sums(added([decode_sums(raw) for raw in stored]))
