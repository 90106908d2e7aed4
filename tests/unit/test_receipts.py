"""Receipts as bytes: those of older releases are still read."""

import msgspec

from schemas.receipts import AccountTotals, ElementReceipt, ListReceipt, decode_receipt, encode_receipt

TOTALS = AccountTotals(1, 1, 0, 0, {}, 0, 0, 0, 0)


def test_a_receipt_names_the_model_of_each_list() -> None:
    lists = [ListReceipt("p1.a", 3, "personalised", "written", 7, "new"), ListReceipt("p1.b", 1, "popular", "gone", 7)]
    receipt = ElementReceipt(2, 9, 10, "old", lists, TOTALS)
    assert decode_receipt(encode_receipt(receipt)) == receipt
    assert [listed.model for listed in lists] == ["new", ""]


def test_older_receipt_without_model_is_read() -> None:
    account = msgspec.json.encode(TOTALS).decode()
    old = '{"kind":"element","bucket":2,"epoch":9,"at":10,"model":"m","lists":[["p1.a",3,"personalised","written",7]],'
    found = decode_receipt(f'{old}"account":{account}}}'.encode())
    assert isinstance(found, ElementReceipt)
    assert (found.model, found.lists) == ("m", [ListReceipt("p1.a", 3, "personalised", "written", 7)])
