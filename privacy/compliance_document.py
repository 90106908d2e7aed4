"""The compliance report as a document that explains each figure. Times are UTC."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from privacy.document import Document, Grid, Section
from privacy.retention import Kept, duration
from privacy.rules.audit_verify import Verification
from privacy.rules.compliance import KINDS, Kind, Report, States, TimeToEffect
from privacy.rules.suppression import OTHERS, Figure, SuppressedTable
from schemas import topics
from schemas.pseudonyms import KeyRing
from schemas.topics import DAY_MS

FINDINGS_SHOWN_MAX: Final = 100
_NAMES: Final[dict[Kind, str]] = {
    "consent": "consents",
    "withdrawal": "withdrawals",
    "erasure": "erasures",
    "refused": "refused grants",
    "expiry": "expiries",
    "denied": "interactions denied",
}
_PROOFS: Final = {
    "complete": "complete: nothing is left in older snapshots and raw interactions either",
    "effective": "effective: nothing is left in state, lists, consent view and clean events",
    "no receipt": "no receipt",
}
_STATES: Final = {
    "none": "none: withdrawn or expired",
    "session": "session",
    "full": "full",
    "erased": "erased: nothing is kept but that",
}


class Circumstances(NamedTuple):
    """What the report contains besides the figures. Of the key ring, only key ids are shown.

    `made_at_ms` is when the report was made; `snapshots_kept_ms` is the age limit of snapshots that may be restored.
    """

    verification: Verification
    retention: Sequence[Kept]
    ring: KeyRing
    made_at_ms: int
    snapshots_kept_ms: int


def compliance_document(report: Report, given: Circumstances) -> Document:
    """The report, starting with the verification of the trail."""
    findings = len(given.verification.findings)
    alarm = (
        f"THE AUDIT TRAIL IS NOT WHOLE: {findings} finding{'s' if findings != 1 else ''}. "
        "No figure of this report can be relied on."
    )
    retained = [[cell.replace("`", "") for cell in row] for row in given.retention]
    start, end = day(report.period.start_ms), day(report.period.end_ms - DAY_MS)
    sections = [
        _how_to_read(report, given),
        _trail(report, given.verification),
        _changes(report),
        *_kinds(report),
        _effects(report),
        _erasures(report, given),
        _states(report.states, report.k, end),
        _denied(report),
        _accesses(report),
        _rejects(report, given),
        _keys(report, given.ring),
        Section("Retention in force", [_grid(Kept._fields, retained)]),
    ]
    return Document(f"Compliance report, {start} to {end}", alarm if findings else None, sections)


def day(ms: int) -> str:
    """The day of a time, UTC.

    >>> day(1_749_600_000_000)
    '2025-06-11'
    """
    return datetime.fromtimestamp(ms / 1000, UTC).date().isoformat()


def minute(ms: int) -> str:
    """A time to the minute, UTC.

    >>> minute(1_749_600_061_000)
    '2025-06-11 00:01 UTC'
    """
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _grid(head: Iterable[str], rows: Iterable[Sequence[str]]) -> Grid:
    return Grid([name.replace("_", " ") for name in head], list(rows))


def _how_to_read(report: Report, given: Circumstances) -> Section:
    k = report.k
    return Section(
        "How to read it",
        [
            f"Made on {minute(given.made_at_ms)}. Days are days of UTC; the first and the last are included.",
            f"No figure of fewer than {k} persons is shown, and no pseudonym. <{k} stands for one that counts fewer. "
            f"In a table with a total, <{k}* stands for one that counts fewer, or nobody, or that is withheld so that "
            "no such figure can be worked out from the total.",
            "Reports over periods that overlap can be subtracted from each other: keep to whole months, say.",
        ],
    )


def _trail(report: Report, found: Verification) -> Section:
    records = sum(chain.records for chain in found.chains)
    blocks: list[str | Grid] = []
    if found.findings:
        shown = found.findings[:FINDINGS_SHOWN_MAX]
        blocks.append(f"{len(found.findings)} findings; the first {len(shown)}:")
        blocks.append(_grid(("bucket", "record", "finding"), [(str(b), str(seq), text) for b, seq, text in shown]))
    else:
        blocks.append(f"The trail is whole: of its {records} records none was changed, is missing or out of place.")
    chains = [
        (str(each.bucket), str(each.records), str(each.last_seq), str(each.signed_seq) if each.signed_seq >= 0 else "–")
        for each in found.chains
    ]
    blocks.append(_grid(("bucket", "records", "last record", "signed up to"), chains))
    blocks += found.remarks
    if found.unproved:
        blocks.append(f"{len(found.unproved)} records are not signed, or not yet: they are not counted in any figure.")
    if report.repeats != 0:
        blocks.append(
            f"Jobs restored from an older savepoint told {_figure(report.repeats, report.k)} changes again; each "
            "counts once below. What else they did again (reads, denials, expiries) counts as often as it was done."
        )
    if report.unreadable:
        blocks.append(f"{report.unreadable} records of the trail or of dead letters cannot be read and count nowhere.")
    return Section("Is the audit trail whole?", blocks)


def _changes(report: Report) -> Section:
    days = [
        (day(int(at)), *(_part(report.days[kind].rows[at], report.k) for kind in KINDS)) for at in report.period.days()
    ]
    total = ("all days", *(_figure(report.days[kind].total, report.k) for kind in KINDS))
    return Section(
        "Changes by day",
        [
            "As the job carried them out. A refused grant was given no later than the user's last withdrawal; an "
            "expiry is a consent that ended by its own time; an interaction was denied because no consent allowed it.",
            _grid(("day", *(_NAMES[kind] for kind in KINDS)), [*days, total]),
        ],
    )


def _kinds(report: Report) -> Iterable[Section]:
    for kind, title in (("consent", "Consents"), ("withdrawal", "Withdrawals")):
        blocks: list[str | Grid] = []
        for (of, what), table in report.by.items():
            if of == kind:
                blocks.append(_grid((what, _NAMES[of]), _table_with_total(table, report.k)))
        if narrowed := report.narrowed["consent" if kind == "consent" else "withdrawal"]:
            blocks.append("Less is in force than was granted, for these reasons. A change may have several.")
            blocks.append(_grid(("reason", "changes"), _figure_rows(narrowed, report.k)))
        yield Section(title, blocks or ["None."])


def _effects(report: Report) -> Section:
    rows = [(_NAMES[kind], *_times(effect)) for kind, effect in report.effects.items()]
    return Section(
        "From withdrawal to effect",
        [
            "Milliseconds from the record's append in Kafka, by the broker's clock, to its effect in state and Redis, "
            "by the worker's. A withdrawal through serving/consents.py is fenced in Redis even before it is appended. "
            f"Left out where fewer than {report.k} persons are behind it.",
            _grid(("", *(name.replace("_", " ") for name in TimeToEffect._fields)), rows),
        ],
    )


def _times(effect: TimeToEffect | None) -> Sequence[str]:
    return ["–"] * len(TimeToEffect._fields) if effect is None else [str(time) for time in effect]


def _erasures(report: Report, given: Circumstances) -> Section:
    kept, gone_ms = duration(given.snapshots_kept_ms), given.made_at_ms - given.snapshots_kept_ms
    receipts_since = minute(given.made_at_ms - topics.RECEIPTS_RETENTION_MS)
    rows = [(_PROOFS[name], _part(figure, report.k)) for name, figure in report.proofs.rows.items()]
    return Section(
        "Erasures",
        [
            "Each was effective when it was recorded: gone from state and Redis. A receipt is written when "
            f"freshet erase verify proves it; those from before {receipts_since} are past their retention.",
            _grid(("receipt", "erasures"), [*rows, ("all", _figure(report.proofs.total, report.k))]),
            f"Erasures before {minute(gone_ms)} are complete in snapshots, provided that none older than {kept} "
            "(privacy.snapshots_kept_ms) is left. Clean events and exports end as the table of retention says.",
        ],
    )


def _states(states: States, k: int, end: str) -> Section:
    levels = [(_STATES[name], _part(figure, k)) for name, figure in states.levels.rows.items()]
    purposes = [(name, _figure(figure, k)) for name, figure in states.purposes.items()]
    kids = [(f"key {name}" if is_kid else name, figure) for name, figure, is_kid in _table_rows(states.kids, k)]
    blocks: list[str | Grid] = [
        f"By what the trail last told of each pseudonym up to the end of {end}. Who was last told of before the trail "
        "begins is not among them.",
        _grid(("level", "users"), [*levels, ("all", _figure(states.levels.total, k))]),
        "Every user at level session or full grants the purpose personalise. Of them also grant:",
        _grid(("purpose", "users"), purposes),
    ]
    blocks.append(
        "A rotation of the key renames users, and nothing links the two names: who changed their consent before and "
        "after one counts twice, and where pseudonyms of more than one key exist, the figures above are upper bounds."
    )
    blocks.append(_grid(("pseudonyms made with", "users"), [*kids, ("all", _figure(states.kids.total, k))]))
    return Section(f"States at the end of {end}", blocks)


def _denied(report: Report) -> Section:
    rows = [
        ("not_allowed: the consent on record does not allow it", _figure(report.days["denied"].total, report.k)),
        ("no_consent_on_record", _figure(report.strangers, report.k)),
    ]
    return Section(
        "Interactions that were not used",
        [
            _grid(("reason", "interactions"), rows),
            "Nothing is kept of users without a recorded consent, so their number is unknown.",
        ],
    )


def _accesses(report: Report) -> Section:
    rows = [(*map(_named, names), _figure(figure, report.k)) for names, figure in report.accesses.items()]
    return Section(
        "Who read data",
        [
            "Reads by role, purpose and data, as stated by the reader. Reads that were recorded without the "
            "user's name count as reads of different persons.",
            _grid(("role", "purpose", "what", "reads"), rows) if rows else "Nobody.",
        ],
    )


def _rejects(report: Report, given: Circumstances) -> Section:
    rows = [
        (_named(topic), _named(reason), _figure(count, report.k)) for (topic, reason), count in report.rejects.items()
    ]
    blocks: list[str | Grid] = [
        "Consents and commands that were rejected, for any reason; and interactions without a user, older than "
        "allowed, or with an item id that looks like a person's identifier (missing_user, time_too_old, too_late, "
        "personal_item). Counted in records, because the number of persons is unknown.",
        _grid(("topic", "reason", "records"), rows) if rows else "None.",
    ]
    kept_since = given.made_at_ms - topics.DEAD_LETTERS_RETENTION_MS
    if report.period.start_ms < kept_since:
        blocks.append(f"Dead letters from before {minute(kept_since)} are past their retention and are missing here.")
    return Section("Rejected for reasons of privacy", blocks)


def _keys(report: Report, ring: KeyRing) -> Section:
    state = f"Pseudonyms are made with key {ring.current}"
    if ring.previous is None:
        state += "; no rotation is under way."
    else:
        relinked = f"all were moved by {minute(ring.relinked_at)}" if ring.relinked_at else "not all have been moved"
        state += f"; a rotation from key {ring.previous} is under way since {minute(ring.rotating_since)}: {relinked}."
    rows = [(minute(each.at), each.change, str(each.kid), _figure(each.users, report.k)) for each in report.keys]
    events = (
        _grid(("when", "what", "key", "users"), rows) if rows else "Nothing happened to the key ring in the period."
    )
    return Section("Keys", [state, events])


def _named(text: str) -> str:
    return "(all others)" if text == OTHERS else text


def _figure(figure: Figure, k: int) -> str:
    return f"<{k}" if figure is None else str(figure)


def _part(figure: Figure, k: int) -> str:
    return f"<{k}*" if figure is None else str(figure)


def _figure_rows(figures: Mapping[str, Figure], k: int) -> list[tuple[str, str]]:
    return [(_named(name), _figure(figure, k)) for name, figure in figures.items()]


def _table_rows(table: SuppressedTable, k: int) -> list[tuple[str, str, bool]]:
    """The rows of a table whose small rows are unnamed: (name, figure, whether it is a row's name)."""
    rows = [(_named(name), _part(figure, k), True) for name, figure in table.rows.items()]
    return [*rows, ("(withheld, together)", str(table.rest), False)] if table.rest else rows


def _table_with_total(table: SuppressedTable, k: int) -> list[tuple[str, str]]:
    rows = [(name, figure) for name, figure, _ in _table_rows(table, k)]
    return [*rows, ("all", _figure(table.total, k))]
