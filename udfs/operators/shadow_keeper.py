"""Collects in keyed state how two models compare in a bucket, and passes the counts on each second."""

import logging
from collections.abc import Iterator
from typing import Any, Final

from pyflink.common import Row, Types
from pyflink.datastream import OutputTag, RuntimeContext
from pyflink.datastream.state import ListStateDescriptor

from udfs.operators.timers import register_end_of
from udfs.rollout import Trial
from udfs.shadow import encode_trials, summed

TRIALS: Final = OutputTag("trials", Types.ROW([Types.STRING(), Types.PRIMITIVE_ARRAY(Types.BYTE())]))
SUMS_EVERY_MS: Final = 1_000
logger = logging.getLogger(__name__)


class ShadowKeeper:
    """Keeps the counts of the bucket being processed until the second ends."""

    def __init__(self, context: RuntimeContext) -> None:
        self._trials = context.get_list_state(ListStateDescriptor("trials-v1", Types.PICKLED_BYTE_ARRAY()))

    def put(self, compared: bytes, ctx: Any) -> None:
        """Store counts until the second ends."""
        if compared:
            self._trials.add(compared)
            register_end_of(SUMS_EVERY_MS, ctx)

    def sums(self) -> Iterator[Any]:
        """For each trial, its name and the sums of what was stored since the last call."""
        stored = list(self._trials.get() or ())
        if stored:
            self._trials.clear()
            for trial, counts in summed(stored).items():
                yield TRIALS, Row(key_of(trial), encode_trials({trial: counts}))


def key_of(trial: Trial) -> str:
    """The stream key of a trial at the judge."""
    return "\n".join(trial)
