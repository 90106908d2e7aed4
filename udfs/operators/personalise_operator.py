"""The Flink operator around the rules for a bucket's users: reads state, calls the rules, writes Redis and state.

Everything that an element causes is done before the next element begins, so a checkpoint never contains half of it.
Keepers hold the state: users (:mod:`udfs.operators.user_keeper`), popularity and the audit trail. Access to Redis is in
:mod:`udfs.operators.store_keeper`, output in :mod:`udfs.operators.outputs`.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from pyflink.common import Types
from pyflink.datastream import RuntimeContext
from pyflink.datastream.functions import KeyedProcessFunction
from pyflink.datastream.state import ValueStateDescriptor

from schemas import metrics
from schemas.audit import ExpiryEntry
from schemas.errors import FreshetError
from schemas.store import ListWrite, Written
from udfs.account import Account, decode_account, encode_account
from udfs.assortment import Following, Unfollowed
from udfs.audit_chain import Author
from udfs.due import Due, RefreshSettings, kept_longer, when_due
from udfs.elements import BucketMark, Element, fields_of_record, halves, replacement_for, unpack_gathered
from udfs.exploring import remember
from udfs.fallback_model import REMOTE_COUNTERS, FallbackModel
from udfs.fault_log import FaultLog
from udfs.feedback import FeedbackSettings, Measuring
from udfs.generations import current_decision, should_have_list
from udfs.handover import newest
from udfs.learning import Teaching
from udfs.online_model import OnlineModel
from udfs.operators.audit_keeper import AuditKeeper, AuditNote
from udfs.operators.commands import execute_commands
from udfs.operators.current_key import CurrentKey
from udfs.operators.element_meters import ElementMeters
from udfs.operators.feedback_keeper import FeedbackKeeper
from udfs.operators.gate import OPEN, WriteGate, expect_turn, in_turns, subtask_of
from udfs.operators.generation_keeper import GenerationParts
from udfs.operators.interpreter import prepare, tell_log
from udfs.operators.learning_keeper import LESSONS, LearningKeeper, Taught
from udfs.operators.list_store import ListStore
from udfs.operators.list_tracer import ListTracer, SpanQueue
from udfs.operators.meters import ModelLevels
from udfs.operators.model_shelf import ModelShelf
from udfs.operators.outputs import AppliedElement, consent_entries, side_outputs
from udfs.operators.popularity_keeper import PopularityKeeper, Weighed, empty_sums
from udfs.operators.rollout_keeper import RolloutKeeper, Turn
from udfs.operators.shadow_keeper import ShadowKeeper
from udfs.operators.store_keeper import BucketLists, StoreKeeper
from udfs.operators.timers import TICK_MS
from udfs.operators.user_keeper import UserKeeper, UserParts, UserWrites
from udfs.personalise import Changes, Users, apply
from udfs.popularity import PopularitySettings
from udfs.profile import ProfileBounds
from udfs.ranking import PopularItems, Ranker
from udfs.shadow import Shadowing
from udfs.state import UserState

logger = logging.getLogger(__name__)


class Watching(Protocol):
    """Watches what the job has not read; :class:`jobs.unread.UnreadWatch`. Answers at once."""

    records: int
    """How many records of consents and interactions are unread."""

    def __call__(self) -> int:
        """The age (ms) of the oldest unread consent."""
        ...


class PersonaliseParts(NamedTuple):
    """What the operator depends on; created in the worker by `open_parts`, or by a test from fakes.

    `shelf` has the models. `fallback` fills up lists until popular lists exist. `interactions` is the topic of
    interactions. `unread` knows what the job has not read. `online` is the model that learns
    in the stream, if one does. `catalogue` has the assortment of `ranker`. `gate` knows
    whose turn it is to write. `spans` takes the spans of sampled events, if they are wanted.
    """

    ranker: Ranker
    shelf: ModelShelf
    store: ListStore
    fallback: PopularItems
    epoch: int
    interactions: str
    bounds: ProfileBounds
    refresh: RefreshSettings
    popularity: PopularitySettings
    due_users_per_second: int
    audit: Author
    generation: GenerationParts
    unread: Watching
    online: OnlineModel | None = None
    feedback: FeedbackSettings = FeedbackSettings()
    catalogue: Following = Unfollowed()
    remote: FallbackModel | None = None
    gate: WriteGate = OPEN
    spans: SpanQueue | None = None


class Attempt(NamedTuple):
    """Elements to apply together, by bucket key.

    A single record gets a second attempt, because its first failure may have been transient. Without `writes`, another
    job writes what follows from them, and this one only keeps its state up to date.
    """

    elements: Mapping[int, Element]
    first: bool = True
    writes: bool = True


class RuledElement(NamedTuple):
    """An element once the rules have been applied to its bucket: what it moves is still to be ranked and written.

    `duplicates` are those of the account before.
    """

    key: int
    element: Element
    users: Users
    account: Account
    duplicates: int
    changes: Changes
    moved: dict[str, UserState]
    relinked: dict[str, str]
    turn: Turn
    token: str
    teaching: Teaching | None
    measuring: Measuring
    shadowing: Shadowing | None


class ElementResult(NamedTuple):
    """The results of an element, once every step that a bad record can break has succeeded.

    Redis had acknowledged at `written_s`. `duplicates` are those of the element.
    """

    key: int
    applied: AppliedElement
    users: UserWrites
    account: bytes
    weighed: Weighed
    taught: Taught
    measured: bytes
    compared: bytes
    marks: list[BucketMark]
    turn: Turn
    recorded: AuditNote | None
    outputs: list[Any]
    written_s: float
    duplicates: int
    writes: bool


class PersonaliseOperator(KeyedProcessFunction):
    """Keyed by bucket; takes gathered elements (:func:`jobs.java_operators.gather_elements`).

    What costs the same whatever its size, a run of the model and a round trip to Redis, is done once for all of them.
    Main output: (segment, packed sums) for popularity.
    """

    def __init__(self, open_parts: Callable[[], PersonaliseParts]) -> None:
        self._open_parts = open_parts

    def open(self, runtime_context: RuntimeContext) -> None:
        """Called by Flink in the worker before the first element."""
        prepare()
        tell_log("personalise", runtime_context)
        self._parts = parts = self._open_parts()
        parts.catalogue.start()
        self._newest_ms, self._has_written = 0, False
        parts.gate.start()
        expect_turn(parts.gate.turn)
        parts.gate.join(subtask_of(runtime_context), lambda: self._newest_ms)
        self._key = CurrentKey(runtime_context)
        self._meters = ElementMeters(runtime_context, parts.interactions)
        meters, counters = self._meters.meters, self._meters.counters
        self._account = runtime_context.get_state(ValueStateDescriptor("account-v1", Types.PICKLED_BYTE_ARRAY()))
        self._store = StoreKeeper(
            parts.store, parts.fallback, self._count_retry, meters.histogram(metrics.REDIS).observe
        )
        user_parts = UserParts(parts.bounds, parts.refresh, parts.due_users_per_second)
        relinked = counters[metrics.USERS_RELINKED]
        self._users = UserKeeper(runtime_context, user_parts, parts.generation, self._store, relinked)
        self._popularity = PopularityKeeper(runtime_context, parts.popularity, parts.catalogue.assortment)
        self._learning = LearningKeeper(runtime_context, parts.online, parts.ranker.rules, self._store)
        longest = max(parts.ranker.rules.items, parts.popularity.list_items)
        self._feedback = FeedbackKeeper(runtime_context, parts.feedback, longest)
        self._shadow = ShadowKeeper(runtime_context)
        self._audit = AuditKeeper(runtime_context, parts.audit, meters, parts.gate)
        fell_back = counters[metrics.MODELS_FALLEN_BACK].inc
        serving = ModelLevels(meters, metrics.MODEL_BUCKETS)
        self._rollout = RolloutKeeper(runtime_context, parts.shelf, parts.ranker, fell_back, serving)
        self._tracer = None if parts.spans is None else ListTracer(parts.spans, parts.interactions)
        self._failed = 0
        self._remote = dict.fromkeys(REMOTE_COUNTERS, 0)
        self._given_up = FaultLog(logger, "a record is given up: dead letters or the audit trail have its coordinates")

    def close(self) -> None:
        """Called by Flink when the worker ends."""
        self._parts.catalogue.stop()
        self._parts.gate.stop()
        if self._parts.spans is not None:
            self._parts.spans.close()

    def process_element(self, value: tuple[int, bytes], ctx: KeyedProcessFunction.Context) -> Iterator[Any]:
        """Apply gathered elements; records that cannot be applied are split off, and leave as dead letters."""
        if self._tracer is not None:
            self._tracer.begin()
        elements, gate = unpack_gathered(value[1]), self._parts.gate
        newest_ms = max(map(newest, elements.values()), default=0)
        self._newest_ms = max(self._newest_ms, newest_ms)
        waiting = [Attempt(part, writes=writes) for part, writes in reversed(in_turns(elements, gate, newest_ms))]
        self._meters.gathered(elements.values())
        while waiting:
            attempt = waiting.pop()
            try:
                done = self._apply(attempt.elements, ctx, attempt.writes)
            except FreshetError:  # from Redis, Flink or another release's state: no record is at fault
                raise
            except Exception as error:
                waiting += reversed(self._split_failed(attempt, error))
            else:
                yield from self._commit(done, ctx)

    def _apply(
        self, elements: Mapping[int, Element], ctx: KeyedProcessFunction.Context, writes: bool
    ) -> list[ElementResult]:
        """Apply `elements` without writing state.

        Until state is written, Redis accepts the same writes, or a part of them, again.
        """
        self._begin(writes)
        now_ms = ctx.timer_service().current_processing_time()
        self._learning.follow(now_ms)
        ruled = [self._rule(key, element, now_ms, ctx) for key, element in elements.items()]
        begun_s = time.perf_counter()
        lists = self._rollout.rank(
            [(one.turn, one.moved if writes else {}) for one in ruled],
            self._store.popular,
            now_ms,
            self._parts.refresh.list_ttl_ms,
        )
        if any(lists):
            self._meters.scoring.observe(time.perf_counter() - begun_s)
        buckets = [
            BucketLists(one.changes, mine, one.users, one.account, one.token)
            for one, mine in zip(ruled, lists, strict=True)
        ]
        written, written_s = self._store.write_all(buckets, now_ms), time.time()
        results = [
            self._result(one, *reply, written_s, now_ms, ctx, writes) for one, reply in zip(ruled, written, strict=True)
        ]
        return results if writes else [one._replace(outputs=[*_within(one.outputs)]) for one in results]

    def _begin(self, writes: bool) -> None:
        """Before elements: whether what follows from them is written."""
        self._store.begin(writes)
        if writes and not self._has_written:
            self._has_written = True
            self._users.recheck_tombstones()  # while it only read, it has seen none

    def _rule(self, key: int, element: Element, now_ms: int, ctx: KeyedProcessFunction.Context) -> RuledElement:
        """Apply the rules to the bucket of `key`."""
        parts = self._parts
        self._key.set(key, ctx)
        account, users = decode_account(self._account.value()), Users(self._users.stored)
        duplicates = account.duplicates
        relinked = self._users.recall(element, users)
        turn = self._rollout.begin(ctx, now_ms)
        teaching = self._learning.teaching()
        measuring = self._feedback.measuring()
        shadowing = self._rollout.shadowing(turn)
        changes = apply(element, users, account, parts.bounds, parts.interactions, teaching, measuring, shadowing)
        moved = {pseudonym: users.get_or_new(pseudonym) for pseudonym in changes.moved}
        token = self._users.generation.proven(ctx)
        return RuledElement(
            key,
            element,
            users,
            account,
            duplicates,
            changes,
            moved,
            relinked,
            turn,
            token,
            teaching,
            measuring,
            shadowing,
        )

    def _result(
        self,
        ruled: RuledElement,
        lists: list[ListWrite],
        written: Written,
        written_s: float,
        now_ms: int,
        ctx: KeyedProcessFunction.Context,
        writes: bool,
    ) -> ElementResult:
        """What is to be stored and emitted, once Redis has the `lists` of the element, since `written_s`."""
        self._key.set(ruled.key, ctx)
        element, users, account, changes = ruled.element, ruled.users, ruled.account, ruled.changes
        applied = AppliedElement(element.bucket, changes, lists, written)
        for write in lists:
            remember(ruled.moved[write.pseudonym], write.explored)
        stored = self._users.writes(users, now_ms, ruled.relinked)
        weighed = self._popularity.weigh(changes.accepted, now_ms, ctx)
        account.segments_left_out += weighed.left_out
        taught = self._learning.taught(ruled.teaching, changes.accepted, ctx)
        model = self._rollout.model(ruled.turn)
        measured = self._feedback.measured(ruled.measuring, [*changes.accepted, *changes.kept], model)
        compared = self._rollout.compared(ruled.turn, ruled.shadowing, changes.accepted, now_ms)
        outputs = [*side_outputs(applied, users, account, self._parts.epoch, model.name)]
        entries = consent_entries(changes, written)
        entries += execute_commands(element, account, users, self._users.kids, outputs)
        self._rollout.execute(ruled.turn, element.commands, now_ms)
        told = (entries, changes.denied) if writes else ([], {})
        # Redis may have been away since `now_ms`; what is recorded is in effect since now.
        at_ms = ctx.timer_service().current_processing_time() if entries else now_ms
        recorded = self._audit.record(element.bucket, *told, ruled.relinked, at_ms)
        return ElementResult(
            ruled.key,
            applied,
            stored,
            encode_account(account),
            weighed,
            taught,
            measured,
            compared,
            element.marks,
            ruled.turn,
            recorded,
            outputs,
            written_s,
            account.duplicates - ruled.duplicates,
            writes,
        )

    def _commit(self, results: list[ElementResult], ctx: KeyedProcessFunction.Context) -> Iterator[Any]:
        """Write the results of elements to state, and emit their outputs."""
        for done in results:
            self._key.set(done.key, ctx)
            self._users.put(done.users, ctx)
            if done.marks and self._users.take_marks(done.marks, ctx):
                yield empty_sums()
            self._popularity.put(done.weighed, ctx)
            self._learning.put(done.taught, ctx)
            self._feedback.put(done.measured, ctx)
            self._shadow.put(done.compared, ctx)
            self._account.update(done.account)
            yield from done.outputs
            if done.recorded is not None:
                yield from self._audit.put(done.recorded, ctx)
            answered = self._rollout.put(done.turn, ctx)
            yield from answered if done.writes else _within(answered)
            if done.writes:
                log_rejects(done.applied)
                if self._tracer is not None:
                    self._tracer.end(done.applied, done.written_s)
                self._meters.applied(done.applied, done.written_s, done.duplicates)
                self._meters.count(metrics.SEGMENTS_LEFT_OUT, done.weighed.left_out)
        self._meters.meters.flush(ctx.timer_service().current_processing_time())
        self._count_failed()

    def _split_failed(self, attempt: Attempt, error: Exception) -> list[Attempt]:
        """Return the attempts that replace a failed one, in their order."""
        self._users.recheck_tombstones()
        if len(attempt.elements) > 1:
            return [attempt._replace(elements={key: element}) for key, element in attempt.elements.items()]
        [(key, element)] = attempt.elements.items()
        if parts := halves(element):
            return [attempt._replace(elements={key: part}) for part in parts]
        if attempt.first:
            return [attempt._replace(first=False)]
        instead = replacement_for(element, self._parts.interactions)
        if instead is None:
            raise error
        self._given_up(error, fields_of_record(element, self._parts.interactions))
        self._meters.counters[metrics.RECORDS_GIVEN_UP].inc()
        return [attempt._replace(elements={key: instead}, first=True)]

    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Iterator[Any]:
        """At the end of a second: pass on popularity, drop what ended or expired, refresh ageing lists.

        While a model is being loaded, timers come more often.
        """
        now_ms, term = ctx.timer_service().current_processing_time(), self._parts.gate.turn
        expect_turn(term)
        writes = term.writes_now(now_ms)
        self._begin(writes)
        turn = self._rollout.begin(ctx, now_ms)
        self._rollout.settle(turn, now_ms)
        self._meters.meters.flush(now_ms)
        if timestamp % TICK_MS == 0:
            yield from self._tick(timestamp, turn, ctx, writes)
        answered = self._rollout.put(turn, ctx)
        yield from answered if writes else _within(answered)

    def _tick(
        self, timestamp: int, turn: Turn, ctx: KeyedProcessFunction.OnTimerContext, writes: bool
    ) -> Iterator[Any]:
        yield from self._popularity.sums()
        yield from self._learning.sums()
        yield from self._feedback.sums()
        yield from self._shadow.sums()
        if self._users.defer_if_late(timestamp, ctx):
            yield from self._audited([], timestamp, ctx, writes)
            return
        parts, users = self._parts, Users(self._users.stored)
        now_ms = ctx.timer_service().current_processing_time()
        self._learning.follow(now_ms)
        refresh, ended, expired = {}, [], []
        for pseudonym, state in self._users.due(timestamp, users, ctx):
            due = when_due(state, now_ms, parts.bounds, parts.refresh)
            if due == Due.REFRESH:
                refresh[pseudonym] = state
            elif due in (Due.FORGET, Due.EXPIRED):
                ended.append(pseudonym)
                if due == Due.EXPIRED:
                    expired.append(ExpiryEntry(pseudonym))
        [lists] = self._rollout.rank(
            [(turn, refresh if writes else {})], self._store.popular, now_ms, parts.refresh.list_ttl_ms
        )
        lists = kept_longer(lists, refresh, now_ms, parts.refresh)
        self._store.write([], lists, now_ms, self._users.generation.proven(ctx))
        for write in lists:
            remember(refresh[write.pseudonym], write.explored)
        self._store.forget(ended)
        self._users.put(self._users.writes(users, now_ms), ctx)
        self._meters.count(metrics.LISTS_REFRESHED, len(lists))
        self._meters.count(metrics.PROFILES_FORGOTTEN, len(ended))
        self._count_failed()
        yield from self._audited(expired, timestamp, ctx, writes)
        self._show_unread()
        self._meters.count(metrics.CATALOGUE_UNREAD, parts.catalogue.take_unread())
        self._rebuild(self._users.generation.due(timestamp, self._users.has_users, ctx, writes), turn, ctx)

    def _audited(self, expired: list[ExpiryEntry], timestamp: int, ctx: Any, writes: bool) -> Iterator[Any]:
        """The audit trail at the end of a second, in which consents have `expired`."""
        if writes:
            return self._audit.expired(expired, timestamp, ctx)
        return self._audit.silence(ctx, self._parts.gate.turn.end_ms)

    def _rebuild(self, pseudonyms: Sequence[str], turn: Turn, ctx: KeyedProcessFunction.OnTimerContext) -> None:
        """After Redis has lost data: write the consents and lists of these users again, from state."""
        parts, users, now_ms = self._parts, Users(self._users.stored), ctx.timer_service().current_processing_time()
        known = {pseudonym: state for pseudonym in pseudonyms if (state := users.get(pseudonym)) is not None}
        if not known:
            return
        decisions = [current_decision(pseudonym, state) for pseudonym, state in known.items()]
        active = {
            name: state for name, state in known.items() if should_have_list(state, now_ms, parts.bounds, parts.refresh)
        }
        [lists] = self._rollout.rank([(turn, active)], self._store.popular, now_ms, parts.refresh.list_ttl_ms)
        lists = kept_longer(lists, active, now_ms, parts.refresh)
        self._store.write(decisions, lists, now_ms, self._users.generation.proven(ctx))
        self._meters.count(metrics.USERS_REBUILT, len(known))

    def _count_retry(self) -> None:
        """While Redis does not answer, no timer fires: what grows meanwhile is shown from here."""
        self._meters.counters[metrics.REDIS_RETRIES].inc()
        self._show_unread()

    def _show_unread(self) -> None:
        self._meters.unread_consent.set(self._parts.unread() // 1000)
        self._meters.unread_records.set(self._parts.unread.records)

    def _count_failed(self) -> None:
        """Count what models and the model server have counted since the last call."""
        failed = self._parts.shelf.failed()
        self._meters.count(metrics.LISTS_WITHOUT_MODEL, failed - self._failed)
        self._failed = failed
        if self._parts.spans is not None:
            self._meters.count(metrics.SPANS_DROPPED, self._parts.spans.take_dropped())
        if self._parts.remote is not None:
            for metric, count in self._parts.remote.counts().items():
                self._meters.count(metric, count - self._remote[metric])
                self._remote[metric] = count


def log_rejects(applied: AppliedElement) -> None:
    """Log what was rejected, with reason, coordinates and request; never with anything of the record itself."""
    for reject in applied.changes.rejects:
        fields = {"freshet.bucket": applied.bucket, **reject.log_fields()}
        logger.warning("a record was rejected (%s)", reject.reason.value, extra=fields)


def _within(outputs: Iterable[Any]) -> Iterator[Any]:
    """Those of `outputs` that stay in the job, because they lead to state."""
    return (output for output in outputs if isinstance(output, tuple) and output[0] is LESSONS)
