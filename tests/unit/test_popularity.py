"""Popularity equals the direct formula in any order and split, and hides items of fewer than k users."""

import math
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.events import EVENT_TYPES
from schemas.store import ALL
from tests.support.examples import examples
from tests.support.vocabulary import BEGINNING, DAY, HOUR, PSEUDONYMISER, a_raw_interaction, an_ingest, an_interaction
from udfs.elements import EventRecord, unpack
from udfs.popularity import (
    Popularity,
    PopularitySettings,
    PopularityTable,
    SegmentSums,
    decode_popularity,
    decode_sums,
    encode_popularity,
    encode_sums,
    sum_by_segment,
    user_bit_of,
    weighing,
)

WEIGHTS = {"view": 1, "click": 1, "dwell": 1, "rating": 2, "add_to_cart": 2, "purchase": 3}
EVERYTHING = PopularitySettings(users_min=1, half_life_ms=HOUR, list_items=100)


def a_table(config: PopularitySettings = EVERYTHING) -> PopularityTable:
    return PopularityTable(Popularity(), config)


def of_all(events: list[EventRecord], half_life_ms: int = HOUR) -> list[SegmentSums]:
    return [sums for sums in sum_by_segment(weighing(events), half_life_ms) if sums.segment == ALL]


def merged(*elements: list[EventRecord], config: PopularitySettings = EVERYTHING) -> PopularityTable:
    """Merge one element after the other, with storage in between, as the operator does."""
    popularity = Popularity()
    for n, events in enumerate(elements):
        table = PopularityTable(decode_popularity(encode_popularity(popularity)), config)
        table.merge([decode_sums(encode_sums(sums)) for sums in of_all(events, config.half_life_ms)], BEGINNING + n)
        popularity = table.close()
    return PopularityTable(popularity, config)


events = st.builds(
    an_interaction,
    user=st.integers(0, 9).map("u{}".format),
    at=st.integers(0, 20 * HOUR).map(lambda ts: BEGINNING + ts),
    item=st.integers(0, 6).map("i{}".format),
    kind=st.sampled_from(EVENT_TYPES),
    user_bit=st.integers(0, 9),
)


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(events, max_size=30), st.integers(0, 30), st.randoms())
def test_weights_equal_the_formula_in_any_order_and_split(some: list[EventRecord], cut: int, random: Any) -> None:
    weighing = [event for event in some if EVENT_TYPES[event.kind] in WEIGHTS]
    newest = max((event.ts for event in weighing), default=0)
    direct: dict[str, float] = defaultdict(float)
    bits: dict[str, set[int]] = defaultdict(set)
    for event in weighing:
        direct[str(event.item)] += WEIGHTS[EVENT_TYPES[event.kind]] * 2 ** ((event.ts - newest) / HOUR)
        bits[str(event.item)].add(event.user_bit)
    fair = {item: min(weight, 10 * 64 * math.log(64 / (64 - len(bits[item])))) for item, weight in direct.items()}
    random.shuffle(some)
    assert dict(merged(some[:cut], some[cut:]).top()) == pytest.approx(fair, rel=1e-9, abs=1e-300)


def test_merging_at_once_equals_one_by_one() -> None:
    first, second = [an_interaction(item="tea")], [an_interaction(at=BEGINNING + HOUR, item="cup")]
    at_once = a_table()
    at_once.merge([*of_all(first), *of_all(second)], BEGINNING)
    assert at_once.top() == merged(first, second).top() == merged(second, first).top() == [("cup", 1.0), ("tea", 0.5)]


@settings(max_examples=examples(100), deadline=None)
@given(
    st.lists(st.tuples(st.text("0123456789", min_size=1, max_size=2), st.integers(0, 4)), max_size=60),
    st.integers(1, 8),
)
@pytest.mark.promise("popular-hides")
def test_items_below_k_users_are_not_published(met: list[tuple[str, int]], k: int) -> None:
    some = [an_interaction(user, item=f"i{item}", user_bit=PSEUDONYMISER.route(user) // 4 % 64) for user, item in met]
    config = PopularitySettings(users_min=k, half_life_ms=HOUR)
    users_of: dict[str, set[str]] = defaultdict(set)
    for user, item in met:
        users_of[f"i{item}"].add(user)
    for item, _ in merged(some[: len(some) // 2], some[len(some) // 2 :], config=config).top():
        assert len(users_of[item]) >= k


def test_k_distinct_users_are_enough() -> None:
    config = PopularitySettings(users_min=5)
    fans = [an_interaction(f"u{n}", item="tea", user_bit=n) for n in range(5)]
    assert [item for item, _ in merged(fans, config=config).top()] == ["tea"]
    assert merged(fans[:4] * 9, config=config).top() == []


def test_busy_user_counts_once() -> None:
    busy = [an_interaction("ada", BEGINNING + n, "tea") for n in range(100)]
    assert merged(busy, config=PopularitySettings(users_min=2)).top() == []


def test_flood_of_clicks_by_one_user_leads_no_list() -> None:
    honest = [an_interaction(f"u{n}", item="tea", user_bit=n % 64) for n in range(100)]
    few = [an_interaction(f"u{n}", item="cup", user_bit=n) for n in range(5)]
    flood = [an_interaction("mallory", BEGINNING + n, "cup", user_bit=5) for n in range(3_000)]
    assert [item for item, _ in merged(honest, few, flood, config=PopularitySettings()).top()] == ["tea", "cup"]


def test_items_are_sorted_by_weight_then_id() -> None:
    some = [an_interaction(item=item, kind=kind) for item, kind in [("b", "view"), ("a", "view"), ("c", "purchase")]]
    assert merged(some).top() == [("c", 3.0), ("a", 1.0), ("b", 1.0)]


def test_the_list_is_bounded_with_ties_at_its_end() -> None:
    some = [an_interaction(item=f"i{n}") for n in range(9)]
    config = PopularitySettings(users_min=1, list_items=3)
    assert merged(some, config=config).top() == [("i0", 1.0), ("i1", 1.0), ("i2", 1.0)]


def test_the_table_is_bounded_and_keeps_the_best() -> None:
    config = PopularitySettings(users_min=1, items_max=10, list_items=100)
    some = [an_interaction(item=f"i{n}", at=BEGINNING + n * HOUR) for n in range(40)]
    table = a_table(config)
    for n, event in enumerate(some):
        table.merge(of_all([event], config.half_life_ms), n)
        assert len(table.close().items) <= 10
    best = [item for item, _ in table.top()]
    assert best == [f"i{n}" for n in range(39, 39 - len(best), -1)]
    assert len(best) >= 5


def test_unweighted_kinds_add_nothing() -> None:
    assert weighing([an_interaction(kind="impression"), an_interaction(kind="search", item=None)]) == []


def test_segments_have_separate_sums_after_the_global_one() -> None:
    here = an_interaction(item="tea", segments=("country:NL", "surface:home"))
    there = an_interaction(item="cup", segments=("country:DE",))
    sums = {one.segment: set(one.items) for one in sum_by_segment(weighing([here, there]), HOUR)}
    assert list(sums) == [ALL, "country:NL", "surface:home", "country:DE"]
    assert (sums[ALL], sums["country:NL"], sums["country:DE"]) == ({"tea", "cup"}, {"tea"}, {"cup"})


def test_old_weights_decay_to_zero() -> None:
    some = [an_interaction(at=BEGINNING - 9000 * DAY, item="old"), an_interaction(item="new")]
    assert merged(some[:1], some[1:]).top() == merged(some[1:], some[:1]).top() == [("new", 1.0), ("old", 0.0)]


def test_version_is_merge_time_and_never_decreases() -> None:
    table = a_table()
    table.merge(of_all([an_interaction()]), BEGINNING)
    assert table.close().version == BEGINNING
    table.merge(of_all([an_interaction()]), BEGINNING - DAY)
    assert table.close().version == BEGINNING + 1
    table.merge([], BEGINNING + DAY)
    assert table.close().version == BEGINNING + 1, "nothing merged, nothing new"


@given(user=st.integers().map("user-{}".format), buckets=st.integers(1, 1_024))
def test_user_has_one_bit_whatever_the_number_of_buckets_now(user: str, buckets: int) -> None:
    [(_, raw)] = an_ingest(buckets, bits_by=4).pack([a_raw_interaction(user)])
    [event] = unpack(raw).events
    assert event.user_bit == user_bit_of(PSEUDONYMISER.route(user), 4)
