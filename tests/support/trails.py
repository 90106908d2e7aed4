"""Audit trails for tests of reports, and the naive twin of the report: whole sets, no tricks."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from hypothesis import strategies as st

from privacy.rules.audit_proof import Trust
from privacy.rules.compliance import Compliance, Period, Report, last_reported_offsets
from schemas.audit import (
    AccessEntry,
    AuditEntry,
    ConsentEntry,
    DeniedEntry,
    ErasureEntry,
    ExpiryEntry,
    KeyEntry,
    RefusedEntry,
    WithdrawalEntry,
)
from schemas.signing import SigningKey
from tests.support.vocabulary import BEGINNING, DAY, HOUR, SECOND
from udfs.audit_chain import Author, ChainHead, append

KEY = SigningKey(bytes(range(32)))
TRAIL = "the topic of these tests"
HEADS_EVERY = 10 * SECOND
TRUST = Trust([KEY.public], [TRAIL])

Told = tuple[int, AuditEntry]
"""When it was told, in ms, and what."""


def an_author(epoch: int = BEGINNING, trail: str = TRAIL, key: SigningKey = KEY) -> Author:
    """The job that was submitted at `epoch`."""
    return Author(key, epoch, trail, HEADS_EVERY)


def a_trail(
    told: Iterable[Told], bucket: int = 0, epoch: int = BEGINNING, head: ChainHead | None = None
) -> list[bytes]:
    """The records of one job."""
    records: list[bytes] = []
    head = head or ChainHead()
    for at, entry in told:
        head, more = append(head, [entry], bucket, an_author(epoch), at)
        records += more
    return records


def reported(
    records: Sequence[bytes],
    period: Period,
    k: int = 10,
    rejects: Iterable[bytes] = (),
    receipts: Iterable[bytes] = (),
) -> Report:
    counted = Compliance(period, k, last_reported_offsets(records))
    for raw in receipts:
        counted.prove(raw)
    for raw in records:
        counted.add(raw)
    for raw in rejects:
        counted.reject(raw, "t.interactions")
    return counted.report()


_names = st.tuples(st.sampled_from(["p1.", "p2."]), st.integers(0, 7)).map(lambda drawn: f"{drawn[0]}{drawn[1]}")
_methods = st.sampled_from([None, "banner", "form"])
_reasons = st.lists(st.sampled_from(["gpc", "age"]), max_size=2)
_purposes = st.sets(st.sampled_from(["measure", "train"])).map(lambda more: ["personalise", *sorted(more)])
_at = st.integers(-2 * 24, 5 * 24).map(lambda hours: BEGINNING + hours * HOUR)


@st.composite
def tellings(draw: Any) -> list[Told]:
    """What a job records, in the order of time and of offsets."""
    told: list[Told] = []
    for offset, at in enumerate(sorted(draw(st.lists(_at, max_size=80)))):
        name, place = draw(_names), (at - draw(st.integers(-5, 900)), 0, offset)
        kinds: list[AuditEntry] = [
            ConsentEntry(
                name, draw(st.sampled_from(["session", "full"])), draw(_purposes), *place,
                notice_version=draw(_methods), jurisdiction=draw(_methods), method=draw(_methods),
                narrowed_by=draw(_reasons),
            ),
            WithdrawalEntry(name, *place, draw(_methods), draw(_reasons)),
            ErasureEntry(name, *place),
            RefusedEntry(name, *place),
            ExpiryEntry(name),
            DeniedEntry(draw(st.integers(1, 9)), "not_allowed", name),
            DeniedEntry(draw(st.integers(1, 9)), "no_consent_on_record"),
            AccessEntry(draw(st.sampled_from("ab")), "p", "profile", 2, draw(st.none() | _names)),
            KeyEntry("relinked", 2, draw(st.integers(0, 20))),
        ]  # fmt: skip
        told.append((at, draw(st.sampled_from(kinds))))
    return told


def persons(names: Iterable[str | None]) -> int:
    """The certain number of persons: pseudonyms of one key are distinct; an unnamed user counts as a person."""
    known, nobody = defaultdict(set), 0
    for name in names:
        if name is None:
            nobody += 1
        else:
            known[name[:3]].add(name)
    return max(map(len, known.values()), default=0) + nobody


class Counts:
    """Counts by name, and the persons behind them."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, ...]] = Counter()
        self.behind: dict[tuple[str, ...], list[str | None]] = defaultdict(list)

    def add(self, *name: str, of: str | None, times: int = 1) -> None:
        self.counts[name] += times
        self.behind[name] += [of] * (times if of is None else 1)


def naive(told: Sequence[Told], period: Period) -> dict[tuple[str, ...], tuple[int, int]]:
    """Every figure that a report could have: its name → (count, persons)."""
    found = Counts()
    for at, entry in told:
        if period.start_ms <= at < period.end_ms:
            _count_entry(found, at, msgspec.to_builtins(entry))
    _count_states(found, [entry for at, entry in told if at < period.end_ms])
    return {name: (count, persons(found.behind[name])) for name, count in found.counts.items()}


def _count_entry(found: Counts, at: int, fields: dict[str, Any]) -> None:
    kind, name, times = fields["kind"], fields.get("pseudonym"), fields.get("events", 1)
    if kind == "access":
        found.add("access", fields["role"], of=name, times=fields.get("reads", 1))
    elif kind == "denied" and name is None:
        found.add("strangers", of=None, times=times)
    elif kind != "key":
        found.add(kind, of=name, times=times)
        found.add(kind, "day", str(at // DAY * DAY), of=name, times=times)
    by = {"consent": ("level", "jurisdiction", "notice_version", "method"), "withdrawal": ("method",)}
    for what in by.get(kind, ()):
        found.add(kind, what, fields.get(what) or "(not stated)", of=name)
    for reason in set(fields.get("narrowed_by", ())):
        found.add(kind, "narrowed", reason, of=name)


def _count_states(found: Counts, entries: Sequence[AuditEntry]) -> None:
    states: dict[str, tuple[str, list[str]]] = {}
    for entry in entries:
        if isinstance(entry, ConsentEntry):
            states[entry.pseudonym] = entry.level, list(entry.purposes)
        elif isinstance(entry, WithdrawalEntry | ExpiryEntry):
            states[entry.pseudonym] = "none", []
        elif isinstance(entry, ErasureEntry):
            states[entry.pseudonym] = "erased", []
    for name, (level, purposes) in states.items():
        found.add("states", of=name)
        found.add("states", "level", level, of=name)
        found.add("states", "kid", name[1], of=name)
        for purpose in set(purposes) - {"personalise"}:
            found.add("states", "purpose", purpose, of=name)
