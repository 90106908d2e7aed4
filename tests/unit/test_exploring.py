"""Which items an explored slot has, and with which probability."""

import math
from collections import Counter

import msgspec
import pytest

from schemas.catalogue import CatalogueItem
from schemas.exploration import ExploredList
from schemas.lists import RecommendationList, decode_list, id_of_fragment
from schemas.pseudonyms import recommendation_ids
from schemas.shop_rules import Exclusion, Pin, ShopRules
from schemas.store import ListWrite
from tests.support.fakes import FixedModel
from tests.support.vocabulary import BEGINNING, DAY, KEY_RING, SECOND, a_user, an_interaction
from udfs.arranging import Arranged
from udfs.assortment import Assortment
from udfs.elements import EventRecord
from udfs.exploring import EXPLORED_MAX, ExploreSettings, chances, draw, explore, remember, with_exploration
from udfs.feedback import MEASURE
from udfs.frozen_model import FrozenModel
from udfs.profile import ProfileBounds, take
from udfs.ranking import ListRules, PopularItems, Ranker
from udfs.state import UserState

ITEMS = [f"i{number}" for number in range(40)]
NOW = BEGINNING + DAY
LISTS = ListRules(items=6, exclude_had=False)


def a_shopper(version: int = 7, purposes: int = 0b111, level: str = "full") -> UserState:
    state = a_user(level, since=0, purposes=purposes)  # type: ignore[arg-type]
    take(state, an_interaction(at=BEGINNING, item="i0"), ProfileBounds())
    state.version = version
    return state


def write_of(state: UserState, settings: ExploreSettings, assortment: Assortment | None = None) -> ListWrite:
    ranker = Ranker(LISTS, ProfileBounds(), BEGINNING, recommendation_ids(KEY_RING), assortment, settings)
    [write] = ranker.rank({"ada": state}, PopularItems(), FrozenModel(FixedModel(ITEMS, 30), "fixed"), NOW, DAY)
    return write


def list_of(state: UserState, settings: ExploreSettings, assortment: Assortment | None = None) -> RecommendationList:
    return decode_list(write_of(state, settings, assortment).payload)


def ids(found: RecommendationList) -> list[str]:
    return [item.id for item in found.items]


@pytest.mark.parametrize("focus", [0.0, 1.0])
def test_propensities_are_the_frequencies_of_20_000_draws(focus: float) -> None:
    """The naive oracle: how often each pair of items is drawn, in this order, against the product of propensities."""
    settings, draws = ExploreSettings(slots=2, pool=3, focus=focus), 20_000
    one = Arranged([b"%d" % number for number in range(7)], [1.0] * 7)
    seen, told = Counter[tuple[int, ...]](), dict[tuple[int, ...], float]()
    for version in range(draws):
        found = explore(one, (), (), 4, settings, chances("ada", version, 4)[2:])
        assert found is not None and found.fragments[:2] == one.fragments[:2]
        places = tuple(place for _, place, _ in found.slots)
        seen[places] += 1
        told[places] = math.prod(propensity for _, _, propensity in found.slots)
    assert len(told) == 5 * 4 and sum(told.values()) == pytest.approx(1.0)
    for places, expected in told.items():
        error = math.sqrt(expected * (1 - expected) / draws)
        assert abs(seen[places] / draws - expected) < 4.5 * error


def test_chances_are_uniform_and_depend_on_user_and_version_alone() -> None:
    assert chances("ada", 1, 3) == chances("ada", 1, 3)
    assert len({chances(user, version, 1)[0] for user in ("ada", "bob") for version in (1, 2)}) == 4
    tenths = Counter(int(10 * chances("ada", version, 2)[1]) for version in range(10_000))
    assert sum((count - 1_000) ** 2 / 1_000 for count in tenths.values()) < 27.9, "chi-squared, p = 0.001"


def test_draws_stay_in_bounds_at_the_ends() -> None:
    assert draw([1.0, 1.0], [0.0, 0.999_999_999]) == [(0, 0.5), (1, 1.0)]
    assert [place for place, _ in draw([0.1] * 3, [1 - 2**-53])] == [2]


def test_without_exploration_lists_have_the_bytes_of_before() -> None:
    state = a_shopper()
    off = write_of(state, ExploreSettings()).payload
    ranker = Ranker(LISTS, ProfileBounds(), BEGINNING, recommendation_ids(KEY_RING))
    [before] = ranker.rank({"ada": state}, PopularItems(), FrozenModel(FixedModel(ITEMS, 30), "fixed"), NOW, DAY)
    assert off == before.payload and b"explored" not in off and before.explored is None


def test_only_the_last_slots_change_and_scores_never_increase() -> None:
    settings, plain = ExploreSettings(slots=2, pool=4), list_of(a_shopper(), ExploreSettings())
    tails = set()
    for version in range(60):
        found = list_of(a_shopper(version), settings)
        assert ids(found)[:4] == ids(plain)[:4] and len(set(ids(found))) == 6
        scores = [item.score for item in found.items]
        assert scores == sorted(scores, reverse=True)
        assert [slot.position for slot in found.explored] == [4, 5]
        assert [slot.propensity for slot in found.explored] == [pytest.approx(1 / 6), pytest.approx(1 / 5)]
        tails |= set(ids(found)[4:])
    every = list_of(a_shopper(), ExploreSettings()).items
    assert len(tails) == 6 and {item.id for item in every[4:]} < tails


def test_share_is_that_of_lists() -> None:
    settings = ExploreSettings(slots=1, share=0.3)
    explored = sum(bool(list_of(a_shopper(version), settings).explored) for version in range(600))
    assert 130 < explored < 230


@pytest.mark.parametrize(("level", "purposes"), [("full", 0b111 & ~MEASURE), ("session", 0b111)])
def test_list_is_not_explored_without_consent_to_measure(level: str, purposes: int) -> None:
    settings = ExploreSettings(slots=2)
    assert not list_of(a_shopper(purposes=purposes, level=level), settings).explored
    assert list_of(a_shopper(), settings).explored


def test_rules_of_the_shop_hold_in_explored_slots() -> None:
    assortment = Assortment(
        ShopRules(
            category_items_max=1,
            pins=(Pin(item="pinned", position=6), Pin(item="i2", position=10)),
            exclusions=(Exclusion(items=("i7",)),),
        )
    )
    for number in range(5, 12):
        assortment.note(f"i{number}", CatalogueItem(f"i{number}", "", "drinks"))
    assortment.note("i8", CatalogueItem("i8", "", available=False))
    drawn, head = set(), ids(list_of(a_shopper(), ExploreSettings(), assortment))[:3]
    assert "i2" in head
    for version in range(80):
        found = list_of(a_shopper(version), ExploreSettings(slots=3, pool=12), assortment)
        assert found.items[5].id == "pinned", "a pin stays where it is"
        assert len({*ids(found)} & {f"i{number}" for number in range(5, 12)}) <= 1
        assert not {*ids(found)} & {"i7", "i8"}
        assert ids(found)[:3] == head, "a pin behind the end of the list changes nothing"
        drawn |= set(ids(found)[3:5])
    assert len(drawn) > 10


def test_new_items_of_the_catalogue_are_drawn_unless_rules_leave_them_out() -> None:
    assortment = Assortment(ShopRules(exclusions=(Exclusion(categories=("adult",)),)))
    for item, category in (("new-1", "drinks"), ("new-2", "drinks"), ("gin", "adult"), ("i3", "drinks")):
        assortment.note(item, CatalogueItem(item, "", category))
    settings, drawn = ExploreSettings(slots=1, pool=1, new_items=1), Counter[str]()
    for version in range(300):
        drawn[ids(list_of(a_shopper(version), settings, assortment))[-1]] += 1
    assert {"new-1", "new-2"} < set(drawn) and "gin" not in drawn
    had = a_shopper()
    assert had.profile is not None
    had.profile.bought = ["new-1", "new-2"]
    for version in range(40):
        had.version = version
        assert ids(list_of(had, settings, assortment))[-1] not in ("new-1", "new-2")


def test_list_shorter_than_its_explored_part_is_left_alone() -> None:
    assert explore(Arranged([b"a", b"b"], [1.0, 0.5]), (), (), 6, ExploreSettings(slots=2), [0.1, 0.1]) is None
    assert explore(Arranged([b"a"], [1.0]), {b"a"}, (), 6, ExploreSettings(slots=2), [0.1, 0.1]) is None


def the_event(
    state: UserState, item: str, version: int = 7, kind: str = "impression", made: bytes = b""
) -> EventRecord:
    assert state.profile is not None
    name = made or state.profile.explored[-1].made
    event = an_interaction(at=NOW + SECOND, item=item, kind=kind)
    return msgspec.structs.replace(event, shown=("fixed", "", name, 4, "home"))


def remembered() -> tuple[UserState, RecommendationList]:
    state = a_shopper()
    write = write_of(state, ExploreSettings(slots=2, pool=4))
    remember(state, write.explored)
    return state, decode_list(write.payload)


def test_event_of_a_drawn_item_is_published_with_pool_and_propensity() -> None:
    state, found = remembered()
    first, second = found.items[4].id, found.items[5].id
    for item, slot, size in ((first, 0, 6), (second, 1, 5)):
        clean = msgspec.json.decode(with_exploration(the_event(state, item), state).clean)
        told = clean["exploration"]
        assert (told["slot"], told["propensity"]) == (4 + slot, found.explored[slot].propensity)
        assert item in told["pool"] and len(told["pool"]) == size and told["at"] == NOW
        assert clean["item_id"] == item, "what it had stays"
    assert first not in told["pool"], "what was drawn before could not be drawn again"


def test_events_of_other_items_lists_kinds_and_consents_are_published_as_they_are() -> None:
    state, found = remembered()
    drawn = found.items[4].id
    for event in (
        the_event(state, found.items[0].id),
        the_event(state, drawn, made=b"another "),
        the_event(state, drawn, kind="view"),
        an_interaction(item=drawn, kind="impression"),
    ):
        assert with_exploration(event, state) is event
    state.purposes &= ~MEASURE
    event = the_event(state, drawn)
    assert with_exploration(event, state) is event


def test_the_last_explored_lists_of_a_user_are_remembered_once_each() -> None:
    state = a_user()
    for number in (*range(EXPLORED_MAX + 3), EXPLORED_MAX + 2):
        remember(state, ExploredList(b"%d" % number, number, ("a", "b"), ((0, 1, 0.5),)))
    assert state.profile is not None
    assert [one.at for one in state.profile.explored] == list(range(3, EXPLORED_MAX + 3))
    without = UserState()
    remember(without, ExploredList(b"", 0, (), ()))
    assert without.profile is None


def test_ids_survive_their_fragments() -> None:
    state, found = remembered()
    assert state.profile is not None
    [listed] = state.profile.explored
    drawn = [listed.pool[place] for _, place, _ in listed.slots]
    assert drawn == [item.id for item in found.items[4:]]
    assert id_of_fragment(b'},{"id":"a\\"b","score":') == 'a"b'
