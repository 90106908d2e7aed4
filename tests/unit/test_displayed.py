"""What users do with a list names the list and the item's place in it."""

import pytest

from schemas.lists import ListedItem
from schemas.recommendation_ids import RecommendationIds
from serving.answers import Recommendation
from serving.displayed import DisplayedList
from serving.events import checked_event

IDS = RecommendationIds(b"k" * 32)
MADE = IDS.of("p1.ada", "online@7", "", 3, 1_764_489_600_000).decode()
ANSWER = Recommendation(tuple(ListedItem(item, 1.0) for item in ("tea", "cup", "pot")), "personalised", 3, 10, MADE)
SHOWN = DisplayedList(ANSWER, "ada", surface="home", session_id="s1")


def test_interactions_name_the_list_and_the_place_of_their_item() -> None:
    for event, kind, item, position in (
        *zip(SHOWN.impressions(), ["impression"] * 3, ["tea", "cup", "pot"], range(3), strict=True),
        (SHOWN.clicked("cup"), "click", "cup", 1),
        (SHOWN.bought("pot", quantity=2, value=4.5, currency="GBP"), "purchase", "pot", 2),
    ):
        assert checked_event(event) == event, "the job would reject it"
        assert (event.type, event.item_id, event.position) == (kind, item, position)
        assert (event.user_id, event.surface, event.session_id) == ("ada", "home", "s1")
        assert IDS.read(event.request_id or "", ["p1.ada"]) is not None
    assert len({event.event_id for event in SHOWN.impressions() + SHOWN.impressions()}) == 6


def test_further_items_keep_their_places() -> None:
    assert [(one.item_id, one.position) for one in SHOWN.impressions(first=1, count=1)] == [("cup", 1)]
    assert SHOWN.impressions(first=3) == []


def test_item_that_was_not_shown_is_an_error() -> None:
    with pytest.raises(ValueError, match="'hat'"):
        SHOWN.clicked("hat")


def test_list_without_an_id_is_reported_without_one() -> None:
    [event] = DisplayedList(Recommendation(ANSWER.items[:1], "similar", 1, 0), "ada").impressions()
    assert (event.request_id, event.position) == (None, 0)


def test_list_is_seen_at_most_as_far_as_positions_count() -> None:
    long = Recommendation(tuple(ListedItem(f"item-{n}", 1.0) for n in range(100)), "popular", 1, 0, MADE)
    assert len(DisplayedList(long, "ada").impressions()) == 64
