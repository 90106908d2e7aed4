"""Shell around :mod:`models.online.learner`: merges lessons once a second, and publishes the update to Redis, with the
lists of :mod:`udfs.shared_lists`.

State is what was learned up to a moment, by blocks of rows, and the lessons since then: rows change with every event,
and writing all that changed each second would cost more than learning it.
"""

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from pyflink.common import Types
from pyflink.datastream import RuntimeContext
from pyflink.datastream.functions import KeyedProcessFunction
from pyflink.datastream.state import ListStateDescriptor, MapStateDescriptor, ValueStateDescriptor

from models.online.learner import Learner
from models.online.learner_state import BLOCK_ROWS, decode_learner, encode_blocks, encode_head
from models.online.lessons import LessonSums, decode_sums
from models.online.tables import Tables
from models.online.updates import Update, encode_update
from schemas.errors import FreshetError, SchemaError
from schemas.store import RELEARNED_HEAD, TRENDING, PublishOutcome
from udfs.assortment import Following, Unfollowed
from udfs.fault_log import FaultLog
from udfs.learning import LearnSettings
from udfs.online_model import ONLINE
from udfs.operators.cancellation import interrupted
from udfs.operators.interpreter import prepare, tell_log
from udfs.operators.learning_keeper import RELEARN
from udfs.operators.list_store import ListStore
from udfs.operators.patience import Patience
from udfs.operators.timers import register_end_of
from udfs.popularity import PopularitySettings
from udfs.shared_lists import SharedLists

PUBLISH_EVERY_MS: Final = 1_000
STORE_EVERY_MS: Final = 10_000
WHOLE_EVERY_MS: Final = 60_000
logger = logging.getLogger(__name__)


class LearnParts(NamedTuple):
    """What the operator depends on; created in the worker, or by a test from fakes."""

    store: ListStore
    settings: LearnSettings
    popularity: PopularitySettings
    epoch: int
    catalogue: Following = Unfollowed()


class Merged(msgspec.Struct, array_like=True, frozen=True):
    """Where in the lessons since the last storing a second ended: all before it were merged at `at_ms`."""

    at_ms: int


class LearnOperator(KeyedProcessFunction):
    """Takes packed lessons, all under one key. No output: updates go to Redis."""

    def __init__(self, open_parts: Callable[[], LearnParts]) -> None:
        self._open_parts = open_parts

    def open(self, runtime_context: RuntimeContext) -> None:
        """Called by Flink in the worker before the first element."""
        prepare()
        tell_log("learn", runtime_context)
        raw = Types.PICKLED_BYTE_ARRAY()
        self._lessons = runtime_context.get_list_state(ListStateDescriptor("lessons-v1", raw))
        self._rows = runtime_context.get_map_state(MapStateDescriptor("rows-v1", Types.STRING(), raw))
        self._head = runtime_context.get_state(ValueStateDescriptor("learner-v1", raw))
        self._parts = self._open_parts()
        self._parts.catalogue.start()
        self._patiently = Patience(self._parts.store.outage_max_ms, interrupted)
        self._learner: Learner | None = None
        self._tables = Tables()
        parts = self._parts
        self._shared = SharedLists(parts.settings, parts.popularity, parts.epoch, ONLINE, parts.catalogue.assortment)
        self._waiting: list[LessonSums] = []
        self._whole_at = 0
        group = runtime_context.get_metrics_group().add_group("freshet")
        self._retries, self._left_out = group.counter("store_retries"), group.counter("lessons_left_out")
        self._updates, self._similar = group.counter("model_updates"), group.counter("similar_lists")
        self._report = FaultLog(logger, "lessons cannot be merged: they are left out")
        self._report_state = FaultLog(
            logger,
            "the new state of the online model cannot be read: the model is empty, run `freshet model relearn` again",
        )

    def close(self) -> None:
        """Called by Flink when the worker ends."""
        self._parts.catalogue.stop()

    def process_element(self, value: bytes, ctx: KeyedProcessFunction.Context) -> Iterator[Any]:
        """Store lessons, which a timer merges; or go on from another state (:data:`RELEARN`)."""
        self._open_learner(ctx)
        if value.startswith(RELEARN):
            self._replace(value[len(RELEARN) :].decode(), ctx)
            return iter(())
        self._lessons.add(value)
        self._take(value)
        register_end_of(PUBLISH_EVERY_MS, ctx)
        return iter(())

    def _take(self, raw: bytes) -> None:
        try:
            self._waiting.append(decode_sums(raw))
        except SchemaError as error:
            self._report(error)
            self._left_out.inc()

    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Iterator[Any]:
        """Merge the lessons of a second, and publish; store what changed, and the whole model, when it is time to."""
        self._open_learner(ctx)
        now_ms = ctx.timer_service().current_processing_time()
        if self._waiting and (update := self._merged(now_ms)) is not None:
            self._publish(update)
            self._publish_trending(self._open_learner(ctx), now_ms)
            register_end_of(STORE_EVERY_MS, ctx)
            register_end_of(WHOLE_EVERY_MS, ctx)
        self._publish_similar(now_ms, ctx)
        if timestamp % STORE_EVERY_MS == 0:
            self._store(self._open_learner(ctx))
        if timestamp % WHOLE_EVERY_MS == 0 and self._whole_at != self._tables.sequence:
            self._publish_whole()
        return iter(())

    def _merged(self, now_ms: int) -> Update | None:
        """The update with the waiting lessons; None, with these left out, if they cannot be merged."""
        lessons, self._waiting = self._waiting, []
        assert self._learner is not None
        try:
            update = self._learner.learn(lessons, now_ms)
            self._tables.apply(update)
        except Exception as error:  # whatever it is, it would happen again after each restart
            self._report(error)
            self._left_out.inc(len(lessons))
            self._go_back()
            return None
        self._lessons.add(_MERGED + msgspec.msgpack.encode(Merged(now_ms)))
        return update

    def _go_back(self) -> None:
        """Forget the lessons that no marker follows, and open the learner anew: what is in memory is half merged."""
        stored = list(self._lessons.get() or ())
        merged = max((place for place, raw in enumerate(stored, start=1) if raw.startswith(_MERGED)), default=0)
        self._lessons.clear()
        for raw in stored[:merged]:
            self._lessons.add(raw)
        self._learner = None

    def _replace(self, request: str, ctx: Any) -> None:
        """Go on from the state in the store; from nothing, if it is not there any more or cannot be read.

        A command is read again after a restore, which brings back what the new state was to remove: without that state,
        to go on would break the promise of an erasure.
        """
        before, learner = self._tables.ids, self._empty()
        try:
            head, blocks = self._relearned(request)
            decode_learner(head, {int(block): raw for block, raw in blocks.items()}, learner)
        except Exception as error:  # whatever it is, it would happen again after each restart
            if isinstance(error, FreshetError) and not isinstance(error, SchemaError):
                raise  # of Redis: the command is not at fault
            self._report_state(error)
            learner = self._empty()
            head, blocks = encode_head(learner), {}
        self._rows.clear()
        for block, raw in blocks.items():
            self._rows.put(block, raw)
        self._head.update(head)
        self._lessons.clear()
        self._waiting, self._tables = [], Tables()
        self._begin(learner, ctx)
        self._publish_whole()
        self._replace_shared(learner, before, ctx)
        self._patiently(lambda: self._parts.store.confirm_relearned(request), self._retries.inc)

    def _replace_shared(self, learner: Learner, before: Sequence[str], ctx: Any) -> None:
        """Publish the lists of the new state, and empty ones for items `before` that have none any more."""
        store, settings, tables = self._parts.store, self._parts.settings, self._tables
        now_ms, whole = ctx.timer_service().current_processing_time(), tables.whole()
        kept = {tables.ids[row] for row in whole.pair_rows().tolist()}
        ended = self._shared.ended((item for item in before if item and item not in kept), tables, now_ms)
        for begin in range(0, len(ended), settings.similar_lists_max):
            some = ended[begin : begin + settings.similar_lists_max]
            self._patiently(functools.partial(store.write_similar, some, settings.similar_ttl_ms), self._retries.inc)
        self._shared.begin_anew(whole)
        self._publish_trending(learner, now_ms)
        register_end_of(PUBLISH_EVERY_MS, ctx)

    def _relearned(self, request: str) -> tuple[bytes, dict[str, bytes]]:
        """Head and blocks of a new state. Raises :class:`SchemaError` if a part is missing."""
        store = self._parts.store

        def part(name: str) -> bytes | None:
            return self._patiently(lambda: store.relearned(request, name), self._retries.inc)

        count, _, head = (part(RELEARNED_HEAD) or b"").partition(b":")
        wanted = int(count) if count.isdigit() and len(count) < 6 else 0
        blocks = {str(block): part(str(block)) for block in range(wanted)}
        found = {block: raw for block, raw in blocks.items() if raw is not None}
        if not blocks or len(found) < len(blocks):
            raise SchemaError("a part of the new state is missing: it has expired, or Redis has lost it")
        return head, found

    def _publish(self, update: Update) -> None:
        store, packed = self._parts.store, encode_update(update)
        outcome = self._patiently(
            lambda: store.publish_update(update.sequence, update.after, packed), self._retries.inc
        )
        self._updates.inc()
        self._shared.note(update)
        if outcome == PublishOutcome.WANTS_WHOLE:
            self._publish_whole()
            self._shared.note(self._tables.whole())  # Redis may have lost the lists, too

    def _publish_whole(self) -> None:
        """Write the whole model, as scorers that followed have it. It is never older than an update may become."""
        store, tables = self._parts.store, self._tables
        whole = encode_update(tables.whole())
        self._patiently(lambda: store.publish_whole(tables.sequence, whole), self._retries.inc)
        self._whole_at = tables.sequence

    def _publish_trending(self, learner: Learner, now_ms: int) -> None:
        """Publish what is trending, if that has changed."""
        store, parts, sequence = self._parts.store, self._parts, self._tables.sequence
        payload = self._shared.trending(learner.popularity, self._tables, now_ms)
        if payload is not None:
            ttl_ms = parts.settings.trending_ttl_ms
            self._patiently(
                lambda: store.write_popular(TRENDING, parts.epoch, sequence, ttl_ms, payload), self._retries.inc
            )

    def _publish_similar(self, now_ms: int, ctx: KeyedProcessFunction.OnTimerContext) -> None:
        """Publish lists of similar items; those that are left follow in the next second."""
        store, ttl_ms = self._parts.store, self._parts.settings.similar_ttl_ms
        lists = self._shared.similar(self._tables, now_ms)
        if lists:
            self._patiently(lambda: store.write_similar(lists, ttl_ms), self._retries.inc)
            self._similar.inc(len(lists))
        if self._shared.are_left:
            register_end_of(PUBLISH_EVERY_MS, ctx)

    def _store(self, learner: Learner) -> None:
        blocks = {row // BLOCK_ROWS for row in learner.take_changed()}
        for block, raw in encode_blocks(learner, sorted(blocks)).items():
            self._rows.put(str(block), raw)
        self._head.update(encode_head(learner))
        self._lessons.clear()

    def _open_learner(self, ctx: Any) -> Learner:
        """The learner; after a start, from state. Scorers then get a model that begins anew."""
        if self._learner is not None:
            return self._learner
        self._waiting = []
        learner = self._empty()
        blocks = {int(block): self._rows.get(block) for block in list(self._rows.keys())}
        decode_learner(self._head.value(), blocks, learner)
        for raw in list(self._lessons.get() or ()):
            if raw.startswith(_MERGED):
                learner.learn(self._waiting, msgspec.msgpack.decode(raw[len(_MERGED) :], type=Merged).at_ms)
                self._waiting = []
            else:
                self._take(raw)
        self._begin(learner, ctx)
        return learner

    def _empty(self) -> Learner:
        settings = self._parts.settings
        return Learner(settings.items_max, settings.pair_rows_max)

    def _begin(self, learner: Learner, ctx: Any) -> None:
        """Go on with `learner`, of which scorers know nothing yet."""
        self._learner = learner
        now_ms, store = ctx.timer_service().current_processing_time(), self._parts.store
        # Above all that was published: a sequence names one model, even if the clock has stepped back.
        last = self._patiently(lambda: store.update_after(0).head, self._retries.inc)
        self._tables.apply(learner.begin(max(now_ms, last + 1)))


_MERGED: Final = b"\x00merged"
