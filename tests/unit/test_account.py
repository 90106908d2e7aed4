"""The account counts every interaction once, under one outcome."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import SchemaError
from schemas.receipts import AccountTotals
from schemas.rejects import RejectReason
from udfs.account import Account, decode_account, encode_account
from udfs.profile import Outcome


@given(st.lists(st.sampled_from(Outcome)), st.lists(st.sampled_from(RejectReason)))
def test_account_parts_sum_to_the_total(outcomes: list[Outcome], reasons: list[RejectReason]) -> None:
    account = Account()
    for outcome in outcomes:
        account.note(outcome)
    for reason in reasons:
        account.reject(reason)
    assert account.sent == len(outcomes) + len(reasons)
    assert account.accepted == sum(outcome in (Outcome.ACCEPTED, Outcome.MOVED) for outcome in outcomes)
    assert account.duplicates == outcomes.count(Outcome.DUPLICATE)
    assert account.denied == outcomes.count(Outcome.DENIED)
    too_late = outcomes.count(Outcome.TOO_LATE) + reasons.count(RejectReason.TOO_LATE)
    assert account.rejected.get("too_late", 0) == too_late
    assert decode_account(encode_account(account)) == account


def test_accounts_share_nothing() -> None:
    Account().reject(RejectReason.TOO_LATE)
    assert Account().rejected == {}


def test_empty_bytes_are_an_empty_account() -> None:
    assert decode_account(None) == Account()


def test_account_of_another_version_is_refused() -> None:
    with pytest.raises(SchemaError, match="version 2"):
        decode_account(b"\x02" + encode_account(Account())[1:])


def test_receipts_carry_the_whole_account() -> None:
    told = set(AccountTotals.__struct_fields__)
    assert told == {"sent", *msgspec.structs.asdict(Account())}
