"""Keeps a bucket's audit trail in Flink: its book in keyed state, its records and signed heads on side outputs.

Also counts audit events: :data:`schemas.metrics.PRIVACY`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from pyflink.common import Types
from pyflink.datastream import OutputTag, RuntimeContext
from pyflink.datastream.functions import KeyedProcessFunction
from pyflink.datastream.state import ValueStateDescriptor

from schemas import metrics
from schemas.audit import AuditEntry, ErasureEntry
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

    def __init__(self, context: RuntimeContext, author: Author, meters: Meters) -> None:
        self._book = context.get_state(ValueStateDescriptor("audit-v1", Types.PICKLED_BYTE_ARRAY()))
        self._author = author
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
            yield from self._sign(ctx.timer_service().current_processing_time())

    def _sign(self, now_ms: int) -> Iterator[Any]:
        raw = self._book.value()
        if raw is None:
            return
        book = decode_book(raw)
        yield from self._told(self._append(book, denied_entries(book), now_ms))
        if book.head.seq == book.head.signed_seq:
            return
        book.head, signed = sign_head(book.head, book.bucket, now_ms, self._author)
        yield AUDIT_HEADS, signed
        self._book.update(encode_book(book))

    def _append(self, book: Book, entries: Sequence[AuditEntry], at_ms: int) -> AuditNote:
        book.head, records = append(book.head, entries, book.bucket, self._author, at_ms)
        counts = counts_of(entries, len(records)) if records else {}
        waits = withdrawals_s(entries, at_ms) if records else []
        return AuditNote(encode_book(book), b"\n".join(records), counts, waits)

    def _told(self, recorded: AuditNote) -> Iterator[Any]:
        if recorded.records:
            for metric, count in recorded.counts.items():
                self._counters[metric].inc(count)
            for seconds in recorded.withdrawals_s:
                self._withdrawals.observe(seconds)
            self._withdrawals.flush()
            yield AUDIT, recorded.records
