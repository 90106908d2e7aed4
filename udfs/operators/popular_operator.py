"""The Flink operator around :mod:`udfs.popularity`: keyed by segment, merges sums, publishes a list every second."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple
from zlib import crc32

import msgspec
from pyflink.common import Types
from pyflink.datastream import RuntimeContext
from pyflink.datastream.functions import KeyedProcessFunction
from pyflink.datastream.state import ListStateDescriptor, ValueStateDescriptor

from schemas.lists import encode_list
from schemas.recommendation_ids import RecommendationIds
from schemas.topics import HOUR_MS
from udfs.assortment import Following, Unfollowed
from udfs.fault_log import FaultLog
from udfs.operators.cancellation import interrupted
from udfs.operators.interpreter import prepare
from udfs.operators.list_store import ListStore
from udfs.operators.patience import Patience
from udfs.popularity import (
    Popularity,
    PopularitySettings,
    PopularityTable,
    SegmentSums,
    decode_popularity,
    decode_sums,
    encode_popularity,
)

logger = logging.getLogger(__name__)


class PopularParts(NamedTuple):
    """What the operator depends on; created in the worker, or by a test from fakes."""

    store: ListStore
    model_name: str
    epoch: int
    settings: PopularitySettings
    ids: RecommendationIds | None = None
    catalogue: Following = Unfollowed()


class PopularOperator(KeyedProcessFunction):
    """Takes (segment, packed sums). Emits nothing: it publishes to Redis.

    Arriving sums are appended to a list state, one small write each, and merged into the table once a second. So
    nothing is buffered outside state, and the table, which may be large, is not rewritten for every element. The merged
    table also stays decoded in memory, because decoding 20,000 items takes milliseconds.
    """

    def __init__(self, open_parts: Callable[[], PopularParts]) -> None:
        self._open_parts = open_parts

    def open(self, runtime_context: RuntimeContext) -> None:
        """Called by Flink in the worker before the first element."""
        prepare()
        raw = Types.PICKLED_BYTE_ARRAY()
        self._pending = runtime_context.get_list_state(ListStateDescriptor("pending-v1", raw))
        self._table = runtime_context.get_state(ValueStateDescriptor("popularity-v1", raw))
        self._parts = self._open_parts()
        self._parts.catalogue.start()
        self._patiently = Patience(self._parts.store.outage_max_ms, interrupted)
        self._opened: dict[str, PopularityTable] = {}
        group = runtime_context.get_metrics_group().add_group("freshet")
        self._log_fault = FaultLog(logger, "popularity of a second cannot be merged: what fits is")
        self._retries, self._given_up = group.counter("store_retries"), group.counter("records_given_up")

    def close(self) -> None:
        """Called by Flink when the worker ends."""
        self._parts.catalogue.stop()

    def process_element(self, value: tuple[str, bytes], ctx: KeyedProcessFunction.Context) -> Iterator[Any]:
        """Append the sums of one bucket; a timer merges them.

        Each segment has its own moment within the second: merging all at once would delay the personal lists.
        """
        self._pending.add(value[1])
        every_ms = self._parts.settings.publish_every_ms
        now_ms, moment_ms = ctx.timer_service().current_processing_time(), crc32(value[0].encode()) % every_ms
        ctx.timer_service().register_processing_time_timer(
            now_ms + every_ms - (now_ms - moment_ms) % every_ms,
        )
        return iter(())

    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Iterator[Any]:
        """Merge the pending sums, and publish.

        Uses the current time and not `timestamp`: after a restore the first timer is in the past, and its list would be
        older than the published one.
        """
        parts, now_ms, segment = self._parts, ctx.timer_service().current_processing_time(), str(ctx.get_current_key())
        pending = list(self._pending.get() or ())
        if not pending:
            self._forget_if_idle(segment, now_ms)
            return iter(())
        table = self._merged(segment, pending, now_ms)
        self._pending.clear()
        popularity = table.close()
        self._table.update(encode_popularity(popularity))
        idle_at_ms = now_ms + parts.settings.list_ttl_ms
        ctx.timer_service().register_processing_time_timer(-(-idle_at_ms // HOUR_MS) * HOUR_MS)
        top = table.listed(parts.catalogue.assortment, segment, now_ms)
        if top.fragments:
            payload = encode_list(
                popularity.version,
                parts.epoch,
                msgspec.json.encode(parts.model_name),
                time.time_ns() // 1_000_000,
                "popular",
                top.fragments,
                [round(weight, 4) for weight in top.scores],
                parts.ids.of("", parts.model_name, "", popularity.version, now_ms) if parts.ids is not None else b"",
            )
            ttl_ms = parts.settings.list_ttl_ms
            self._patiently(
                lambda: parts.store.write_popular(segment, parts.epoch, popularity.version, ttl_ms, payload),
                self._retries.inc,
            )
        return iter(())

    def _merged(self, segment: str, pending: Sequence[bytes], now_ms: int) -> PopularityTable:
        """The table of `segment` with `pending` merged in; sums that cannot be merged are left out."""
        table = self._opened.get(segment) or self._open_table(segment)
        try:
            table.merge([decode_sums(raw) for raw in pending], now_ms)
        except Exception as error:  # any error would recur after each restart
            self._log_fault(error)
            # The table in memory may be half merged; the one in state is whole.
            table = self._open_table(segment)
            table.merge([sums for raw in pending if (sums := self._mergeable(raw)) is not None], now_ms)
        return table

    def _mergeable(self, raw: bytes) -> SegmentSums | None:
        """The sums in `raw` if an empty table accepts them; others are counted."""
        try:
            sums = decode_sums(raw)
            PopularityTable(Popularity(), self._parts.settings).merge([sums], 0)
        except Exception:  # logged already
            self._given_up.inc()
            return None
        return sums

    def _open_table(self, segment: str) -> PopularityTable:
        stored = decode_popularity(self._table.value())
        table = self._opened[segment] = PopularityTable(stored, self._parts.settings)
        return table

    def _forget_if_idle(self, segment: str, now_ms: int) -> None:
        """Drop a segment idle for a list's life: producers choose segment names, so their number is unbounded."""
        merged_at_ms = decode_popularity(self._table.value()).version
        if now_ms - merged_at_ms >= self._parts.settings.list_ttl_ms:
            self._table.clear()
            self._opened.pop(segment, None)
