"""Exploration in the operators: from a list with propensities to clean events from which models are estimated."""

from typing import Any

import msgspec
import pytest

from schemas.catalogue import CatalogueItem
from schemas.lists import RecommendationList
from schemas.pseudonyms import recommendation_ids
from schemas.recommendation_ids import RecommendationIds
from schemas.shop_rules import Pin, ShopRules
from tests.support.bucket import Bucket
from tests.support.vocabulary import (
    BEGINNING,
    DAY,
    HOUR,
    KEY_RING,
    MINUTE,
    SECOND,
    a_consent,
    an_erasure,
    an_interaction,
)
from udfs.assortment import Assortment
from udfs.elements import EventRecord
from udfs.exploring import ExploreSettings
from udfs.feedback import MEASURE
from udfs.operators.outputs import CLEAN_EVENTS

IDS: RecommendationIds = recommendation_ids(KEY_RING)
EXPLORE = ExploreSettings(slots=2, pool=3)


def a_bucket(assortment: Assortment | None = None, explore: ExploreSettings = EXPLORE) -> Bucket:
    bucket = Bucket(assortment=assortment, explore=explore, ids=IDS)
    bucket.take(a_consent("ada"))
    return bucket


def list_after_click(bucket: Bucket, at: int = BEGINNING + MINUTE) -> RecommendationList:
    bucket.take(an_interaction("ada", at, "tea"))
    found = bucket.store.list_of("ada")
    assert found is not None
    return found


def in_list(found: RecommendationList, place: int, kind: str, at: int) -> EventRecord:
    """An event of the user with the id of their list, as ingest passes it on."""
    served = IDS.read(found.recommendation_id, ["ada"])
    assert served is not None
    event = an_interaction("ada", at, found.items[place].id, kind)
    return msgspec.structs.replace(event, shown=(*served, place, "home"))


def clean(outputs: list[Any]) -> list[dict[str, Any]]:
    raws = [output[1] for output in outputs if isinstance(output, tuple) and output[0] is CLEAN_EVENTS]
    return [msgspec.json.decode(line) for raw in raws for line in raw.split(b"\n")]


def test_impression_and_click_of_a_drawn_item_carry_its_propensity() -> None:
    bucket = a_bucket()
    found = list_after_click(bucket)
    assert [slot.position for slot in found.explored] == [2, 3]
    at = BEGINNING + 2 * MINUTE
    events = clean(
        bucket.take(
            *(in_list(found, place, "impression", at) for place in range(4)),
            in_list(found, 2, "click", at + SECOND),
            in_list(found, 3, "purchase", at + 2 * SECOND),
        )
    )
    told = [(event["item_id"], event.get("exploration", {}).get("propensity")) for event in events]
    items, (first, second) = [item.id for item in found.items], (slot.propensity for slot in found.explored)
    expected = [(items[0], None), (items[1], None), (items[2], first), (items[3], second)]
    assert told == [*expected, (items[2], first), (items[3], second)]
    assert (first, second) == (1 / 5, 1 / 4)
    assert {"purposes", "pseudonym"} < set(events[2]) and events[2]["exploration"]["at"] == found.at


def test_events_find_their_list_after_newer_lists_a_restart_and_a_refresh() -> None:
    bucket = a_bucket()
    first = list_after_click(bucket)
    for minute in range(2, 6):
        list_after_click(bucket, BEGINNING + minute * MINUTE)
    bucket.restart(bucket.keyed.snapshot())
    [event] = clean(bucket.take(in_list(first, 2, "impression", BEGINNING + 10 * MINUTE)))
    assert event["exploration"]["slot"] == 2
    bucket.pass_time(20 * HOUR)
    refreshed = bucket.store.list_of("ada")
    assert refreshed is not None and refreshed.at > first.at
    [event] = clean(bucket.take(in_list(refreshed, 3, "impression", refreshed.at + MINUTE)))
    assert event["exploration"]["at"] == refreshed.at


def test_click_that_makes_a_new_list_still_finds_the_old_one_in_the_same_element() -> None:
    bucket = a_bucket()
    lists = [list_after_click(bucket, BEGINNING + minute * MINUTE) for minute in range(1, 9)]
    at = BEGINNING + 20 * MINUTE
    events = clean(bucket.take(in_list(lists[0], 2, "click", at), in_list(lists[0], 3, "impression", at + SECOND)))
    assert ["exploration" in event for event in events] == [True, True]


@pytest.mark.promise("exploration-needs-consent")
def test_without_consent_to_measure_nothing_is_explored_or_told() -> None:
    bucket = Bucket(explore=EXPLORE, ids=IDS)
    bucket.take(a_consent("ada", purposes=0b111 & ~MEASURE))
    assert not list_after_click(bucket).explored
    bucket.take(a_consent("ada", at=BEGINNING + 2 * MINUTE))
    found = list_after_click(bucket, BEGINNING + 3 * MINUTE)
    assert found.explored
    bucket.take(a_consent("ada", at=BEGINNING + 4 * MINUTE, purposes=0b111 & ~MEASURE))
    [event] = clean(bucket.take(in_list(found, 2, "impression", BEGINNING + 5 * MINUTE)))
    assert "exploration" not in event
    user = bucket.user("ada")
    assert user is not None and user.profile is not None and not user.profile.explored


def test_explored_lists_go_with_the_profile_and_after_a_day() -> None:
    bucket = a_bucket()
    list_after_click(bucket)
    user = bucket.user("ada")
    assert user is not None and user.profile is not None and len(user.profile.explored) == 1
    bucket.pass_time(3 * DAY)
    user = bucket.user("ada")
    assert user is not None and user.profile is not None
    assert all(one.at > bucket.keyed.now_ms - 2 * DAY for one in user.profile.explored)
    bucket.take(an_erasure("ada", bucket.keyed.now_ms + SECOND))
    assert bucket.user("ada") is None


def test_rules_withdrawals_and_pins_hold_in_explored_slots() -> None:
    assortment = Assortment(ShopRules(category_items_max=1, pins=(Pin(item="new", position=4),)))
    for item in ("jam", "rye"):
        assortment.note(item, CatalogueItem(item, "", "food"))
    assortment.note("figs", CatalogueItem("figs", "", available=False))
    bucket = a_bucket(assortment, ExploreSettings(slots=3, pool=8))
    tails = set()
    for minute in range(1, 40):
        found = list_after_click(bucket, BEGINNING + minute * MINUTE)
        items = [item.id for item in found.items]
        assert items[3] == "new" and "figs" not in items and "tea" not in items
        assert len({"jam", "rye"} & set(items)) <= 1
        assert [slot.position for slot in found.explored] == [1, 2]
        tails |= set(items[1:3])
    assert len(tails) > 2


def test_switched_off_exploration_leaves_no_trace() -> None:
    bucket = a_bucket(explore=ExploreSettings())
    found = list_after_click(bucket)
    user = bucket.user("ada")
    assert not found.explored and user is not None and user.profile is not None and not user.profile.explored
    [event] = clean(bucket.take(in_list(found, 3, "impression", BEGINNING + 2 * MINUTE)))
    assert "exploration" not in event
