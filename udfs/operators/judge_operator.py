"""Shell around :mod:`udfs.judging`: adds up what all buckets see of a trial, and rolls back a model that is worse."""

import logging
from collections.abc import Iterator
from typing import Any, Final

from pyflink.common import Types
from pyflink.datastream import OutputTag, RuntimeContext
from pyflink.datastream.functions import KeyedProcessFunction
from pyflink.datastream.state import ListStateDescriptor, ValueStateDescriptor

from models.paired_gains import Counts, no_pairs
from schemas.receipts import encode_receipt
from schemas.topics import DAY_MS
from udfs.fault_log import FaultLog
from udfs.judging import JudgeSettings, TrialStanding, decode_standing, encode_standing, rollbacks
from udfs.operators.interpreter import prepare, tell_log
from udfs.operators.outputs import RECEIPTS
from udfs.operators.timers import register_end_of
from udfs.rollout import Trial
from udfs.shadow import summed

COMMANDS: Final = OutputTag("commands", Types.PRIMITIVE_ARRAY(Types.BYTE()))
JUDGE_EVERY_MS: Final = 1_000
SAY_EVERY_MS: Final = 5_000
SAID_AGAIN_MS: Final = 30_000
"""If lists are still compared this long after a rollback was commanded, it is commanded again."""
FORGOTTEN_AFTER_MS: Final = 7 * DAY_MS
logger = logging.getLogger(__name__)


class JudgeOperator(KeyedProcessFunction):
    """Keyed by trial; takes (key, packed counts). Main output: what is known of the trial, for the topic `metrics`.

    Side outputs: receipts of verdicts, and commands for `control`, one for each of `buckets`.
    """

    def __init__(self, settings: JudgeSettings, buckets: int) -> None:
        self._settings, self._buckets = settings, buckets

    def open(self, runtime_context: RuntimeContext) -> None:
        """Called by Flink in the worker before the first element."""
        prepare()
        tell_log("judge", runtime_context)
        raw = Types.PICKLED_BYTE_ARRAY()
        self._pending = runtime_context.get_list_state(ListStateDescriptor("trials-pending-v1", raw))
        self._standing = runtime_context.get_state(ValueStateDescriptor("trial-v1", raw))
        group = runtime_context.get_metrics_group().add_group("freshet")
        self._lists, self._worse = group.counter("trial_lists"), group.counter("models_found_worse")
        self._said_at: dict[Trial, int] = {}
        self._report = FaultLog(logger, "counts of a trial cannot be read: they are left out")

    def process_element(self, value: tuple[str, bytes], ctx: KeyedProcessFunction.Context) -> Iterator[Any]:
        """Store the counts of a bucket; a timer adds them up."""
        self._pending.add(value[1])
        register_end_of(JUDGE_EVERY_MS, ctx)
        return iter(())

    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Iterator[Any]:
        """Add up, and say what is known; forget a trial that ended long ago."""
        now_ms, trial = ctx.timer_service().current_processing_time(), Trial(*str(ctx.get_current_key()).split("\n"))
        standing = self._opened(trial)
        pending = list(self._pending.get() or ())
        self._pending.clear()
        if not pending:
            if now_ms - standing.changed_at >= FORGOTTEN_AFTER_MS:
                self._standing.clear()
                self._said_at.pop(trial, None)
            return
        yield from self._judged(standing, pending, now_ms)
        self._standing.update(encode_standing(standing))
        ctx.timer_service().register_processing_time_timer((now_ms // DAY_MS + 1) * DAY_MS + FORGOTTEN_AFTER_MS)

    def _judged(self, standing: TrialStanding, pending: list[bytes], now_ms: int) -> Iterator[Any]:
        counts = self._sum(pending, standing.trial)
        self._lists.inc(int(counts.sum()))
        if standing.add(counts, self._settings, now_ms):
            self._worse.inc()
            yield RECEIPTS, encode_receipt(standing.receipt(self._settings, now_ms))
        if standing.should_roll_back(now_ms, SAID_AGAIN_MS):
            for command in rollbacks(standing, self._buckets, now_ms):
                yield COMMANDS, command
        if now_ms - self._said_at.get(standing.trial, 0) >= SAY_EVERY_MS or standing.decided_at == now_ms:
            self._said_at[standing.trial] = now_ms
            yield encode_receipt(standing.receipt(self._settings, now_ms))

    def _opened(self, trial: Trial) -> TrialStanding:
        try:
            return decode_standing(self._standing.value(), trial)
        except Exception as error:  # judging may not stop the job
            self._report(error)
            return decode_standing(None, trial)

    def _sum(self, pending: list[bytes], trial: Trial) -> Counts:
        """All counts of a second together: the order in which buckets come is chance."""
        sums = no_pairs()
        for raw in pending:
            try:
                sums = sums + summed([raw]).get(trial, no_pairs())
            except Exception as error:  # any error would recur after each restart
                self._report(error)
        return sums
