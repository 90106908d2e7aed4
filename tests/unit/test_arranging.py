"""The rules of the shop on lists, against what they promise and against choosing one item after the other."""

import math
from collections import Counter
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.catalogue import CatalogueItem
from schemas.lists import item_fragment
from schemas.shop_rules import Boost, Exclusion, Pin, ShopRules
from tests.support.examples import examples
from udfs.arranging import Arranged, Candidates, arrange, arrange_one, items_of
from udfs.assortment import SIMILAR, Assortment

NAMES = [f"i{n}" for n in range(24)]
CATEGORIES = ("tea", "cups", "pots", None)
FRAGMENTS = {item_fragment(name): name for name in NAMES}


def assortment_of(rules: ShopRules, of: dict[str, str | None], withdrawn: set[str]) -> Assortment:
    made = Assortment(rules)
    for name, category in of.items():
        made.note(name, CatalogueItem(name, name, category, available=name not in withdrawn))
    return made


def candidates(*lists: list[str], log_odds: bool = False, width: int = 24) -> Candidates:
    """A list of candidates for each user, scored 1, 0.95, …; those further right are not kept."""
    rows = np.zeros((len(lists), width), np.int64)
    kept = np.zeros(rows.shape, bool)
    for user, names in enumerate(lists):
        rows[user, : len(names)] = [NAMES.index(name) for name in names]
        kept[user, : len(names)] = True
    return Candidates(rows, np.tile(1 - np.arange(width) / 20, (len(lists), 1)), kept, log_odds)


def names(arranged: Arranged) -> list[str]:
    return [FRAGMENTS[fragment] for fragment in arranged.fragments]


def arranged(
    made: Assortment, lists: list[list[str]], more: list[str] | None = None, size: int = 6, **of: Any
) -> list[Arranged]:
    shelf = made.shelf("own", 0)
    found = candidates(*lists, **of)
    if shelf is None:
        return [Arranged([item_fragment(name) for name in one[:size]], []) for one in lists]
    fill = [(item_fragment(name), 0.5) for name in more or []]
    return arrange(found, lambda user: fill, shelf, items_of(FRAGMENTS, made.code_of), size)


some_names = st.lists(st.sampled_from(NAMES), max_size=24, unique=True)


@st.composite
def shops(draw: st.DrawFn) -> dict[str, Any]:
    positions = draw(st.lists(st.integers(1, 8), unique=True, max_size=3))
    pinned = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=len(positions), max_size=len(positions)))
    pins = tuple(Pin(item=item, position=place) for item, place in zip(pinned, positions, strict=True))
    out = tuple(set(draw(st.lists(st.sampled_from(NAMES), max_size=3))) - set(pinned))
    rules = ShopRules(
        category_items_max=draw(st.none() | st.integers(1, 3)),
        caps=draw(st.dictionaries(st.sampled_from(["tea", "cups"]), st.integers(1, 4))),
        diversity=draw(st.sampled_from([0.0, 0.3, 0.9])),
        boosts=(Boost(categories=("cups",), factor=draw(st.sampled_from([0.5, 2.0]))),) if draw(st.booleans()) else (),
        pins=pins,
        exclusions=(Exclusion(items=out),) if out else (),
    )
    of = {name: draw(st.sampled_from(CATEGORIES)) for name in draw(some_names)}
    return {"rules": rules, "of": of, "withdrawn": set(draw(some_names)[:4])}


@settings(max_examples=examples(300), deadline=None)
@given(shops(), st.lists(some_names, min_size=1, max_size=3), some_names, st.integers(1, 10))
def test_a_list_keeps_all_promises(shop: dict[str, Any], lists: list[list[str]], more: list[str], size: int) -> None:
    rules, of = shop["rules"], shop["of"]
    made = assortment_of(rules, of, shop["withdrawn"])
    gone = {name for name in shop["withdrawn"] if name in of} | {x for one in rules.exclusions for x in one.items}
    pins = {pin.item: pin.position for pin in rules.pins if pin.item not in gone and pin.position <= size}
    if made.shelf("own", 0) is None:
        return
    for own, found in zip(lists, arranged(made, lists, more, size), strict=True):
        listed = names(found)
        assert len(set(listed)) == len(listed) and not set(listed) & gone
        assert set(listed) <= {*own, *more, *pins}
        counts, pinned = Counter(of.get(name) for name in listed), Counter(of.get(name) for name in pins)
        for category, count in counts.items():
            cap = None if category is None else rules.cap_of(category)
            assert cap is None or count <= max(cap, pinned[category])
        usable = Counter(of.get(name) for name in {*own, *more} - gone - pins.keys())
        room = {c: math.inf if c is None or rules.cap_of(c) is None else rules.cap_of(c) - pinned[c] for c in usable}
        possible = sum(min(count, max(0, room[c])) for c, count in usable.items())
        assert len(listed) == min(size, possible + len(pins))
        for item, position in pins.items():
            assert item in listed and (len(listed) < size or listed[position - 1] == item)
        assert found.scores == sorted(found.scores, reverse=True)
        if not rules.boosts and not rules.diversity:
            order = [*own, *(name for name in more if name not in own)]
            assert [name for name in listed if name not in pins] == sorted(set(listed) - pins.keys(), key=order.index)


def one_after_the_other(own: list[str], of: dict[str, str | None], diversity: float) -> list[str]:
    """Maximal marginal relevance by its definition; each earlier item of the category costs as much again."""
    scores = {name: 1 - place / 20 for place, name in enumerate(own)}
    low, high = min(scores.values()), max(scores.values())
    chosen: list[str] = []

    def worth(name: str) -> float:
        alike = sum(of.get(name) is not None and of.get(one) == of.get(name) for one in chosen)
        return (1 - diversity) * (scores[name] - low) / max(high - low, 1e-12) - diversity * alike

    while len(chosen) < len(own):
        chosen.append(max((name for name in own if name not in chosen), key=lambda name: round(worth(name), 9)))
    return chosen


@settings(max_examples=examples(200), deadline=None)
@given(some_names.filter(bool), st.dictionaries(st.sampled_from(NAMES), st.sampled_from(CATEGORIES)))
def test_spreading_equals_choosing_one_after_the_other(own: list[str], of: dict[str, str | None]) -> None:
    made = assortment_of(ShopRules(diversity=0.37), of, set())
    [found] = arranged(made, [own], size=24)
    assert names(found) == one_after_the_other(own, of, 0.37)


def test_users_of_a_batch_do_not_affect_each_other() -> None:
    made = assortment_of(ShopRules(category_items_max=2, diversity=0.4), dict.fromkeys(NAMES[:12], "tea"), {"i3"})
    lists = [NAMES, NAMES[::-1], [], NAMES[5:9]]
    assert arranged(made, lists) == [one for own in lists for one in arranged(made, [own])]


def test_boost_multiplies_odds_or_scores() -> None:
    made = assortment_of(ShopRules(boosts=(Boost(items=("i2",), factor=2.0),)), {}, set())
    [of_scores] = arranged(made, [["i0", "i1", "i2"]], size=3)
    assert (names(of_scores), of_scores.scores[0]) == (["i2", "i0", "i1"], 1.8)
    [of_odds] = arranged(made, [["i0", "i1", "i2"]], size=3, log_odds=True)
    assert of_odds.scores[0] == 0.9 + math.log(2)


def test_boost_lifts_negative_scores_too() -> None:
    made = assortment_of(ShopRules(boosts=(Boost(items=("i1",), factor=4.0),)), {}, set())
    shelf = made.shelf("own", 0)
    assert shelf is not None
    found = arrange_one([item_fragment("i0"), item_fragment("i1")], [-1.0, -2.0], shelf, made.code_of, 2)
    assert names(found) == ["i1", "i0"]


def test_assortment_without_rules_and_withdrawn_items_changes_nothing() -> None:
    made = assortment_of(ShopRules(), dict.fromkeys(NAMES, "tea"), set())
    assert [made.shelf(kind, 0) for kind in ("own", "popular", "trending", SIMILAR)] == [None] * 4


def test_items_come_back() -> None:
    made = assortment_of(ShopRules(), {"i0": "tea"}, {"i0"})
    assert names(arranged(made, [["i0", "i1"]])[0]) == ["i1"]
    for said in (CatalogueItem("i0", "i0", "tea"), None):
        made.note("i0", CatalogueItem("i0", "i0", "tea", available=False))
        made.note("i0", said)
        assert names(arranged(made, [["i0", "i1"]])[0]) == ["i0", "i1"]


def test_similar_items_are_only_left_out() -> None:
    rules = ShopRules(category_items_max=1, exclusions=(Exclusion(categories=("pots",)),), diversity=0.5)
    of: dict[str, str | None] = {"i0": "tea", "i1": "tea", "i2": "pots", "i3": "tea"}
    made = assortment_of(rules, of, {"i3"})
    shelf = made.shelf(SIMILAR, 0)
    assert shelf is not None and shelf.caps is None
    found = arrange_one([item_fragment(name) for name in of], [4.0, 3.0, 2.0, 1.0], shelf, made.code_of, 4)
    assert names(found) == ["i0", "i1"]


def test_pins_and_exclusions_of_a_segment_are_for_its_popular_list_only() -> None:
    rules = ShopRules(
        pins=(Pin(item="i5", position=1, segments=("country:GB",)),),
        exclusions=(Exclusion(items=("i0",), segments=("country:GB",)),),
    )
    made = assortment_of(rules, {}, set())
    british = made.shelf("popular", 0, "country:GB")
    assert british is not None
    assert [made.shelf("popular", 0, "country:PT"), made.shelf("own", 0), made.shelf("popular", 0)] == [None] * 3
    found = arrange_one([item_fragment(name) for name in NAMES[:3]], [3.0, 2.0, 1.0], british, made.code_of, 3)
    assert names(found) == ["i5", "i1", "i2"]
