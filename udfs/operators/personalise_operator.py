"""The Flink operator around the rules for a bucket's users: reads state, calls the rules, writes Redis and state.

Everything that an element causes is done before the next element begins, so a checkpoint never contains half of it.
Keepers hold the state: users (:mod:`udfs.operators.user_keeper`), popularity and the audit trail. Access to Redis is in
:mod:`udfs.operators.store_keeper`, output in :mod:`udfs.operators.outputs`.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from pyflink.common import Types
from pyflink.datastream import RuntimeContext
from pyflink.datastream.functions import KeyedProcessFunction
from pyflink.datastream.state import ValueStateDescriptor

from schemas.audit import ExpiryEntry
from schemas.errors import FreshetError
from schemas.store import ListWrite, WriteOutcome, Written
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
from udfs.learning import Teaching
from udfs.online_model import OnlineModel
from udfs.operators.audit_keeper import AuditKeeper, AuditNote
from udfs.operators.commands import execute_commands
from udfs.operators.current_key import CurrentKey
from udfs.operators.feedback_keeper import FeedbackKeeper
from udfs.operators.generation_keeper import GenerationParts
from udfs.operators.interpreter import prepare, tell_log
from udfs.operators.learning_keeper import LearningKeeper, Taught
from udfs.operators.list_store import ListStore
from udfs.operators.list_tracer import ListTracer, SpanQueue
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
UNREAD: Final = "oldest_unread_consent_ms"
"""A gauge, kept as a counter that goes up and down, because Python can only set counters in both execution modes."""
COUNTERS: Final = (
    UNREAD,
    "accepted",
    "rejected",
    "lists_written",
    "lists_refused",
    "lists_no_room",
    "lists_refreshed",
    "lists_without_model",
    *REMOTE_COUNTERS,
    "profiles_forgotten",
    "segments_left_out",
    "users_relinked",
    "users_rebuilt",
    "records_given_up",
    "store_retries",
    "models_fallen_back",
    "catalogue_unread",
)


class PersonaliseParts(NamedTuple):
    """What the operator depends on; created in the worker by `open_parts`, or by a test from fakes.

    `shelf` has the models. `fallback` fills up lists until popular lists exist. `interactions` is the topic of
    interactions. `unread_ms` returns the age of the oldest unread consent, at once. `online` is the model that learns
    in the stream, if one does. `catalogue` has the assortment of `ranker`. `spans` takes those of sampled traces, if any
    are wanted.
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
    unread_ms: Callable[[], int]
    online: OnlineModel | None = None
    feedback: FeedbackSettings = FeedbackSettings()
    catalogue: Following = Unfollowed()
    remote: FallbackModel | None = None
    spans: SpanQueue | None = None


class Attempt(NamedTuple):
    """Elements to apply together, by bucket key.

    A single record gets a second attempt, because its first failure may have been transient.
    """

    elements: Mapping[int, Element]
    first: bool = True


class RuledElement(NamedTuple):
    """An element once the rules have been applied to its bucket: what it moves is still to be ranked and written."""

    key: int
    element: Element
    users: Users
    account: Account
    changes: Changes
    moved: dict[str, UserState]
    relinked: dict[str, str]
    turn: Turn
    token: str
    teaching: Teaching | None
    measuring: Measuring
    shadowing: Shadowing | None


class ElementResult(NamedTuple):
    """The results of an element, once every step that a bad record can break has succeeded."""

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
        group = runtime_context.get_metrics_group().add_group("freshet")
        self._counters = {name: group.counter(name) for name in COUNTERS}
        self._key = CurrentKey(runtime_context)
        self._account = runtime_context.get_state(ValueStateDescriptor("account-v1", Types.PICKLED_BYTE_ARRAY()))
        self._store = StoreKeeper(parts.store, parts.fallback, self._counters["store_retries"])
        user_parts = UserParts(parts.bounds, parts.refresh, parts.due_users_per_second)
        relinked = self._counters["users_relinked"]
        self._users = UserKeeper(runtime_context, user_parts, parts.generation, self._store, relinked)
        self._popularity = PopularityKeeper(runtime_context, parts.popularity, parts.catalogue.assortment)
        self._learning = LearningKeeper(runtime_context, parts.online, parts.ranker.rules, self._store)
        longest = max(parts.ranker.rules.items, parts.popularity.list_items)
        self._feedback = FeedbackKeeper(runtime_context, parts.feedback, longest)
        self._shadow = ShadowKeeper(runtime_context)
        self._audit = AuditKeeper(runtime_context, parts.audit)
        fell_back = self._counters["models_fallen_back"].inc
        self._rollout = RolloutKeeper(runtime_context, parts.shelf, parts.ranker, fell_back)
        self._tracer = None if parts.spans is None else ListTracer(parts.spans, parts.interactions)
        self._failed = self._unread_ms = 0
        self._remote = dict.fromkeys(REMOTE_COUNTERS, 0)
        self._given_up = FaultLog(logger, "a record is given up: dead letters or the audit trail have its coordinates")

    def close(self) -> None:
        """Called by Flink when the worker ends."""
        self._parts.catalogue.stop()
        if self._parts.spans is not None:
            self._parts.spans.close()

    def process_element(self, value: tuple[int, bytes], ctx: KeyedProcessFunction.Context) -> Iterator[Any]:
        """Apply gathered elements; records that cannot be applied are split off, and leave as dead letters."""
        if self._tracer is not None:
            self._tracer.begin()
        waiting = [Attempt(unpack_gathered(value[1]))]
        while waiting:
            attempt = waiting.pop()
            try:
                done = self._apply(attempt.elements, ctx)
            except FreshetError:  # from Redis, Flink or another release's state: no record is at fault
                raise
            except Exception as error:
                waiting += reversed(self._split_failed(attempt, error))
            else:
                yield from self._commit(done, ctx)

    def _apply(self, elements: Mapping[int, Element], ctx: KeyedProcessFunction.Context) -> list[ElementResult]:
        """Apply `elements` without writing state.

        Until state is written, Redis accepts the same writes, or a part of them, again.
        """
        now_ms = ctx.timer_service().current_processing_time()
        self._learning.follow(now_ms)
        ruled = [self._rule(key, element, now_ms, ctx) for key, element in elements.items()]
        lists = self._rollout.rank(
            [(one.turn, one.moved) for one in ruled], self._store.popular, now_ms, self._parts.refresh.list_ttl_ms
        )
        buckets = [
            BucketLists(one.changes, writes, one.users, one.account, one.token)
            for one, writes in zip(ruled, lists, strict=True)
        ]
        written = self._store.write_all(buckets, now_ms)
        return [self._result(one, *reply, now_ms, ctx) for one, reply in zip(ruled, written, strict=True)]

    def _rule(self, key: int, element: Element, now_ms: int, ctx: KeyedProcessFunction.Context) -> RuledElement:
        """Apply the rules to the bucket of `key`."""
        parts = self._parts
        self._key.set(key, ctx)
        account, users = decode_account(self._account.value()), Users(self._users.stored)
        relinked = self._users.recall(element, users)
        turn = self._rollout.begin(ctx, now_ms)
        teaching = self._learning.teaching()
        measuring = self._feedback.measuring()
        shadowing = self._rollout.shadowing(turn)
        changes = apply(element, users, account, parts.bounds, parts.interactions, teaching, measuring, shadowing)
        moved = {pseudonym: users.get_or_new(pseudonym) for pseudonym in changes.moved}
        token = self._users.generation.proven(ctx)
        return RuledElement(
            key, element, users, account, changes, moved, relinked, turn, token, teaching, measuring, shadowing
        )

    def _result(
        self,
        ruled: RuledElement,
        lists: list[ListWrite],
        written: Written,
        now_ms: int,
        ctx: KeyedProcessFunction.Context,
    ) -> ElementResult:
        """What is to be stored and emitted, once Redis has the `lists` of the element."""
        self._key.set(ruled.key, ctx)
        element, users, account, changes = ruled.element, ruled.users, ruled.account, ruled.changes
        applied = AppliedElement(element.bucket, changes, lists, written)
        for write in lists:
            remember(ruled.moved[write.pseudonym], write.explored)
        writes = self._users.writes(users, now_ms, ruled.relinked)
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
        recorded = self._audit.record(element.bucket, entries, changes.denied, ruled.relinked, now_ms)
        return ElementResult(
            ruled.key,
            applied,
            writes,
            encode_account(account),
            weighed,
            taught,
            measured,
            compared,
            element.marks,
            ruled.turn,
            recorded,
            outputs,
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
            yield from self._rollout.put(done.turn, ctx)
            log_rejects(done.applied)
            if self._tracer is not None:
                self._tracer.end(done.applied)
        self._count(results)

    def _split_failed(self, attempt: Attempt, error: Exception) -> list[Attempt]:
        """Return the attempts that replace a failed one, in their order."""
        self._users.recheck_tombstones()
        if len(attempt.elements) > 1:
            return [Attempt({key: element}) for key, element in attempt.elements.items()]
        [(key, element)] = attempt.elements.items()
        if parts := halves(element):
            return [Attempt({key: part}) for part in parts]
        if attempt.first:
            return [Attempt({key: element}, first=False)]
        instead = replacement_for(element, self._parts.interactions)
        if instead is None:
            raise error
        self._given_up(error, fields_of_record(element, self._parts.interactions))
        self._counters["records_given_up"].inc()
        return [Attempt({key: instead})]

    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Iterator[Any]:
        """At the end of a second: pass on popularity, drop what ended or expired, refresh ageing lists.

        While a model is being loaded, timers come more often.
        """
        now_ms = ctx.timer_service().current_processing_time()
        turn = self._rollout.begin(ctx, now_ms)
        self._rollout.settle(turn, now_ms)
        if timestamp % TICK_MS == 0:
            yield from self._tick(timestamp, turn, ctx)
        yield from self._rollout.put(turn, ctx)

    def _tick(self, timestamp: int, turn: Turn, ctx: KeyedProcessFunction.OnTimerContext) -> Iterator[Any]:
        yield from self._popularity.sums()
        yield from self._learning.sums()
        yield from self._feedback.sums()
        yield from self._shadow.sums()
        if self._users.defer_if_late(timestamp, ctx):
            yield from self._audit.expired([], timestamp, ctx)
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
        [lists] = self._rollout.rank([(turn, refresh)], self._store.popular, now_ms, parts.refresh.list_ttl_ms)
        lists = kept_longer(lists, refresh, now_ms, parts.refresh)
        self._store.write([], lists, now_ms, self._users.generation.proven(ctx))
        for write in lists:
            remember(refresh[write.pseudonym], write.explored)
        self._store.forget(ended)
        self._users.put(self._users.writes(users, now_ms), ctx)
        self._counters["lists_refreshed"].inc(len(lists))
        self._counters["profiles_forgotten"].inc(len(ended))
        self._count_failed()
        yield from self._audit.expired(expired, timestamp, ctx)
        self._count_unread()
        self._counters["catalogue_unread"].inc(parts.catalogue.take_unread())
        self._rebuild(self._users.generation.due(timestamp, self._users.has_users, ctx), turn, ctx)

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
        self._counters["users_rebuilt"].inc(len(known))

    def _count(self, results: list[ElementResult]) -> None:
        counts: Counter[str] = Counter()
        for done in results:
            changes, outcomes = done.applied.changes, done.applied.written.lists
            written = outcomes.count(WriteOutcome.WRITTEN)
            counts["accepted"] += len(changes.accepted) + len(changes.kept)
            counts["rejected"] += len(changes.rejects)
            counts["lists_written"] += written
            counts["lists_no_room"] += outcomes.count(WriteOutcome.NO_ROOM)
            counts["lists_refused"] += len(done.applied.lists) - written
            counts["segments_left_out"] += done.weighed.left_out
        for name, count in counts.items():
            if count:
                self._counters[name].inc(count)
        self._count_failed()

    def _count_failed(self) -> None:
        failed = self._parts.shelf.failed()
        self._counters["lists_without_model"].inc(failed - self._failed)
        self._failed = failed
        if self._parts.remote is not None:
            for name, count in self._parts.remote.counts().items():
                self._counters[name].inc(count - self._remote[name])
                self._remote[name] = count

    def _count_unread(self) -> None:
        unread_ms = self._parts.unread_ms()
        self._counters[UNREAD].inc(unread_ms - self._unread_ms)
        self._unread_ms = unread_ms


def log_rejects(applied: AppliedElement) -> None:
    """Log what was rejected, with reason, coordinates and request; never with anything of the record itself."""
    for reject in applied.changes.rejects:
        fields = {"freshet.bucket": applied.bucket, **reject.log_fields()}
        logger.warning("a record was rejected (%s)", reject.reason.value, extra=fields)
