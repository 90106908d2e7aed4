"""The side outputs of an element: dead letters, clean events, receipts and audit entries."""

import time
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from pyflink.common import Types
from pyflink.datastream import OutputTag

from schemas.audit import AuditEntry
from schemas.consents import LEVEL_NAME, Level
from schemas.receipts import (
    AccountTotals,
    ConsentReceipt,
    ElementReceipt,
    ListReceipt,
    encode_receipt,
)
from schemas.rejects import dead_letter
from schemas.store import ConsentOutcome, ListWrite, WriteOutcome, Written
from udfs.account import Account
from udfs.audit_chain import consent_entry
from udfs.elements import ConsentRecord, EventRecord
from udfs.personalise import Changes, Users, clean_event

BYTES: Final = Types.PRIMITIVE_ARRAY(Types.BYTE())
REJECTS: Final = OutputTag("rejects", BYTES)
CLEAN_EVENTS: Final = OutputTag("clean-events", BYTES)
RECEIPTS: Final = OutputTag("receipts", BYTES)
ANSWERS: Final = OutputTag("answers", BYTES)


_OUTCOMES: Final = {outcome: outcome.name.lower() for outcome in WriteOutcome}


class AppliedElement(NamedTuple):
    """An applied element: its bucket, the changes it caused, the lists written, and Redis' reply."""

    bucket: int
    changes: Changes
    lists: Sequence[ListWrite]
    written: Written


def side_outputs(applied: AppliedElement, users: Users, account: Account, epoch: int, model: str) -> Iterator[Any]:
    """Side outputs of one element, in the job of `epoch` that serves `model`; each list names its own model."""
    changes = applied.changes
    for reject in changes.rejects:
        yield REJECTS, dead_letter(reject)
    if clean := clean_lines([*changes.accepted, *changes.kept], users):
        yield CLEAN_EVENTS, clean
    at_ms = time.time_ns() // 1_000_000
    outcomes = [*applied.written.consents, *[ConsentOutcome.REFUSED] * len(changes.refused)]
    for change, outcome in zip([*changes.consents, *changes.refused], outcomes, strict=True):
        yield RECEIPTS, encode_receipt(consent_receipt(change, users, outcome, at_ms))
    lists, arms = list_receipts(applied), [write.arm for write in applied.lists]
    receipt = ElementReceipt(applied.bucket, epoch, at_ms, model, lists, totals(account), arms if any(arms) else [])
    yield RECEIPTS, encode_receipt(receipt)


def list_receipts(applied: AppliedElement) -> list[ListReceipt]:
    """Receipts of the written lists."""
    moved, said = applied.changes.moved, _OUTCOMES
    return [
        ListReceipt(write.pseudonym, write.version, write.reason, said[outcome], moved[write.pseudonym], write.model)
        for write, outcome in zip(applied.lists, applied.written.lists, strict=True)
    ]


def clean_lines(accepted: Sequence[EventRecord], users: Users) -> bytes:
    """The clean events of one element as JSON lines, in one record, so that they cross to Java once."""
    found = []
    for event in accepted:
        state = users.get(event.pseudonym)
        if state is not None and (clean := clean_event(event, state)):
            found.append(clean)
    return b"\n".join(found)


def totals(account: Account) -> AccountTotals:
    """`account` in the format of receipts."""
    return AccountTotals(sent=account.sent, **msgspec.structs.asdict(account))


def consent_entries(changes: Changes, written: Written) -> list[AuditEntry]:
    """Audit entries for the consent changes of an element."""
    outcomes = zip(changes.consents, written.consents, strict=True)
    applied = [consent_entry(change, outcome == ConsentOutcome.REFUSED) for change, outcome in outcomes]
    return applied + [consent_entry(change, refused=True) for change in changes.refused]


def consent_receipt(change: ConsentRecord, users: Users, outcome: ConsentOutcome, at_ms: int) -> ConsentReceipt:
    """The receipt of a consent change."""
    state = users.get(change.pseudonym)
    version = 0 if state is None else state.version
    level = LEVEL_NAME[Level(change.level)]
    place = change.append_ts, change.partition, change.offset
    return ConsentReceipt(change.pseudonym, level, version, *place, outcome.name.lower(), at_ms, change.erase)
