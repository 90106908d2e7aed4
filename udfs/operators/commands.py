"""Carries out commands of `control` in their bucket: replies, and audit entries."""

from typing import Any

import msgspec

from schemas.answers import StateAnswer, encode_answer
from schemas.audit import AccessEntry, AuditEntry, KeyEntry
from schemas.control import AccountCommand, KeyCommand
from schemas.receipts import AccountReceipt, KidsReceipt, encode_receipt
from udfs.account import Account
from udfs.elements import AskedFor, Element
from udfs.operators.kids_keeper import KidsKeeper
from udfs.operators.outputs import ANSWERS, RECEIPTS, totals
from udfs.personalise import Users
from udfs.state import readable


def carry_out_commands(
    element: Element, account: Account, users: Users, kids: KidsKeeper, told: list[Any]
) -> list[AuditEntry]:
    """The commands of an element: answers are added to `told`; gives what goes into the audit trail."""
    entries: list[AuditEntry] = [*element.accesses]
    for command in element.commands:
        if isinstance(command, KeyCommand):
            entries.append(KeyEntry(command.change, command.kid, command.users))
        elif isinstance(command, AccountCommand):
            receipt = AccountReceipt(command.request, command.bucket, totals(account))
            told.append((RECEIPTS, encode_receipt(receipt)))
        else:
            counted = KidsReceipt(command.request, command.bucket, dict(kids.kids()))
            told.append((RECEIPTS, encode_receipt(counted)))
    for asked in element.asked_for:
        told.append((ANSWERS, encode_answer(all_that_is_kept(asked, users, element.bucket))))
        entries.append(AccessEntry(asked.role, asked.purpose, "profile", 1, asked.pseudonym))
    return entries


def all_that_is_kept(asked: AskedFor, users: Users, bucket: int) -> StateAnswer:
    """Of a user, or null; what is changed by the very element that asks is included."""
    state = users.get(asked.pseudonym)
    found = msgspec.Raw(msgspec.json.encode(None if state is None else readable(state)))
    return StateAnswer(asked.request, bucket, asked.pseudonym, found)
