"""Figures of the audit trail over a period: nothing about a single person, and no small groups.

Call order: :func:`last_reported_offsets` over the whole trail; :meth:`Compliance.prove` for each receipt;
:meth:`Compliance.add` for each record of the trail, in any order; :meth:`Compliance.reject` for each dead letter;
:meth:`Compliance.report`.

A job restored from an older savepoint reports consents again, late: each change counts once, with the time of its first
effect. (Anything without a place in `consents`, such as a read, did happen again, and counts again.) A rotation renames
pseudonyms, and nothing in the trail links the two names: somebody who changed their consent before and after it counts
twice in the states, which are therefore also given by key.

No equation may relate two totals of the report, or one would reveal what the other withholds; a figure that would do so
is left out. Every user at a level above `none` grants `personalise`, so that has no row.

Memory: about 200 bytes per pseudonym in the trail; 8 bytes per withdrawal in the period; up to `k` names for each of at
most :data:`privacy.rules.suppression.CATEGORIES_MAX` values of a text.
"""

from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple, TypeVar

import msgspec

from privacy.rules.audit_proof import UNREADABLE
from privacy.rules.suppression import CATEGORIES_MAX, OTHERS, Cell, Figure, SuppressedTable, Tally
from schemas.audit import (
    AccessEntry,
    AuditEntry,
    AuditPlace,
    ConsentEntry,
    DeniedEntry,
    ErasureEntry,
    ExpiryEntry,
    KeyEntry,
    RefusedEntry,
    WithdrawalEntry,
)
from schemas.consents import LEVEL_OF, PURPOSES
from schemas.pseudonyms import kid_of
from schemas.receipts import ErasureReceipt, ErasureStatus
from schemas.rejects import DeadLetter, RejectReason
from schemas.topics import DAY_MS

Kind = Literal["consent", "withdrawal", "erasure", "refused", "expiry", "denied"]
KINDS: Final[tuple[Kind, ...]] = ("consent", "withdrawal", "erasure", "refused", "expiry", "denied")
STATES: Final = ("none", "session", "full", "erased")
NOT_STATED: Final = "(not stated)"
PRIVACY_REJECTS: Final = frozenset(
    {RejectReason.MISSING_USER, RejectReason.TIME_TOO_OLD, RejectReason.TOO_LATE, RejectReason.PERSONAL_ITEM}
)
"""Interactions for which no consent could be looked up, that are too old to be used, or whose item id identifies a
person. Rejected consents and commands always count: an unread withdrawal was not applied."""
PROOFS: Final[tuple[ErasureStatus | Literal["no receipt"], ...]] = ("complete", "effective", "no receipt")
"""The possible receipts of erasures: only proofs are written as receipts."""
_ERASED: Final = STATES.index("erased")
_CODE_BITS, _SEQ_BITS = 8, 48

_decode_entry: Final = msgspec.json.Decoder(AuditEntry).decode
_decode_place: Final = msgspec.json.Decoder(AuditPlace).decode
_RECEIPT_OF_ERASURE: Final = b'"kind":"erasure"'
_decode_receipt: Final = msgspec.json.Decoder(ErasureReceipt).decode
_decode_reject: Final = msgspec.json.Decoder(DeadLetter).decode


class Period(NamedTuple):
    """From `start_ms` up to but not including `end_ms` (ms since the epoch); both at midnight UTC."""

    start_ms: int
    end_ms: int

    def holds(self, at_ms: int) -> bool:
        """Whether the period contains a time."""
        return self.start_ms <= at_ms < self.end_ms

    def days(self) -> list[str]:
        """Its days, each as its first ms since the epoch."""
        return [str(day) for day in range(self.start_ms, self.end_ms, DAY_MS)]


class TimeToEffect(NamedTuple):
    """The time from append to effect of changes, in ms: percentiles by nearest rank."""

    p50: int
    p95: int
    p99: int
    max: int


class KeyEvent(NamedTuple):
    """A change of the key ring at `at` (ms)."""

    at: int
    change: str
    kid: int
    users: Figure


class States(NamedTuple):
    """Users by their last record before the end of the period: by level, by key, and by granted purpose."""

    levels: SuppressedTable
    kids: SuppressedTable
    purposes: dict[str, Figure]


class Report(msgspec.Struct, frozen=True):
    """Everything that may be shown. Tables in `by` and `narrowed` are keyed by kind and by the distinguishing field.

    `unreadable` records belong to no person and are shown as counted; `repeats` were reported again after a restore.
    """

    period: Period
    k: int
    days: dict[Kind, SuppressedTable]
    by: dict[tuple[Kind, str], SuppressedTable]
    narrowed: dict[Kind, dict[str, Figure]]
    effects: dict[Kind, TimeToEffect | None]
    proofs: SuppressedTable
    strangers: Figure
    accesses: dict[tuple[str, str, str], Figure]
    states: States
    keys: list[KeyEvent]
    rejects: dict[tuple[str, str], Figure]
    repeats: Figure
    unreadable: int


Key = TypeVar("Key", str, tuple[str, str], tuple[str, str, str])
Placed = ConsentEntry | WithdrawalEntry | ErasureEntry | RefusedEntry
ReportedOffsets = dict[tuple[int, int], dict[int, int]]
"""(bucket, partition of `consents`) → epoch of a job → the last offset that it reported."""


def last_reported_offsets(trail: Iterable[bytes]) -> ReportedOffsets:
    """How far each job has reported `consents`: what a later job reports before that is a repeat."""
    reported: ReportedOffsets = defaultdict(dict)
    for raw in trail:
        place, entry = _decoded(raw) or (None, None)
        if place is not None and isinstance(entry, Placed):
            by_epoch = reported[place.bucket, entry.partition]
            by_epoch[place.epoch] = max(entry.offset, by_epoch.get(place.epoch, -1))
    return reported


def _decoded(raw: bytes) -> tuple[AuditPlace, AuditEntry] | None:
    try:
        return _decode_place(raw), _decode_entry(raw)
    except UNREADABLE:
        return None


class Compliance:
    """Counts the trail's records in `period`; `k` is the minimum number of persons behind a figure."""

    def __init__(self, period: Period, k: int, reported: ReportedOffsets) -> None:
        self._period, self._k, self._reported = period, k, reported
        days = len(period.days())
        self._days: dict[Kind, Tally] = {kind: Tally(k, days) for kind in KINDS}
        self._by: dict[tuple[Kind, str], Tally] = defaultdict(lambda: Tally(k))
        self._narrowed: dict[Kind, dict[str, Cell]] = {"consent": {}, "withdrawal": {}}
        self._took: dict[Kind, array[int]] = {"withdrawal": array("q"), "erasure": array("q")}
        self._proved: dict[str, tuple[int, ErasureStatus]] = {}
        self._proofs = Tally(k)
        self._strangers, self._repeats = Cell(k), Cell(k)
        self._accesses: dict[tuple[str, str, str], Cell] = {}
        self._last: dict[str, int] = {}
        self._keys: list[KeyEvent] = []
        self._rejects: dict[tuple[str, str], Cell] = {}
        self._unreadable = 0

    def prove(self, raw: bytes) -> None:
        """Note a receipt, if it is for an erasure; of several for one user, the newest counts."""
        if _RECEIPT_OF_ERASURE not in raw:
            return
        try:
            receipt = _decode_receipt(raw)
        except UNREADABLE:
            self._unreadable += 1
            return
        reported = receipt.checked_at, receipt.status
        self._proved[receipt.pseudonym] = max(reported, self._proved.get(receipt.pseudonym, reported))

    def add(self, raw: bytes) -> None:
        """Count one record of the trail."""
        found = _decoded(raw)
        if found is None:
            self._unreadable += 1
            return
        place, entry = found
        if place.at < self._period.end_ms:
            self._note_state(place, entry)
        if not self._period.holds(place.at):
            return
        match entry:
            case DeniedEntry():
                self._denied(place, entry)
            case AccessEntry():
                cell = _cell(self._accesses, (entry.role, entry.purpose, entry.what), (OTHERS,) * 3, self._k)
                cell.add(entry.pseudonym, entry.reads)
            case KeyEntry():
                users = entry.users if entry.users >= self._k or entry.users == 0 else None
                self._keys.append(KeyEvent(place.at, entry.change, entry.kid, users))
            case ConsentEntry() | WithdrawalEntry() | ErasureEntry() | RefusedEntry():
                if self._is_repeat(place, entry):
                    self._repeats.add(entry.pseudonym)
                else:
                    self._changed(place, entry)
            case ExpiryEntry():
                self._on_day("expiry", place, entry.pseudonym)

    def reject(self, raw: bytes, interactions: str) -> None:
        """Count one dead letter; `interactions` is the full name of that topic."""
        try:
            letter = _decode_reject(raw)
        except UNREADABLE:
            self._unreadable += 1
            return
        if self._period.holds(letter.time) and (letter.topic != interactions or letter.reason in PRIVACY_REJECTS):
            _cell(self._rejects, (letter.topic, str(letter.reason)), (OTHERS,) * 2, self._k).add(None)

    def _note_state(self, place: AuditPlace, entry: AuditEntry) -> None:
        """Keep the state from a user's last record: a user stays in one bucket, whose records are numbered."""
        match entry:
            case ConsentEntry() | WithdrawalEntry():
                granted = sum(1 << bit for bit, purpose in enumerate(PURPOSES) if purpose in entry.purposes)
                code = (LEVEL_OF[entry.level] if isinstance(entry, ConsentEntry) else 0) | granted << 2
            case ExpiryEntry():
                code = 0
            case ErasureEntry():
                code = _ERASED
            case _:
                return
        last = (place.epoch << _SEQ_BITS | place.seq) << _CODE_BITS | code
        if last > self._last.get(entry.pseudonym, -1):
            self._last[entry.pseudonym] = last

    def _is_repeat(self, place: AuditPlace, entry: Placed) -> bool:
        reported = self._reported.get((place.bucket, entry.partition), {})
        return any(epoch < place.epoch and entry.offset <= offset for epoch, offset in reported.items())

    def _changed(self, place: AuditPlace, entry: Placed) -> None:
        kind, name = _kind_of(entry), entry.pseudonym
        self._on_day(kind, place, name)
        if kind in self._took:
            self._took[kind].append(place.at - entry.consent_at)
        if isinstance(entry, ErasureEntry):
            checked_at, status = self._proved.get(name, (-1, None))
            self._proofs.add(status if status and checked_at >= place.at else "no receipt", name)
        if isinstance(entry, ConsentEntry):
            for what in ("level", "jurisdiction", "notice_version"):
                self._by[kind, what].add(getattr(entry, what) or NOT_STATED, name)
        if isinstance(entry, ConsentEntry | WithdrawalEntry):
            self._by[kind, "method"].add(entry.method or NOT_STATED, name)
            for reason in set(entry.narrowed_by):
                _cell(self._narrowed[kind], reason, OTHERS, self._k).add(name)

    def _denied(self, place: AuditPlace, entry: DeniedEntry) -> None:
        if entry.pseudonym is None:
            self._strangers.add(None, entry.events)
        else:
            self._on_day("denied", place, entry.pseudonym, entry.events)

    def _on_day(self, kind: Kind, place: AuditPlace, name: str, count: int = 1) -> None:
        day = place.at - (place.at - self._period.start_ms) % DAY_MS
        self._days[kind].add(str(day), name, count)

    def report(self) -> Report:
        """Everything counted that may be shown."""
        took: dict[Kind, Sequence[int]] = {
            kind: times if self._days[kind].total.is_safe else () for kind, times in self._took.items()
        }
        return Report(
            period=self._period,
            k=self._k,
            days={kind: tally.table(self._period.days()) for kind, tally in self._days.items()},
            by={name: tally.table() for name, tally in sorted(self._by.items())},
            narrowed={kind: _figures(cells) for kind, cells in self._narrowed.items()},
            effects={kind: effect_of(sorted(times)) for kind, times in took.items()},
            proofs=self._proofs.table(PROOFS),
            strangers=self._strangers.figure,
            accesses=_figures(self._accesses),
            states=self._states(),
            keys=sorted(self._keys, key=lambda event: event[:3]),
            rejects=_figures(self._rejects),
            repeats=self._repeats.figure,
            unreadable=self._unreadable,
        )

    def _states(self) -> States:
        levels, kids = Tally(self._k), Tally(self._k)
        purposes = {name: Cell(self._k) for name in PURPOSES[1:]}
        for name, last in self._last.items():
            code = last & (1 << _CODE_BITS) - 1
            levels.add(STATES[code & 3], name)
            kids.add(kid_of(name), name)
            for bit, cell in enumerate(purposes.values(), start=1):
                if code >> 2 + bit & 1:
                    cell.add(name)
        return States(levels.table(STATES), kids.table(), {name: cell.figure for name, cell in purposes.items()})


def _kind_of(entry: Placed) -> Kind:
    match entry:
        case ConsentEntry():
            return "consent"
        case WithdrawalEntry():
            return "withdrawal"
        case ErasureEntry():
            return "erasure"
        case RefusedEntry():
            return "refused"


def _cell(cells: dict[Key, Cell], key: Key, others: Key, k: int) -> Cell:
    """The cell of `key`, or of `others` if there are too many."""
    return cells.setdefault(key if key in cells or len(cells) < CATEGORIES_MAX else others, Cell(k))


def _figures(cells: dict[Key, Cell]) -> dict[Key, Figure]:
    return {key: cells[key].figure for key in sorted(cells)}


def effect_of(times: Sequence[int]) -> TimeToEffect | None:
    """The percentiles of `times`, which must be sorted; None if there are none.

    >>> effect_of([10, 20, 30, 40])
    TimeToEffect(p50=20, p95=40, p99=40, max=40)
    """
    if not times:
        return None
    p50, p95, p99 = (times[-(-len(times) * percent // 100) - 1] for percent in (50, 95, 99))
    return TimeToEffect(p50, p95, p99, times[-1])
