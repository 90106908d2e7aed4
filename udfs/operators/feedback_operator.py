"""Shell around :mod:`udfs.feedback_windows`: adds up the counts of all buckets, counts them as metrics, and writes the
windows to the topic `metrics`."""

import logging
from collections.abc import Iterator
from typing import Any, Final

from pyflink.common import Types
from pyflink.datastream import RuntimeContext
from pyflink.datastream.functions import KeyedProcessFunction
from pyflink.datastream.state import ListStateDescriptor, ValueStateDescriptor

from schemas.events import EVENT_TYPES
from schemas.receipts import encode_receipt
from udfs.drift import DriftSettings
from udfs.drift_watch import DriftWatch, decode_watch, encode_watch
from udfs.fault_log import FaultLog
from udfs.feedback import Counts, FeedbackSettings, FeedbackSums, Series, added, decode_sums
from udfs.feedback_windows import FeedbackWindows, metric_records
from udfs.operators.interpreter import prepare, tell_log
from udfs.operators.outputs import RECEIPTS
from udfs.operators.timers import register_end_of

COUNTED: Final = ("lists", "impressions", "clicks", "purchases")
logger = logging.getLogger(__name__)


class FeedbackOperator(KeyedProcessFunction):
    """Takes packed counts, all under one key. Output: the JSON records of the topic `metrics`."""

    def __init__(self, settings: FeedbackSettings, drift: DriftSettings) -> None:
        self._settings, self._drift = settings, drift

    def open(self, runtime_context: RuntimeContext) -> None:
        """Called by Flink in the worker before the first element."""
        prepare()
        tell_log("feedback", runtime_context)
        raw = Types.PICKLED_BYTE_ARRAY()
        self._pending = runtime_context.get_list_state(ListStateDescriptor("feedback-pending-v1", raw))
        self._windows = runtime_context.get_state(ValueStateDescriptor("feedback-windows-v1", raw))
        self._watch = runtime_context.get_state(ValueStateDescriptor("drift-v1", raw))
        self._alarms = runtime_context.get_metrics_group().add_group("freshet").counter("drift_alarms")
        self._group = runtime_context.get_metrics_group().add_group("freshet").add_group("feedback")
        self._counters: dict[Series, dict[str, Any]] = {}
        self._report = FaultLog(logger, "feedback cannot be read: it is left out")

    def process_element(self, value: bytes, ctx: KeyedProcessFunction.Context) -> Iterator[Any]:
        """Store the counts of a bucket; a timer adds them up."""
        self._pending.add(value)
        register_end_of(self._settings.publish_every_ms, ctx)
        return iter(())

    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Iterator[Any]:
        """Add up, and write all windows; again later, until all windows are empty."""
        now_ms = ctx.timer_service().current_processing_time()
        windows = self._opened()
        pending = list(self._pending.get() or ())
        sums = self._sums(pending)
        counted = windows.add(sums.series, now_ms)
        for series, counts in counted.items():
            self._count(series, counts)
        self._pending.clear()
        yield from self._watched(counted, sums, now_ms)
        self._windows.update(windows.encode(now_ms))
        if windows.series():
            register_end_of(self._settings.publish_every_ms, ctx)
        yield from metric_records(windows, now_ms)

    def _watched(self, counted: dict[Series, Counts], sums: FeedbackSums, now_ms: int) -> Iterator[Any]:
        """What has drifted: as receipts, and in `metrics`."""
        try:
            watch = decode_watch(self._watch.value())
            alarms = watch.alarms(now_ms, self._drift)
        except Exception as error:  # watching may not stop the job
            self._report(error)
            watch, alarms = DriftWatch(), []
        watch.add(counted, sums, now_ms)
        self._watch.update(encode_watch(watch))
        for alarm in alarms:
            self._alarms.inc()
            yield RECEIPTS, encode_receipt(alarm)
            yield encode_receipt(alarm)

    def _opened(self) -> FeedbackWindows:
        try:
            return FeedbackWindows(self._settings.series_max, self._windows.value())
        except Exception as error:  # measuring may not stop the job
            self._report(error)
            return FeedbackWindows(self._settings.series_max)

    def _sums(self, pending: list[bytes]) -> FeedbackSums:
        found = [FeedbackSums({}, [0] * len(EVENT_TYPES))]
        for raw in pending:
            try:
                found.append(decode_sums(raw))
            except Exception as error:  # any error would recur after each restart
                self._report(error)
        return added(found)

    def _count(self, series: Series, counts: Counts) -> None:
        counters = self._counters.get(series)
        if counters is None:
            group = self._group
            for name, value in series._asdict().items():
                group = group.add_group(name, value or "-")
            counters = self._counters[series] = {name: group.counter(name) for name in COUNTED}
        for name, counter in counters.items():
            if more := getattr(counts, name):
                counter.inc(more)
