"""Lists against a naive ranking: sort, exclude, cut, fill up."""

from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.catalogue import CatalogueItem
from schemas.lists import ListedItem, RecommendationList, decode_list, decode_user_list
from schemas.store import ListWrite
from tests.support.examples import examples
from tests.support.fakes import FixedModel
from tests.support.vocabulary import BEGINNING, DAY, HOUR, MINUTE, a_user, an_interaction
from udfs.frozen_model import FrozenModel
from udfs.guarded_model import Scoring
from udfs.profile import RECENT_ITEMS_MAX, WEIGHT_OF_KIND, ProfileBounds, take
from udfs.ranking import ListRules, PopularItems, Ranker
from udfs.state import UserState

BOUNDS = ProfileBounds(recents_half_life_ms=HOUR)
ITEMS = [f"i{n}" for n in range(40)]
POPULAR = PopularItems.ranked(["i3", "hit-1", "i30", "hit-2", "i0"])
EPOCH, NOW = BEGINNING, BEGINNING + DAY


class Ranking(NamedTuple):
    """A ranker and its model."""

    ranker: Ranker
    model: FrozenModel


def a_ranker(top_k: int = 10, **rules: Any) -> Ranking:
    return ranking_with(FixedModel(ITEMS, top_k), **{"items": 6, **rules})


def ranking_with(model: Scoring, name: str = "fixed", **rules: Any) -> Ranking:
    return Ranking(Ranker(ListRules(**rules), BOUNDS, EPOCH), FrozenModel(model, name, BOUNDS))


def who_met(*items: str, bought: tuple[str, ...] = (), level: str = "full", version: int = 7) -> UserState:
    state = a_user(level, since=0)  # type: ignore[arg-type]
    for n, item in enumerate(items):
        kind = "purchase" if item in bought else "click"
        take(state, an_interaction(at=BEGINNING + n * MINUTE, item=item, kind=kind), BOUNDS)
    state.version = version
    return state


def ranked(ranking: Ranking, popular: PopularItems = POPULAR, **users: UserState) -> dict[str, ListWrite]:
    return {write.pseudonym: write for write in ranking.ranker.rank(users, popular, ranking.model, NOW, DAY)}


def listed(ranking: Ranking, state: UserState, popular: PopularItems = POPULAR) -> RecommendationList:
    return decode_list(ranked(ranking, popular, ada=state)["ada"].payload)


def level_of(write: ListWrite) -> str:
    return str(msgspec.json.decode(write.consent)["level"])


def ids(found: RecommendationList) -> list[str]:
    return [item.id for item in found.items]


def naive(
    state: UserState,
    popular: PopularItems,
    top_k: int,
    size: int,
    no_bought: bool,
    no_recent: bool,
    had: set[str],
) -> list[tuple[str, float]]:
    """One user, one item at a time."""
    assert state.profile is not None
    model, profile = FixedModel(ITEMS, top_k), state.profile
    skip = {item for item, _, _ in profile.recents if no_recent} | {item for item in profile.bought if no_bought} | had
    history, weights = np.zeros((1, 20), np.int32), np.zeros((1, 20), np.float32)
    place = RECENT_ITEMS_MAX
    for item, ts, kind in reversed(profile.recents):
        if item in model.index:
            place -= 1
            history[0, place] = model.index[item]
            weights[0, place] = WEIGHT_OF_KIND[kind] * 0.5 ** ((profile.newest_ts - ts) / HOUR)
    chosen: list[tuple[str, float]] = []
    if place < RECENT_ITEMS_MAX:
        scores, rows = model.score(history, weights)
        for score, row in zip(scores[0], rows[0], strict=True):
            if model.items[row] not in skip:
                chosen.append((model.items[row], round(float(score), 4)))
    chosen = chosen[:size]
    lowest = chosen[-1][1] if chosen else 1e9
    for item, _, score in zip(*popular, strict=True):
        if item not in skip and item not in dict(chosen) and len(chosen) < size:
            chosen.append((item, round(min(score, lowest), 4)))
    return chosen


def test_list_has_what_the_user_met_and_bought_newest_first() -> None:
    state = who_met("i1", "i2", "i3", bought=("i1", "i2"))
    found = decode_user_list(ranked(a_ranker(viewed_items=2), ada=state)["ada"].payload)
    assert (found.viewed, found.bought) == (("i3", "i2"), ("i2", "i1"))
    without = decode_user_list(ranked(a_ranker(viewed_items=0, bought_items=0), ada=state)["ada"].payload)
    assert (without.viewed, without.bought) == ((), ()) and without.items == found.items


def test_what_the_user_met_is_without_withdrawn_items() -> None:
    ranking = a_ranker()
    ranking.ranker.assortment.note("i2", CatalogueItem("i2", "two", available=False))
    state = who_met("i1", "i2", "i3", bought=("i1", "i2"))
    found = decode_user_list(ranked(ranking, ada=state)["ada"].payload)
    assert (found.viewed, found.bought) == (("i3", "i1"), ("i1",))


met = st.lists(st.integers(0, 45).map("i{}".format), max_size=25)


@settings(max_examples=examples(100), deadline=None)
@given(met, st.sets(st.integers(0, 45).map("i{}".format)), *[st.booleans()] * 3, st.integers(1, 12))
def test_a_list_equals_the_naive_ranking(
    items: list[str], bought: set[str], no_bought: bool, no_recent: bool, no_had: bool, size: int
) -> None:
    state = who_met(*items, bought=tuple(bought))
    recent = RECENT_ITEMS_MAX if no_recent else 0
    ranking = a_ranker(items=size, exclude_bought=no_bought, exclude_recent=recent, exclude_had=no_had)
    expected = naive(state, POPULAR, 10, size, no_bought, no_recent, set(items) if no_had else set())
    writes = ranked(ranking, ada=state)
    got = [] if not writes else [(item.id, item.score) for item in decode_list(writes["ada"].payload).items]
    assert [item for item, _ in got] == [item for item, _ in expected]
    assert [score for _, score in got] == pytest.approx([score for _, score in expected], abs=1.01e-4)


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(met, min_size=1, max_size=6))
def test_list_does_not_depend_on_the_batch(histories: list[list[str]]) -> None:
    users = {f"u{n}": who_met(*items, version=n) for n, items in enumerate(histories)}
    model = FixedModel(ITEMS, 10)
    batch = ranked(ranking_with(model, items=6), **users)
    assert model.batches == [len(users)], "one batch"
    for name, state in users.items():
        assert ranked(a_ranker(), **{name: state}) == {name: batch[name]}


def test_ranker_ranks_with_the_model_passed_to_it() -> None:
    """Two models with different items do not mix their rows, names or failures."""

    class Failing(FixedModel):
        def score(self, items: Any, weights: Any, features: Any = None) -> tuple[Any, Any]:
            raise ValueError

    ranker, state = a_ranker().ranker, who_met("i5")
    forwards, backwards = (
        FrozenModel(FixedModel(ITEMS), "forwards"),
        FrozenModel(FixedModel(ITEMS[::-1]), "backwards"),
    )
    failing = FrozenModel(Failing(ITEMS), "failing")
    for model in (forwards, backwards, failing, forwards):
        [write] = ranker.rank({"ada": state}, POPULAR, model, NOW, DAY)
        found = decode_list(write.payload)
        assert (write.model, found.model) == (model.name, model.name)
        if model is not failing:
            assert ids(found) == ids(listed(Ranking(a_ranker().ranker, model), state)), "as if it were the only one"
    assert ids(listed(Ranking(ranker, forwards), state)) != ids(listed(Ranking(ranker, backwards), state))
    assert (forwards.failed, backwards.failed, failing.failed) == (0, 0, 1)


def test_list_carries_version_epoch_model_and_reason() -> None:
    write = ranked(a_ranker(), ada=who_met("i5"))["ada"]
    found = decode_list(write.payload)
    assert (found.v, found.epoch, found.model, found.at, found.reason) == (7, EPOCH, "fixed", NOW, "personalised")
    assert (write.version, level_of(write), write.ttl_ms) == (7, "full", DAY)
    assert len(found.items) == 6
    assert found.items == tuple(sorted(found.items, key=lambda item: -item.score))


def test_session_list_is_labelled_and_expires_after_the_gap() -> None:
    write = ranked(a_ranker(), ada=who_met("i5", level="session"))["ada"]
    assert (write.reason, level_of(write), write.ttl_ms) == ("session", "session", BOUNDS.session_gap_ms)


def test_seen_or_bought_items_are_excluded_unless_configured() -> None:
    state = who_met("i4", "i5", "i6", bought=("i4",))
    assert not {"i4", "i5", "i6"} & set(ids(listed(a_ranker(), state)))
    assert not {"i4", "i5", "i6"} & set(ids(listed(a_ranker(exclude_recent=0, exclude_bought=False), state)))

    def with_rules(**rules: Any) -> Ranking:
        return a_ranker(exclude_had=False, **rules)

    assert "i6" in ids(listed(with_rules(exclude_recent=0), state))
    assert "i4" not in ids(listed(with_rules(exclude_recent=0), state))
    assert "i4" in ids(listed(with_rules(exclude_recent=0, exclude_bought=False), state))
    last_two = set(ids(listed(with_rules(exclude_recent=2, exclude_bought=False), state)))
    assert "i4" in last_two and not {"i5", "i6"} & last_two


def test_items_that_the_model_does_not_know_leave_no_gap() -> None:
    plain, with_strangers = who_met("i5", "i6"), who_met("i5", "i6")
    assert with_strangers.profile is not None
    with_strangers.profile.recents.insert(1, ("stranger", with_strangers.profile.recents[0][1], 2))
    assert listed(a_ranker(), plain) == listed(a_ranker(), with_strangers)


def test_user_with_unknown_items_only_gets_popular_items() -> None:
    found = listed(a_ranker(), who_met("stranger"))
    assert (found.reason, ids(found)) == ("popular", ["i3", "hit-1", "i30", "hit-2", "i0"])


def test_short_list_is_filled_with_popular_items_without_duplicates() -> None:
    found = listed(a_ranker(top_k=4, items=8), who_met("i1", "i3"))
    assert len(set(ids(found))) == len(found.items)
    assert [item for item in ids(found) if item in POPULAR.ids] == ["hit-1", "i30", "hit-2", "i0"]
    assert "i3" not in ids(found), "met"
    scores = [item.score for item in found.items]
    assert scores == sorted(scores, reverse=True)


def test_no_candidates_give_no_list() -> None:
    assert ranked(a_ranker(), PopularItems(), ada=who_met("stranger"), bob=a_user("none")) == {}
    assert ranked(a_ranker()) == {}


class Padded(FixedModel):
    """A model with fewer items than it must return: the rest is padding at -inf."""

    def score(self, items: Any, weights: Any, features: Any = None) -> tuple[Any, Any]:
        scores, rows = super().score(items, weights)
        scores[:, 5:], rows[:, 5:] = -np.inf, 0
        return scores, rows


def test_padding_in_model_output_is_not_listed() -> None:
    found = listed(
        ranking_with(Padded(ITEMS, 10), items=9, exclude_recent=0, exclude_had=False), who_met("i5"), PopularItems()
    )
    assert 0 < len(found.items) < 6
    assert "" not in ids(found)


def test_recent_item_weight_depends_on_kind_and_half_life() -> None:
    seen: list[Any] = []

    class Watched(FixedModel):
        def score(self, items: Any, weights: Any, features: Any = None) -> tuple[Any, Any]:
            seen.append((items.copy(), weights.copy()))
            return super().score(items, weights)

    state = who_met("i1", "i2", bought=("i1",))
    assert state.profile is not None
    state.profile.recents = [("i1", BEGINNING - HOUR, 7), ("i2", BEGINNING, 2)]
    state.profile.newest_ts = BEGINNING
    ranked(ranking_with(Watched(ITEMS)), ada=state)
    [(items, weights)] = seen
    assert (items.dtype, weights.dtype, items.shape) == (np.int32, np.float32, (1, RECENT_ITEMS_MAX))
    assert items[0].tolist() == [0] * 18 + [2, 3]
    assert weights[0].tolist() == [0.0] * 18 + [1.5, 1.0]


def test_popular_list_from_redis_is_decoded_for_filling() -> None:
    stored = RecommendationList(1, 1, "popularity", 1, "popular", (ListedItem("a", 2.0), ListedItem("b", 1.0)))
    opened = PopularItems.of(stored)
    assert (opened.ids, opened.scores) == (["a", "b"], [2.0, 1.0])
    assert ids(listed(a_ranker(items=2), who_met("stranger"), opened)) == ["a", "b"]
