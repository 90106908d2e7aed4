"""Executes commands from `control` in their bucket: produces replies and audit entries."""

from typing import Any

import msgspec

from schemas.answers import StateAnswer, encode_answer
from schemas.audit import AccessEntry, AuditEntry, KeyEntry
from schemas.control import AccountCommand, KeyCommand, KidsCommand, RelearnCommand
from schemas.receipts import AccountReceipt, KidsReceipt, encode_receipt
from udfs.account import Account
from udfs.elements import AccessRequest, Element
from udfs.operators.kids_keeper import KidsKeeper
from udfs.operators.learning_keeper import LESSONS, RELEARN
from udfs.operators.outputs import ANSWERS, RECEIPTS, totals
from udfs.personalise import Users
from udfs.state import readable


def execute_commands(
    element: Element, account: Account, users: Users, kids: KidsKeeper, outputs: list[Any]
) -> list[AuditEntry]:
    """Execute the commands of an element: append replies to `outputs` and return audit entries.

    Those of a roll-out are for :class:`udfs.operators.rollout_keeper.RolloutKeeper`.
    """
    entries: list[AuditEntry] = [*element.accesses]
    for command in element.commands:
        if isinstance(command, KeyCommand):
            entries.append(KeyEntry(command.change, command.kid, command.users))
        elif isinstance(command, AccountCommand):
            receipt = AccountReceipt(command.request, command.bucket, totals(account))
            outputs.append((RECEIPTS, encode_receipt(receipt)))
        elif isinstance(command, RelearnCommand):
            outputs.append((LESSONS, RELEARN + command.request.encode()))
        elif isinstance(command, KidsCommand):
            counted = KidsReceipt(command.request, command.bucket, dict(kids.kids()))
            outputs.append((RECEIPTS, encode_receipt(counted)))
    for asked in element.access_requests:
        outputs.append((ANSWERS, encode_answer(state_answer(asked, users, element.bucket))))
        entries.append(AccessEntry(asked.role, asked.purpose, "profile", 1, asked.pseudonym))
    return entries


def state_answer(asked: AccessRequest, users: Users, bucket: int) -> StateAnswer:
    """The state of a user, or null; includes changes made by the element that holds the request."""
    state = users.get(asked.pseudonym)
    found = msgspec.Raw(msgspec.json.encode(None if state is None else readable(state)))
    return StateAnswer(asked.request, bucket, asked.pseudonym, found)
