"""Simulated shoppers click in their lists what they came for, and what they report can be counted for the list."""

from collections import Counter
from itertools import islice

import pytest

from deploy.demo import shop
from deploy.demo.names import things
from deploy.demo.storefront import SEEN_ITEMS, Storefront, pace_for
from schemas.events import Interaction
from schemas.lists import ListedItem
from serving.answers import Recommendation
from serving.events import checked_event

NOW = 1_750_000_000_000
LISTED = ("books-01", "tea-02", "pets-01", "music-01")


def a_list(*items: str) -> Recommendation:
    return Recommendation(tuple(ListedItem(item, 1.0) for item in items), "personalised", 3, 10, "r1.online..x")


def a_visit(item: str, *kinds: str) -> list[Interaction]:
    """Of a shopper who begins on the home page, and wants `item`."""
    surfaces = {"impression": "home", "click": "home"}
    return [
        Interaction(f"e{n}", kind, NOW + n, "ada", "s1", item, surface=surfaces.get(kind, "item"))  # type: ignore[arg-type]
        for n, kind in enumerate(kinds)
    ]


def seen_by(visit: list[Interaction], shown: Recommendation) -> list[Interaction]:
    return list(Storefront(lambda user: shown).events(iter(visit)))


def test_shopper_takes_what_they_came_for_from_the_list_and_goes_on_with_it() -> None:
    visit = a_visit("tea-01", "impression", "click", "dwell", "purchase")
    *seen, click, dwell, purchase = seen_by(visit, a_list(*LISTED))
    assert [(one.type, one.item_id, one.position) for one in seen] == [
        ("impression", item, place) for place, item in enumerate(LISTED)
    ]
    assert (click.item_id, click.position, click.request_id) == ("tea-02", 1, "r1.online..x")
    assert (dwell.item_id, dwell.position, dwell.request_id) == ("tea-02", None, None)
    assert (purchase.item_id, purchase.position, purchase.request_id) == ("tea-02", 1, "r1.online..x")
    assert len({event.event_id for event in (*seen, click, dwell, purchase)}) == SEEN_ITEMS + 3


def test_shopper_whose_list_has_nothing_for_them_finds_it_elsewhere() -> None:
    visit = a_visit("tea-07", "impression", "click", "purchase")
    *seen, click, purchase = seen_by(visit, a_list(*LISTED))
    assert len(seen) == SEEN_ITEMS
    assert [click, purchase] == visit[1:], "the first teas of the catalogue are another kind of thing"


def test_next_visit_does_not_click_in_the_list_of_the_last_one() -> None:
    visit = [*a_visit("tea-01", "impression", "click"), *a_visit("books-02", "click"), *a_visit("tea-01", "click")]
    *_, other, again = seen_by(visit, a_list(*LISTED))
    assert (other.item_id, other.request_id) == ("books-02", None)
    assert (again.item_id, again.request_id) == ("tea-01", None)


def test_shopper_without_a_list_sees_nothing() -> None:
    assert [event.type for event in seen_by(a_visit("tea-01", "impression", "click"), a_list())] == ["click"]


@pytest.mark.parametrize("hits", [True, False])
def test_events_are_valid_and_come_at_the_requested_rate(hits: bool) -> None:
    everybody = shop.shoppers(1, 50)
    of_thing = {thing: item for item, thing in things().items()}
    shown = a_list(*list(of_thing.values())[:SEEN_ITEMS]) if hits else a_list(*LISTED)
    wanted = shop.events(everybody, NOW, 1, pace_for(200, 50))
    events = list(islice(Storefront(lambda user: shown).events(wanted), 10_000))
    assert all(checked_event(event) == event for event in events[:500])
    assert [event.ts for event in events] == sorted(event.ts for event in events)
    assert 10_000 / ((events[-1].ts - NOW) / 1000) == pytest.approx(200, rel=0.25)
    kinds = Counter(event.type for event in events if event.request_id is not None)
    assert 0 < kinds["click"] < kinds["impression"]


def test_earlier_visits_are_over_and_not_those_of_the_new_shopper() -> None:
    everybody = shop.shoppers(1, 300)
    events = list(shop.earlier_events(everybody, NOW, seed=1))
    assert len(events) == pytest.approx(shop.EARLIER_EVENTS, rel=0.25)
    assert all(NOW - shop.EARLIER_MS <= event.ts < NOW for event in events)
    assert everybody[0].user_id not in {event.user_id for event in events}
    live = islice(shop.events(everybody, NOW, 1, pace_for(200, 300)), 2_000)
    assert not {event.event_id for event in events} & {event.event_id for event in live}
    assert list(shop.earlier_events(everybody[:1], NOW, seed=1)) == []
