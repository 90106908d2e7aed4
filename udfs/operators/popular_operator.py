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
from udfs.operators.interpreter import prepare, tell_log
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

    Arriving sums are appended to a list state, one small write each, and merged once a second into the table, which
    stays decoded in memory. The table in state is written, and the sums in state cleared, only when they have grown as
    large as it. So nothing is buffered outside state, which is at most twice the table, and what is written in all is
    at most twice what arrived.
    """

    def __init__(self, open_parts: Callable[[], PopularParts]) -> None:
        self._open_parts = open_parts

    def open(self, runtime_context: RuntimeContext) -> None:
        """Called by Flink in the worker before the first element."""
        prepare()
        tell_log("popular", runtime_context)
        raw = Types.PICKLED_BYTE_ARRAY()
        self._pending = runtime_context.get_list_state(ListStateDescriptor("pending-v1", raw))
        self._table = runtime_context.get_state(ValueStateDescriptor("popularity-v1", raw))
        self._parts = self._open_parts()
        self._parts.catalogue.start()
        self._patiently = Patience(self._parts.store.outage_max_ms, interrupted)
        self._opened: dict[str, PopularityTable] = {}
        self._arrived: dict[str, list[bytes]] = {}
        """Sums that are in state and not yet in the table in memory, by segment."""
        self._unwritten: dict[str, int] = {}
        """Bytes of sums that are in state and not yet in the table there, by segment."""
        self._written: dict[str, int] = {}
        """Bytes of the table in state, by segment."""
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
        segment, sums = value
        self._pending.add(sums)
        if segment in self._opened:
            self._arrived.setdefault(segment, []).append(sums)
            self._unwritten[segment] += len(sums)
        every_ms = self._parts.settings.publish_every_ms
        now_ms, moment_ms = ctx.timer_service().current_processing_time(), crc32(segment.encode()) % every_ms
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
        table = self._merged(segment, now_ms)
        if table is None:
            self._forget_if_idle(segment, now_ms)
            return iter(())
        if self._unwritten[segment] >= self._written[segment]:
            self._write(segment, table)
        idle_at_ms = now_ms + parts.settings.list_ttl_ms
        ctx.timer_service().register_processing_time_timer(-(-idle_at_ms // HOUR_MS) * HOUR_MS)
        top = table.listed(parts.catalogue.assortment, segment, now_ms)
        if top.fragments:
            payload = encode_list(
                table.version,
                parts.epoch,
                msgspec.json.encode(parts.model_name),
                time.time_ns() // 1_000_000,
                "popular",
                top.fragments,
                [round(weight, 4) for weight in top.scores],
                parts.ids.of("", parts.model_name, "", table.version, now_ms) if parts.ids is not None else b"",
            )
            ttl_ms = parts.settings.list_ttl_ms
            self._patiently(
                lambda: parts.store.write_popular(segment, parts.epoch, table.version, ttl_ms, payload),
                self._retries.inc,
            )
        return iter(())

    def _merged(self, segment: str, now_ms: int) -> PopularityTable | None:
        """The table of `segment` with what has arrived; None if nothing has. Leaves out sums that cannot be merged."""
        table = self._opened.get(segment)
        if table is not None:
            arrived = self._arrived.pop(segment, [])
        else:
            arrived = list(self._pending.get() or ())
            table = self._open_table(segment, arrived)
        if not arrived:
            return None
        try:
            table.merge([decode_sums(raw) for raw in arrived], now_ms)
        except Exception as error:  # any error would recur after each restart
            self._log_fault(error)
            # The table in memory may be half merged; what is in state is whole.
            held = list(self._pending.get() or ())
            table = self._open_table(segment, held)
            table.merge([sums for raw in held if (sums := self._mergeable(raw)) is not None], now_ms)
            self._write(segment, table)
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

    def _open_table(self, segment: str, pending: Sequence[bytes]) -> PopularityTable:
        """The table in state, without the sums beside it, which are `pending`."""
        raw = self._table.value()
        table = self._opened[segment] = PopularityTable(decode_popularity(raw), self._parts.settings)
        self._written[segment] = len(raw or b"")
        self._unwritten[segment] = sum(map(len, pending))
        return table

    def _write(self, segment: str, table: PopularityTable) -> None:
        """Replace the table in state, and the sums beside it, by `table`, which contains both."""
        raw = encode_popularity(table.close())
        self._table.update(raw)
        self._pending.clear()
        self._written[segment], self._unwritten[segment] = len(raw), 0

    def _forget_if_idle(self, segment: str, now_ms: int) -> None:
        """Drop a segment idle for a list's life: producers choose segment names, so their number is unbounded."""
        table = self._opened[segment]
        if now_ms - table.version >= self._parts.settings.list_ttl_ms:
            self._table.clear()
            self._pending.clear()
            for known in (self._opened, self._arrived, self._written, self._unwritten):
                known.pop(segment, None)
