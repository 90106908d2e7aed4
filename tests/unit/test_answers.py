"""The rules for what a reader returns."""

import doctest

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from schemas.catalogue import CatalogueItem
from schemas.lists import (
    ListedItem,
    RecommendationList,
    decode_list,
    decode_user_list,
    encode_list,
    item_fragment,
    with_history,
    without_history,
)
from schemas.store import ALL
from serving import answers
from serving.answers import (
    EMPTY_LIST,
    POPULAR_FRESH_MS,
    Filter,
    Listed,
    PopularLists,
    answer,
    available,
    cut,
    decoded,
    filter_of,
)
from tests.support.vocabulary import BEGINNING

an_id = st.text(min_size=1, max_size=12) | st.sampled_from(['},{"id":', '"', "\\", '\\"},{"id":"', "]}", "é"])


def raw_list(ids: list[str], version: int = 3) -> bytes:
    scores = [1.0 / (place + 1) for place in range(len(ids))]
    return encode_list(version, 7, b'"m"', BEGINNING, "personalised", [item_fragment(one) for one in ids], scores)


@given(st.lists(an_id, max_size=8), st.integers(-1, 10))
def test_truncated_bytes_equal_truncated_list(ids: list[str], n: int) -> None:
    raw = raw_list(ids)
    whole, less = decode_list(raw), decode_list(cut(raw, n))
    assert less == msgspec.structs.replace(whole, items=whole.items[: max(0, n)])


@given(st.lists(an_id, max_size=8), st.lists(an_id, max_size=4), st.lists(an_id, max_size=4), st.integers(-1, 10))
def test_truncated_bytes_are_without_history(ids: list[str], viewed: list[str], bought: list[str], n: int) -> None:
    raw = raw_list(ids)
    whole = with_history(raw, viewed, bought)
    assert cut(whole, n) == cut(raw, n) and without_history(whole) == raw == without_history(raw)
    assert decode_list(whole) == decode_list(raw), "as releases before it read it"
    found = decode_user_list(whole)
    assert (list(found.viewed), list(found.bought)) == (viewed, bought)
    assert [item.id for item in found.history("viewed").items] == viewed
    assert decode_user_list(raw).history("bought").items == ()


@given(st.lists(an_id, max_size=8), st.integers(-3, 10))
def test_answer_has_n_items_and_none_for_negative_n(ids: list[str], n: int) -> None:
    assert [item.id for item in answer([decode_list(raw_list(ids))], n, BEGINNING).items] == ids[: max(0, n)]


CATALOGUE = {
    "tea": CatalogueItem("tea", "Tea", "drinks"),
    "cup": CatalogueItem("cup", "Cup", "things", available=False),
    "pot": CatalogueItem("pot", "Pot"),
}


@given(
    st.lists(st.sampled_from(["tea", "cup", "pot", "new"]), max_size=6),
    st.frozensets(st.sampled_from(["tea", "cup", "pot", "new"])),
    st.sampled_from([None, "drinks", "things"]),
)
def test_filters_keep_matching_items(ids: list[str], exclude: frozenset[str], category: str | None) -> None:
    keep = Filter(exclude, category, CATALOGUE)
    kept = [one for one in ids if keep(ListedItem(one, 1.0))]
    assert not set(kept) & exclude
    for one in ids:
        known = CATALOGUE.get(one)
        withdrawn = known is not None and not known.available
        other = category is not None and (known is None or known.category != category)
        assert (one in kept) == (one not in exclude and not withdrawn and not other)


def test_withdrawn_items_are_cut_out_of_shared_lists() -> None:
    raw = raw_list(["tea", "cup", "pot"])
    listed = Listed(raw, decode_list(raw))
    shown = available(listed, CATALOGUE)
    assert [item.id for item in shown.found.items] == ["tea", "pot"] and shown.shortened
    assert decode_list(shown.raw) == shown.found
    assert available(listed, {"tea": CATALOGUE["tea"]}) is listed is available(listed, {})


def test_nothing_is_filtered_while_nothing_is_withdrawn() -> None:
    class Followed(dict[str, CatalogueItem]):
        withdrawn: frozenset[str] = frozenset()

    followed = Followed(CATALOGUE)
    assert filter_of((), None, {}) is None and filter_of((), None, followed) is None
    assert filter_of((), None, CATALOGUE) is not None
    followed.withdrawn = frozenset({"cup"})
    assert filter_of((), None, followed) is not None


def a_list(*ids: str) -> RecommendationList:
    return decode_list(raw_list(list(ids)))


def test_empty_filtered_list_falls_back_to_the_next() -> None:
    found = answer([a_list("tea"), a_list("cup", "pot")], 5, BEGINNING + 40, lambda item: item.id != "tea")
    assert [item.id for item in found.items] == ["cup", "pot"] and found.age_ms == 40
    nothing = answer([a_list("tea")], 5, BEGINNING, lambda item: False)
    assert (nothing.items, nothing.reason, nothing.version, nothing.age_ms) == ((), "popular", 0, 0)


def test_empty_answer_is_a_valid_list() -> None:
    assert decoded(EMPTY_LIST) == RecommendationList(0, 0, "", 0, "popular", ())


def test_popular_list_is_fetched_once_a_second_and_kept_when_lost() -> None:
    held = PopularLists()
    assert held.outdated(["a", ALL], 0) == ["a", ALL]
    held.put("a", raw_list(["tea"]), 0)
    held.put(ALL, None, 0)
    assert held.outdated(["a", ALL], POPULAR_FRESH_MS - 1) == []
    assert held.outdated(["a", ALL], POPULAR_FRESH_MS) == ["a", ALL]
    held.mark_requested("a", POPULAR_FRESH_MS)
    assert held.outdated(["a"], POPULAR_FRESH_MS) == [], "somebody asks already"
    held.put("a", None, POPULAR_FRESH_MS)
    held.put("a", b"{", POPULAR_FRESH_MS)
    assert [one.found.items[0].id for one in held.of(["b", "a", ALL])] == ["tea"]


def test_examples_hold() -> None:
    assert doctest.testmod(answers).failed == 0
