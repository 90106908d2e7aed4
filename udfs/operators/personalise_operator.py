"""Shell around the rules for a bucket's users: reads state, calls the rules, writes Redis, state and side outputs.

Everything that an element causes is done before the next element begins, so a checkpoint never sees half of it.
What is kept is in keepers: users (:mod:`udfs.operators.user_keeper`), popularity, the audit trail; what Redis is asked,
in :mod:`udfs.operators.store_keeper`; what leaves, in :mod:`udfs.operators.outputs`.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from pyflink.common import Types
from pyflink.datastream import RuntimeContext
from pyflink.datastream.functions import KeyedProcessFunction
from pyflink.datastream.state import ValueStateDescriptor

from schemas.audit import ExpiryEntry
from schemas.errors import FreshetError
from schemas.store import WriteOutcome
from udfs.account import decode_account, encode_account
from udfs.audit_chain import Author
from udfs.due import Due, RefreshSettings, when_due
from udfs.elements import BucketMark, Element, given_up, halves, unpack
from udfs.generations import has_a_list, standing_decision
from udfs.operators.audit_keeper import AuditKeeper
from udfs.operators.commands import carry_out_commands
from udfs.operators.generation_keeper import GenerationParts
from udfs.operators.list_store import ListStore
from udfs.operators.outputs import Carried, consent_entries, tell
from udfs.operators.popularity_keeper import PopularityKeeper, Weighed, nothing_new
from udfs.operators.store_keeper import StoreKeeper
from udfs.operators.user_keeper import UserKeeper, UserParts, UserWrites
from udfs.personalise import Users, apply
from udfs.popularity import PopularitySettings
from udfs.profile import ProfileBounds
from udfs.ranking import PopularItems, Ranker, RankingModel
from udfs.telling import Teller

logger = logging.getLogger(__name__)
UNREAD: Final = "oldest_unread_consent_ms"
"""A gauge, kept as a counter that goes up and down: only those can be set from Python in both execution modes."""
COUNTERS: Final = (
    UNREAD,
    "accepted",
    "rejected",
    "lists_written",
    "lists_refused",
    "lists_no_room",
    "lists_refreshed",
    "lists_without_model",
    "profiles_forgotten",
    "segments_left_out",
    "users_relinked",
    "users_rebuilt",
    "records_given_up",
    "store_retries",
)


class PersonaliseParts(NamedTuple):
    """What the operator works with; made in the worker by `open_parts`, or by a test from fakes.

    `fallback` fills lists up until popular lists exist. `interactions` is the topic that interactions come from.
    `unread_ms` says how old the oldest consent may be that is not read; it returns at once.
    """

    ranker: Ranker
    model: RankingModel
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


class Attempt(NamedTuple):
    """An element to be carried out. One record alone has a second attempt: the first may have failed for nothing."""

    element: Element
    first: bool = True


class Done(NamedTuple):
    """What an element has led to, all that can fail for what a record says being done."""

    carried: Carried
    users: UserWrites
    account: bytes
    weighed: Weighed
    marks: list[BucketMark]
    told: list[Any]


class PersonaliseOperator(KeyedProcessFunction):
    """Keyed by bucket; takes (bucket key, packed element). Main output: (segment, packed sums) for popularity."""

    def __init__(self, open_parts: Callable[[], PersonaliseParts]) -> None:
        self._open_parts = open_parts

    def open(self, runtime_context: RuntimeContext) -> None:
        """Called by Flink in the worker before the first element."""
        self._parts = parts = self._open_parts()
        group = runtime_context.get_metrics_group().add_group("freshet")
        self._counters = {name: group.counter(name) for name in COUNTERS}
        self._account = runtime_context.get_state(ValueStateDescriptor("account-v1", Types.PICKLED_BYTE_ARRAY()))
        self._store = StoreKeeper(parts.store, parts.fallback, self._counters["store_retries"])
        user_parts = UserParts(parts.bounds, parts.refresh, parts.due_users_per_second)
        relinked = self._counters["users_relinked"]
        self._users = UserKeeper(runtime_context, user_parts, parts.generation, self._store, relinked)
        self._popularity = PopularityKeeper(runtime_context, parts.popularity)
        self._audit = AuditKeeper(runtime_context, parts.audit)
        self._failed = self._unread_ms = 0
        self._given_up = Teller(logger, "a record is given up: dead letters or the audit trail have its coordinates")

    def process_element(self, value: tuple[int, bytes], ctx: KeyedProcessFunction.Context) -> Iterator[Any]:
        """Carry out one packed element; what of it cannot be is cut out of it, and leaves as dead letters."""
        waiting = [Attempt(unpack(value[1]))]
        while waiting:
            attempt = waiting.pop()
            try:
                done = self._carry_out(attempt.element, ctx)
            except FreshetError:  # of Redis, of Flink, of state from another release: none is the fault of a record
                raise
            except Exception as error:
                waiting += reversed(self._apart(attempt, error))
            else:
                yield from self._keep(done, ctx)

    def _carry_out(self, element: Element, ctx: KeyedProcessFunction.Context) -> Done:
        """Carry out `element` but for state: until that is kept, Redis takes the same again, and a part of it."""
        parts = self._parts
        now_ms = ctx.timer_service().current_processing_time()
        account, users = decode_account(self._account.value()), Users(self._users.stored)
        relinked = self._users.recall(element, users)
        changes = apply(element, users, account, parts.bounds, parts.interactions)
        moved = {pseudonym: users.get_or_new(pseudonym) for pseudonym in changes.moved}
        lists = parts.ranker.rank(moved, self._store.popular, parts.model, now_ms, parts.refresh.list_ttl_ms)
        token = self._users.generation.proven(ctx)
        carried = Carried(
            element.bucket, changes, *self._store.write_all(changes, lists, users, account, now_ms, token)
        )
        writes = self._users.writes(users, now_ms, relinked)
        weighed = self._popularity.weigh(changes.accepted, now_ms, ctx)
        account.segments_left_out += weighed.left_out
        told = [*tell(carried, users, account, parts.epoch, parts.model.name)]
        entries = consent_entries(changes, carried.written)
        entries += carry_out_commands(element, account, users, self._users.kids, told)
        told += self._audit.record(element.bucket, entries, changes.denied, relinked, ctx)
        return Done(carried, writes, encode_account(account), weighed, element.marks, told)

    def _keep(self, done: Done, ctx: KeyedProcessFunction.Context) -> Iterator[Any]:
        """Put into state what an element has led to, and let go what it tells."""
        self._users.put(done.users, ctx)
        if done.marks and self._users.take_marks(done.marks, ctx):
            yield nothing_new()
        self._popularity.put(done.weighed, ctx)
        self._account.update(done.account)
        self._count(done)
        yield from done.told

    def _apart(self, attempt: Attempt, error: Exception) -> list[Attempt]:
        """What to carry out in the place of an element that could not be, in this order."""
        self._users.ask_again()
        if parts := halves(attempt.element):
            return [Attempt(part) for part in parts]
        if attempt.first:
            return [Attempt(attempt.element, first=False)]
        instead = given_up(attempt.element, self._parts.interactions)
        if instead is None:
            raise error
        self._given_up(error)
        self._counters["records_given_up"].inc()
        return [Attempt(instead)]

    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Iterator[Any]:
        """A second has ended: pass its popularity on, forget what ended or expired, refresh the lists that age."""
        yield from self._popularity.sums()
        if self._users.is_put_off(timestamp, ctx):
            yield from self._audit.expired([], timestamp, ctx)
            return
        parts, users = self._parts, Users(self._users.stored)
        now_ms = ctx.timer_service().current_processing_time()
        refresh, ended, expired = {}, [], []
        for pseudonym, state in self._users.due(timestamp, users, ctx):
            due = when_due(state, now_ms, parts.bounds, parts.refresh)
            if due == Due.REFRESH:
                refresh[pseudonym] = state
            elif due in (Due.FORGET, Due.EXPIRED):
                ended.append(pseudonym)
                if due == Due.EXPIRED:
                    expired.append(ExpiryEntry(pseudonym))
        lists = parts.ranker.rank(refresh, self._store.popular, parts.model, now_ms, parts.refresh.list_ttl_ms)
        self._store.write([], lists, now_ms, self._users.generation.proven(ctx))
        self._store.forget(ended)
        self._users.put(self._users.writes(users, now_ms), ctx)
        self._counters["lists_refreshed"].inc(len(lists))
        self._counters["profiles_forgotten"].inc(len(ended))
        self._count_failed()
        yield from self._audit.expired(expired, timestamp, ctx)
        self._count_unread()
        self._write_again(self._users.generation.due(timestamp, self._users.are_any, ctx), ctx)

    def _write_again(self, pseudonyms: Sequence[str], ctx: KeyedProcessFunction.OnTimerContext) -> None:
        """After Redis has forgotten: write the consents and lists of these users as their state has them."""
        parts, users, now_ms = self._parts, Users(self._users.stored), ctx.timer_service().current_processing_time()
        known = {pseudonym: state for pseudonym in pseudonyms if (state := users.get(pseudonym)) is not None}
        if not known:
            return
        decisions = [standing_decision(pseudonym, state) for pseudonym, state in known.items()]
        active = {
            name: state for name, state in known.items() if has_a_list(state, now_ms, parts.bounds, parts.refresh)
        }
        lists = parts.ranker.rank(active, self._store.popular, parts.model, now_ms, parts.refresh.list_ttl_ms)
        self._store.write(decisions, lists, now_ms, self._users.generation.proven(ctx))
        self._counters["users_rebuilt"].inc(len(known))

    def _count(self, done: Done) -> None:
        changes, lists, outcomes = done.carried.changes, done.carried.lists, done.carried.written.lists
        self._counters["accepted"].inc(len(changes.accepted) + len(changes.kept))
        self._counters["rejected"].inc(len(changes.rejects))
        self._counters["lists_written"].inc(outcomes.count(WriteOutcome.WRITTEN))
        self._counters["lists_no_room"].inc(outcomes.count(WriteOutcome.NO_ROOM))
        self._counters["lists_refused"].inc(len(lists) - outcomes.count(WriteOutcome.WRITTEN))
        self._counters["segments_left_out"].inc(done.weighed.left_out)
        self._count_failed()

    def _count_failed(self) -> None:
        failed, self._failed = self._parts.model.failed - self._failed, self._parts.model.failed
        self._counters["lists_without_model"].inc(failed)

    def _count_unread(self) -> None:
        unread_ms = self._parts.unread_ms()
        self._counters[UNREAD].inc(unread_ms - self._unread_ms)
        self._unread_ms = unread_ms
