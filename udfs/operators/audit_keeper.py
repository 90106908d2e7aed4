"""Keeps a bucket's audit trail in Flink: its book in keyed state, its records and signed heads on side outputs.

Also counts audit events: :data:`schemas.metrics.PRIVACY`.
"""

import itertools
import operator
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from pyflink.common import Types
from pyflink.datastream import OutputTag, RuntimeContext
from pyflink.datastream.functions import KeyedProcessFunction
from pyflink.datastream.state import ValueStateDescriptor

from schemas import metrics
from schemas.audit import AuditEntry, ErasureEntry
from schemas.handover import FOREVER
from udfs.audit_chain import (
    DENIED_USERS_MAX,
    Author,
    Book,
    append,
    decode_book,
    denied_entries,
    encode_book,
    note_denied,
    rename,
    sign_head,
)
from udfs.audit_counts import counts_of, withdrawals_s
from udfs.operators.gate import OPEN, WriteGate
from udfs.operators.meters import Meters
from udfs.operators.timers import register_end_of

AUDIT: Final = OutputTag("audit", Types.PRIMITIVE_ARRAY(Types.BYTE()))
AUDIT_HEADS: Final = OutputTag("audit-heads", Types.PRIMITIVE_ARRAY(Types.BYTE()))


class AuditNote(NamedTuple):
    """What a bucket's audit trail has to tell: its book as bytes, the records as JSON lines, their counts, and how long
    withdrawals took.
    """

    book: bytes
    records: bytes
    counts: Mapping[metrics.Metric, int]
    withdrawals_s: Sequence[float]


class AuditKeeper:
    """The audit trail of the bucket being processed. `author` is the job, `meters` are the operator's."""

    def __init__(self, context: RuntimeContext, author: Author, meters: Meters, gate: WriteGate = OPEN) -> None:
        self._book = context.get_state(ValueStateDescriptor("audit-v1", Types.PICKLED_BYTE_ARRAY()))
        self._author, self._gate = author, gate
        self._counters = {metric: meters.counter(metric) for metric in metrics.PRIVACY}
        self._withdrawals = meters.histogram(metrics.WITHDRAWAL)

    def record(
        self,
        bucket: int,
        entries: Sequence[AuditEntry],
        denied: Mapping[str, int],
        moved: Mapping[str, str],
        now_ms: int,
    ) -> AuditNote | None:
        """Record `entries`, count `denied` interactions, and rename users (`moved`: current → previous pseudonym).

        The book keeps nothing of erased users. Only reads state; None if there is nothing to record.
        """
        if not (entries or denied or moved):
            return None
        raw = self._book.value()
        book = Book(bucket) if raw is None else decode_book(raw)
        rename(book, moved)
        note_denied(book, denied)
        erased = [entry.pseudonym for entry in entries if isinstance(entry, ErasureEntry)]
        denied_so_far = denied_entries(book, None if len(book.denied) > DENIED_USERS_MAX else erased)
        return self._append(book, [*denied_so_far, *entries], now_ms)

    def put(self, recorded: AuditNote, ctx: KeyedProcessFunction.Context) -> Iterator[Any]:
        """Write the book to state; yields the records."""
        self._book.update(recorded.book)
        register_end_of(self._author.heads_every_ms, ctx)
        yield from self._told(recorded)

    def expired(
        self, entries: Sequence[AuditEntry], timestamp: int, ctx: KeyedProcessFunction.Context
    ) -> Iterator[Any]:
        """At the end of a second, record `entries`, its expired consents. At the end of an interval, sign the head."""
        if entries:
            raw = self._book.value()
            assert raw is not None, "an expired consent must have been recorded"
            now_ms = ctx.timer_service().current_processing_time()
            if (recorded := self.record(decode_book(raw).bucket, entries, {}, {}, now_ms)) is not None:
                yield from self.put(recorded, ctx)
        if timestamp % self._author.heads_every_ms == 0:
            # Timers that came due while the job was down fire late, so use the current time to keep times ascending.
            yield from self._sign(ctx)

    def silence(self, ctx: KeyedProcessFunction.Context, ends_ms: int) -> Iterator[Any]:
        """At the end of a second in which another job writes: sign what this job has written last, until `ends_ms`.

        A job that has not written yet forgets what it counted: the job that it follows has counted it, too.
        """
        raw = self._book.value()
        if raw is None:
            return
        if ends_ms < FOREVER:
            yield from self._sign(ctx)
            return
        book = decode_book(raw)
        if book.denied:
            book.denied.clear()
            self._book.update(encode_book(book))

    def _sign(self, ctx: KeyedProcessFunction.Context) -> Iterator[Any]:
        raw = self._book.value()
        if raw is None:
            return
        book, now_ms = decode_book(raw), ctx.timer_service().current_processing_time()
        yield from self._told(self._append(book, denied_entries(book), now_ms))
        if book.held:
            self._book.update(encode_book(book))
            register_end_of(self._author.heads_every_ms, ctx)
            return
        if book.head.seq == book.head.signed_seq:
            return
        book.head, signed = sign_head(book.head, book.bucket, now_ms, self._author)
        yield AUDIT_HEADS, signed
        self._book.update(encode_book(book))

    def _append(self, book: Book, entries: Sequence[AuditEntry], at_ms: int) -> AuditNote:
        """Append `entries`, or hold them with their time until the end of the chain that they continue is known."""
        waiting, book.held = [*book.held, *((at_ms, entry) for entry in entries)], []
        if waiting and not self._continues(book):
            book.held, waiting = waiting, []
        records: list[bytes] = []
        counts: Counter[metrics.Metric] = Counter()
        waits: list[float] = []
        for at, group in itertools.groupby(waiting, key=operator.itemgetter(0)):
            mine = [entry for _, entry in group]
            book.head, more = append(book.head, mine, book.bucket, self._author, at)
            records += more
            counts.update(counts_of(mine, len(more)))
            waits += withdrawals_s(mine, at)
        return AuditNote(encode_book(book), b"\n".join(records), counts, waits)

    def _continues(self, book: Book) -> bool:
        """Whether the end of the chain is known; before the first record of a job, the one before may still write."""
        if book.head.epoch == self._author.epoch:
            return True
        parents = self._gate.parents()
        if parents is None:
            return False
        parent = parents.get(book.bucket, book.head)
        if parent.seq > book.head.seq:
            book.head = parent
        return True

    def _told(self, recorded: AuditNote) -> Iterator[Any]:
        if recorded.records:
            for metric, count in recorded.counts.items():
                self._counters[metric].inc(count)
            for seconds in recorded.withdrawals_s:
                self._withdrawals.observe(seconds)
            self._withdrawals.flush()
            yield AUDIT, recorded.records
