"""Shell around the rules for a bucket's users: reads state, calls the rules, writes Redis, state and side outputs.

Everything that an element causes is done before the next element begins, so a checkpoint never sees half of it.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from pyflink.common import Row, Types
from pyflink.datastream import OutputTag, RuntimeContext
from pyflink.datastream.functions import KeyedProcessFunction
from pyflink.datastream.state import ListStateDescriptor, MapStateDescriptor, ValueStateDescriptor

from adapters.redis.patience import Patience
from schemas.answers import StateAnswer, encode_answer
from schemas.audit import AccessEntry, AuditEntry, ExpiryEntry, KeyEntry
from schemas.consents import LEVEL_NAME, Level
from schemas.control import AccountCommand, Command, KeyCommand
from schemas.errors import FreshetError, StateUnavailable
from schemas.receipts import (
    AccountReceipt,
    AccountTotals,
    ConsentReceipt,
    ElementReceipt,
    KidsReceipt,
    ListReceipt,
    encode_receipt,
)
from schemas.rejects import dead_letter
from schemas.store import ConsentOutcome, WriteOutcome
from udfs.account import Account, decode_account, encode_account
from udfs.audit import Author, consent_entry
from udfs.due import Due, RefreshSettings, next_due_ms, when_due
from udfs.elements import AskedFor, BucketMark, ConsentRecord, Element, EventRecord, given_up, halves, unpack
from udfs.generations import has_a_list, standing_decision
from udfs.operators.audit_keeper import AuditKeeper
from udfs.operators.cancellation import interrupted
from udfs.operators.due_keeper import DueChanges, DueKeeper
from udfs.operators.generation_keeper import GenerationKeeper, GenerationParts
from udfs.operators.kids_keeper import KidsKeeper
from udfs.operators.segment_keeper import SegmentKeeper
from udfs.operators.timers import register_end_of
from udfs.personalise import (
    Changes,
    Users,
    apply,
    clean_event,
    forget,
    is_fenced,
    is_granted_alone,
    relink,
    withdraw_again,
)
from udfs.popularity import (
    ALL,
    NOTHING_NEW,
    PopularitySettings,
    decode_weighing,
    encode_sums,
    encode_weighing,
    sum_by_segment,
    weighing,
)
from udfs.profile import ProfileBounds
from udfs.ranking import ListWrite, PopularItems, Ranker
from udfs.segments import Admitted
from udfs.state import readable
from udfs.store import ListStore, Written
from udfs.telling import Teller

logger = logging.getLogger(__name__)
BYTES: Final = Types.PRIMITIVE_ARRAY(Types.BYTE())
REJECTS: Final = OutputTag("rejects", BYTES)
CLEAN_EVENTS: Final = OutputTag("clean-events", BYTES)
RECEIPTS: Final = OutputTag("receipts", BYTES)
ANSWERS: Final = OutputTag("answers", BYTES)
POPULAR_REFRESH_MS: Final = 1_000
SUMS_EVERY_MS: Final = 1_000
"""How often a bucket tells popularity what it adds. A record for each element and segment costs more than the lists."""
ASKED_FOR_MAX: Final = 500_000
"""Of how many users a bucket's worker remembers that it has asked for their tombstone since it was started."""
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


class Parts(NamedTuple):
    """What the operator works with; made in the worker by `open_parts`, or by a test from fakes.

    `fallback` fills lists up until popular lists exist. `interactions` is the topic that interactions come from.
    `unread_ms` says how old the oldest consent may be that is not read; it returns at once.
    """

    ranker: Ranker
    store: ListStore
    fallback: PopularItems
    model_name: str
    epoch: int
    interactions: str
    bounds: ProfileBounds
    refresh: RefreshSettings
    popularity: PopularitySettings
    due_users_per_second: int
    audit: Author
    generation: GenerationParts
    unread_ms: Callable[[], int]


class UserWrites(NamedTuple):
    """What is to be done to the state of users: bytes to store, who is new among them, who goes, who comes due when.

    Of those who are new, the `renamed` were known before.
    """

    writes: list[tuple[str, bytes]]
    entered: list[str]
    renamed: list[str]
    erased: list[str]
    due: DueChanges


class Attempt(NamedTuple):
    """An element to be carried out. One record alone has a second attempt: the first may have failed for nothing."""

    element: Element
    first: bool = True


class Done(NamedTuple):
    """What an element has led to, all that can fail for what a record says being done."""

    changes: Changes
    lists: list[ListWrite]
    written: Written
    users: UserWrites
    account: bytes
    weighing: bytes
    weighed: Admitted
    marks: list[BucketMark]
    told: list[Any]


class PersonaliseOperator(KeyedProcessFunction):
    """Keyed by bucket; takes (bucket key, packed element). Main output: (segment, packed sums) for popularity."""

    def __init__(self, open_parts: Callable[[], Parts]) -> None:
        self._open_parts = open_parts

    def open(self, runtime_context: RuntimeContext) -> None:
        """Called by Flink in the worker before the first element."""
        names = Types.STRING(), Types.PICKLED_BYTE_ARRAY()
        self._users = runtime_context.get_map_state(MapStateDescriptor("users-v1", *names))
        self._weighing = runtime_context.get_list_state(ListStateDescriptor("weighing-v1", names[1]))
        self._account = runtime_context.get_state(ValueStateDescriptor("account-v1", names[1]))
        self._parts = self._open_parts()
        self._due = DueKeeper(runtime_context, self._parts.due_users_per_second)
        self._kids = KidsKeeper(runtime_context, self._users)
        self._segments = SegmentKeeper(runtime_context, self._parts.popularity)
        self._patiently = Patience(self._parts.store.outage_max_ms, interrupted)
        self._audit = AuditKeeper(runtime_context, self._parts.audit)
        self._generation = GenerationKeeper(runtime_context, self._parts.generation, self._generation_in_force)
        self._popular, self._popular_at_ms = self._parts.fallback, 0
        self._asked_for: set[str] = set()
        self._failed = self._unread_ms = 0
        self._given_up = Teller(logger, "a record is given up: dead letters or the audit trail have its coordinates")
        group = runtime_context.get_metrics_group().add_group("freshet")
        self._counters = {name: group.counter(name) for name in COUNTERS}

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
        account, users = decode_account(self._account.value()), Users(self._stored)
        relinked = self._recall(element, users)
        changes = apply(element, users, account, parts.bounds, parts.interactions)
        moved = {pseudonym: users.get_or_new(pseudonym) for pseudonym in changes.moved}
        lists = parts.ranker.rank(moved, self._popular, now_ms, parts.refresh.list_ttl_ms)
        lists, written = self._write_all(changes, lists, users, account, now_ms, self._generation.proven(ctx))
        writes = self._writes(users, now_ms, relinked)
        weighed = self._segments.admit(weighing(changes.accepted), now_ms, ctx)
        account.segments_left_out += weighed.left_out
        told = [*self._tell(changes, users, account, element.bucket, lists, written)]
        entries = [*consent_entries(changes, written), *element.accesses]
        for command in element.commands:
            entries += self._answer(command, account, told)
        for asked in element.asked_for:
            entries.append(self._give_access(asked, users, element.bucket, told))
        counted = encode_account(account), encode_weighing(weighed.events) if weighed.events else b""
        told += self._audit.record(element.bucket, entries, changes.denied, relinked, ctx)
        return Done(changes, lists, written, writes, *counted, weighed, element.marks, told)

    def _keep(self, done: Done, ctx: KeyedProcessFunction.Context) -> Iterator[Any]:
        """Put into state what an element has led to, and let go what it tells."""
        self._put(done.users, ctx)
        if done.marks and self._generation.take(done.marks, self._users.keys, self._kids.kids, ctx):
            yield Row(ALL, encode_sums(NOTHING_NEW))
        if done.weighing:
            self._weighing.add(done.weighing)
            register_end_of(SUMS_EVERY_MS, ctx)
        self._segments.put(done.weighed, ctx)
        self._counters["segments_left_out"].inc(done.weighed.left_out)
        self._account.update(done.account)
        self._count(done.changes, done.lists, done.written)
        yield from done.told

    def _apart(self, attempt: Attempt, error: Exception) -> list[Attempt]:
        """What to carry out in the place of an element that could not be, in this order."""
        # What the tombstones had said went with the attempt: ask again.
        self._asked_for.clear()
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

    def _stored(self, pseudonym: str) -> bytes | None:
        try:
            raw: bytes | None = self._users.get(pseudonym)
        except Exception as error:  # whatever Flink raises where state cannot be read: that is no record's fault
            raise StateUnavailable(f"state of a user could not be read: {type(error).__name__}") from error
        return raw

    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Iterator[Any]:
        """A second has ended: pass its popularity on, forget what ended or expired, refresh the lists that age."""
        yield from self._sums()
        if self._due.is_put_off(timestamp, ctx):
            self._generation.come_back(ctx)
            yield from self._audit.expired([], timestamp, ctx)
            return
        parts, users = self._parts, Users(self._users.get)
        now_ms = ctx.timer_service().current_processing_time()
        refresh, ended, expired = {}, [], []
        for pseudonym, state in self._due.take(timestamp, users, ctx):
            due = when_due(state, now_ms, parts.bounds, parts.refresh)
            if due == Due.REFRESH:
                refresh[pseudonym] = state
            elif due in (Due.FORGET, Due.EXPIRED):
                ended.append(pseudonym)
                if due == Due.EXPIRED:
                    expired.append(ExpiryEntry(pseudonym))
        lists = parts.ranker.rank(refresh, self._popular, now_ms, parts.refresh.list_ttl_ms)
        self._write([], lists, now_ms, self._generation.proven(ctx))
        self._patiently(lambda: parts.store.forget(ended), self._counters["store_retries"].inc)
        self._put(self._writes(users, now_ms), ctx)
        self._counters["lists_refreshed"].inc(len(lists))
        self._count_failed()
        self._counters["profiles_forgotten"].inc(len(ended))
        yield from self._audit.expired(expired, timestamp, ctx)
        self._count_unread()
        self._write_again(self._generation.due(timestamp, self._has_users, ctx), ctx)

    def _count_unread(self) -> None:
        unread_ms = self._parts.unread_ms()
        self._counters[UNREAD].inc(unread_ms - self._unread_ms)
        self._unread_ms = unread_ms

    def _write_again(self, pseudonyms: Sequence[str], ctx: KeyedProcessFunction.OnTimerContext) -> None:
        """After Redis has forgotten: write the consents and lists of these users as their state has them."""
        parts, users, now_ms = self._parts, Users(self._users.get), ctx.timer_service().current_processing_time()
        known = {pseudonym: state for pseudonym in pseudonyms if (state := users.get(pseudonym)) is not None}
        if not known:
            return
        decisions = [standing_decision(pseudonym, state) for pseudonym, state in known.items()]
        active = {
            name: state for name, state in known.items() if has_a_list(state, now_ms, parts.bounds, parts.refresh)
        }
        lists = parts.ranker.rank(active, self._popular, now_ms, parts.refresh.list_ttl_ms)
        self._write(decisions, lists, now_ms, self._generation.proven(ctx))
        self._counters["users_rebuilt"].inc(len(known))

    def _has_users(self) -> bool:
        return not self._users.is_empty()

    def _generation_in_force(self) -> str:
        return self._patiently(self._parts.store.in_force, self._counters["store_retries"].inc)

    def _recall(self, element: Element, users: Users) -> dict[str, str]:
        """Before an element is applied: users are who they are now, and who has left is forgotten.

        Gives those who were moved, as current → previous pseudonym. What stands in Redis moves along, also that of
        users without state whose consent changes: they may be erased.
        """
        links = element.links
        moved = relink(users, links)
        touched = {event.pseudonym for event in element.events} | {change.pseudonym for change in element.consents}
        self._forget(touched | links.keys(), links, users)
        strangers = {change.pseudonym for change in element.consents if users.get(change.pseudonym) is None}
        moved |= {pseudonym: links[pseudonym] for pseudonym in strangers & links.keys()}
        if moved:
            self._patiently(lambda: self._parts.store.relink(moved), self._counters["store_retries"].inc)
            self._counters["users_relinked"].inc(len(moved))
        return moved

    def _forget(self, touched: set[str], links: dict[str, str], users: Users) -> None:
        """Before state that a snapshot may have brought back is used the first time, ask whether its user has left.

        Who has no state here yet cannot have come back with a snapshot, so a job that starts empty never asks.
        """
        touched -= self._asked_for
        if len(self._asked_for) + len(touched) > ASKED_FOR_MAX:
            self._asked_for.clear()
        self._asked_for |= touched
        names = {p: p for p in touched if users.get(p) is not None}
        names |= {links[p]: p for p in names if p in links}
        if names:
            store = self._parts.store
            found = self._patiently(lambda: store.tombstones(list(names)), self._counters["store_retries"].inc)
            forget(users, [(names[known_as], tombstone) for known_as, tombstone in found.items()])

    def _write_all(
        self, changes: Changes, lists: list[ListWrite], users: Users, account: Account, now_ms: int, token: str
    ) -> tuple[list[ListWrite], Written]:
        """Write consents, then lists; gives the lists that were written, or tried, and what Redis said.

        Lists of users whose consent changes wait for what Redis says of it: it may know better.
        """
        if not changes.consents:
            return lists, self._write([], lists, now_ms, token)
        changing = {change.pseudonym for change in changes.consents}
        waiting = [write for write in lists if write.pseudonym in changing]
        lists = [write for write in lists if write.pseudonym not in changing]
        written = self._judged(changes.consents, self._write(changes.consents, lists, now_ms, token))
        undone = withdraw_again(users, refused_by_store(changes, written), account, changes)
        waiting = [write for write in waiting if write.pseudonym not in undone]
        if waiting:
            then = self._write([], waiting, now_ms, token)
            lists, written = lists + waiting, written._replace(lists=[*written.lists, *then.lists])
        return lists, written

    def _judged(self, consents: Sequence[ConsentRecord], written: Written) -> Written:
        """What Redis said, and of purposes that are granted without personalisation what its tombstones say.

        To Redis such a consent is a withdrawal, which nothing refuses; a later no to everything refuses the purposes.
        """
        alone = [change.pseudonym for change in consents if is_granted_alone(change)]
        if not alone:
            return written
        store = self._parts.store
        found = self._patiently(lambda: store.tombstones(alone), self._counters["store_retries"].inc)
        outcomes = [
            ConsentOutcome.REFUSED
            if is_granted_alone(change) and change.pseudonym in found and is_fenced(change, found[change.pseudonym])
            else outcome
            for change, outcome in zip(consents, written.consents, strict=True)
        ]
        return written._replace(consents=outcomes)

    def _sums(self) -> Iterator[Row]:
        """What this bucket has added to popularity since it last said so."""
        events = [event for raw in self._weighing.get() or () for event in decode_weighing(raw)]
        if events:
            self._weighing.clear()
        for sums in sum_by_segment(events, self._parts.popularity.half_life_ms):
            yield Row(sums.segment, encode_sums(sums))

    def _write(self, consents: list[ConsentRecord], lists: list[ListWrite], now_ms: int, token: str) -> Written:
        """One round trip; `popular:all` comes along once a second, for filling lists up.

        Grants count in the generation `token`, which is not the one in force where the bucket has not caught up.
        """
        want_popular = now_ms - self._popular_at_ms >= POPULAR_REFRESH_MS
        store = self._parts.store
        written = self._patiently(
            lambda: store.write(consents, lists, want_popular, token), self._counters["store_retries"].inc
        )
        if want_popular:
            self._popular_at_ms = now_ms
            self._popular = PopularItems.of(written.popular) if written.popular else self._parts.fallback
        return written

    def _writes(self, users: Users, now_ms: int, relinked: Collection[str] = ()) -> UserWrites:
        """What to store of users who changed: the slot of the due index in which they stand is part of it."""
        bounds, refresh = self._parts.bounds, self._parts.refresh
        due = self._due.changes(users, lambda state: next_due_ms(state, now_ms, bounds, refresh))
        entered = users.entered()
        renamed = [pseudonym for pseudonym in entered if pseudonym in relinked]
        return UserWrites(users.writes(), entered, renamed, users.erased(), due)

    def _put(self, users: UserWrites, ctx: KeyedProcessFunction.Context) -> None:
        self._kids.note(users.entered, users.erased)
        for pseudonym, raw in users.writes:
            self._users.put(pseudonym, raw)
        for pseudonym in users.erased:
            self._users.remove(pseudonym)
        self._due.put(users.due, users.erased, ctx)
        self._generation.forget(users.erased)
        self._generation.add(users.renamed)

    def _count(self, changes: Changes, lists: Sequence[ListWrite], written: Written) -> None:
        self._counters["accepted"].inc(len(changes.accepted) + len(changes.kept))
        self._counters["rejected"].inc(len(changes.rejects))
        self._counters["lists_written"].inc(written.lists.count(WriteOutcome.WRITTEN))
        self._counters["lists_no_room"].inc(written.lists.count(WriteOutcome.NO_ROOM))
        self._counters["lists_refused"].inc(len(lists) - written.lists.count(WriteOutcome.WRITTEN))
        self._count_failed()

    def _count_failed(self) -> None:
        failed, self._failed = self._parts.ranker.failed - self._failed, self._parts.ranker.failed
        self._counters["lists_without_model"].inc(failed)

    def _tell(
        self,
        changes: Changes,
        users: Users,
        account: Account,
        bucket: int,
        lists: Sequence[ListWrite],
        written: Written,
    ) -> Iterator[Any]:
        """Side outputs of one element."""
        for reject in changes.rejects:
            yield REJECTS, dead_letter(reject)
        if clean := clean_lines([*changes.accepted, *changes.kept], users):
            yield CLEAN_EVENTS, clean
        at_ms = time.time_ns() // 1_000_000
        for change, outcome in zip(changes.consents, written.consents, strict=True):
            yield RECEIPTS, encode_receipt(consent_receipt(change, users, outcome, at_ms))
        for change in changes.refused:
            yield RECEIPTS, encode_receipt(consent_receipt(change, users, ConsentOutcome.REFUSED, at_ms))
        yield (
            RECEIPTS,
            encode_receipt(
                ElementReceipt(
                    bucket,
                    self._parts.epoch,
                    at_ms,
                    self._parts.model_name,
                    [
                        ListReceipt(
                            write.pseudonym,
                            write.version,
                            write.reason,
                            outcome.name.lower(),
                            changes.moved[write.pseudonym],
                        )
                        for write, outcome in zip(lists, written.lists, strict=True)
                    ],
                    totals(account),
                )
            ),
        )

    def _answer(self, command: Command, account: Account, told: list[Any]) -> list[AuditEntry]:
        """The answer to a command is `told` on `receipts`; gives what goes into the audit trail."""
        request, bucket = command.request, command.bucket
        if isinstance(command, KeyCommand):
            return [KeyEntry(command.change, command.kid, command.users)]
        if isinstance(command, AccountCommand):
            told.append((RECEIPTS, encode_receipt(AccountReceipt(request, bucket, totals(account)))))
            return []
        kids = self._kids.kids()
        told.append((RECEIPTS, encode_receipt(KidsReceipt(request, bucket, dict(kids)))))
        return []

    def _give_access(self, asked: AskedFor, users: Users, bucket: int, told: list[Any]) -> AuditEntry:
        """All that is kept of a user, or null; what is changed by this very element is included."""
        state = users.get(asked.pseudonym)
        found = msgspec.Raw(msgspec.json.encode(None if state is None else readable(state)))
        told.append((ANSWERS, encode_answer(StateAnswer(asked.request, bucket, asked.pseudonym, found))))
        return AccessEntry(asked.role, asked.purpose, "profile", 1, asked.pseudonym)


def clean_lines(accepted: Sequence[EventRecord], users: Users) -> bytes:
    """The clean events of one element as JSON lines: one crossing of the border, however many there are."""
    found = []
    for event in accepted:
        state = users.get(event.pseudonym)
        if state is not None and (clean := clean_event(event, state)):
            found.append(clean)
    return b"\n".join(found)


def totals(account: Account) -> AccountTotals:
    """`account` as receipts tell it."""
    return AccountTotals(sent=account.sent, **msgspec.structs.asdict(account))


def consent_entries(changes: Changes, written: Written) -> list[AuditEntry]:
    """What the audit trail says of the consent changes of an element."""
    outcomes = zip(changes.consents, written.consents, strict=True)
    applied = [consent_entry(change, outcome == ConsentOutcome.REFUSED) for change, outcome in outcomes]
    return applied + [consent_entry(change, refused=True) for change in changes.refused]


def refused_by_store(changes: Changes, written: Written) -> list[ConsentRecord]:
    """The grants that Redis refused, but for those of users who said no behind them in the element: that began anew."""
    refused: dict[str, ConsentRecord] = {}
    for change, outcome in zip(changes.consents, written.consents, strict=True):
        if outcome == ConsentOutcome.REFUSED:
            refused[change.pseudonym] = change
        elif change.level == Level.NONE:
            refused.pop(change.pseudonym, None)
    return list(refused.values())


def consent_receipt(change: ConsentRecord, users: Users, outcome: ConsentOutcome, at_ms: int) -> ConsentReceipt:
    """The receipt of a consent change."""
    state = users.get(change.pseudonym)
    version = 0 if state is None else state.version
    level = LEVEL_NAME[Level(change.level)]
    place = change.append_ts, change.partition, change.offset
    return ConsentReceipt(change.pseudonym, level, version, *place, outcome.name.lower(), at_ms, change.erase)
