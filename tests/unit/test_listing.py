"""Which list the hot route returns, and under which ETag."""

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from schemas.catalogue import CatalogueItem
from schemas.consents import Level
from schemas.lists import decode_list, encode_list, item_fragment
from schemas.store import consent_value
from serving.answers import Listed
from serving.gateway import listing
from serving.gateway.listing import choose
from serving.gateway.questions import read_query

CONSENT = consent_value(Level.FULL, 0, 12, 0, 5)


class Followed(dict[str, CatalogueItem]):
    """A catalogue in which nothing but `withdrawn` is unavailable."""

    def __init__(self, *withdrawn: str) -> None:
        super().__init__({item: CatalogueItem(item, item, available=False) for item in withdrawn})
        self.withdrawn = set(withdrawn)


def a_list(*items: str, reason: Any = "personalised") -> bytes:
    return encode_list(3, 7, b'"m"', 9, reason, [item_fragment(item) for item in items], [1.0] * len(items))


def a_tenant(*withdrawn: str, popular: bytes = a_list("socks", reason="popular")) -> Any:
    lists = [Listed(popular, decode_list(popular))]
    return SimpleNamespace(
        reader=SimpleNamespace(cached=lambda segments: lists), catalogue=Followed(*withdrawn), models={}
    )


def ids(found: listing.Found) -> list[str]:
    return [item["id"] for item in msgspec.json.decode(found.body)["items"]]


def test_withdrawn_items_leave_the_users_list_before_it_is_cut() -> None:
    own = [a_list("tea", "cup", "pot"), CONSENT]
    found = choose(own, a_tenant("tea"), read_query(b"n=2"), 0)
    assert (ids(found), found.reason) == (["cup", "pot"], "personalised")
    before, after = (choose(own, a_tenant(*gone), read_query(b"n=2"), 0).tag for gone in ([], ["tea"]))
    assert before != after, "a cache may have the list of before"


def test_list_of_withdrawn_items_only_falls_back() -> None:
    found = choose([a_list("tea"), CONSENT], a_tenant("tea"), read_query(b""), 0)
    assert (ids(found), found.reason) == (["socks"], "popular")


@pytest.mark.parametrize("withdrawn", [(), ("other",)])
def test_list_without_withdrawn_items_is_sent_as_stored(withdrawn: tuple[str, ...]) -> None:
    raw = a_list("tea", "cup")
    assert choose([raw, CONSENT], a_tenant(*withdrawn), read_query(b""), 0).body == raw


def test_lists_are_decoded_only_while_items_are_withdrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_items", None)
    assert ids(choose([a_list("tea"), CONSENT], a_tenant(), read_query(b""), 0)) == ["tea"]


def test_unreadable_list_falls_back_while_items_are_withdrawn() -> None:
    for raw in (b"no list", b"\xff"):
        found = choose([raw, CONSENT], a_tenant("tea"), read_query(b""), 0)
        assert (ids(found), found.reason) == (["socks"], "popular")
