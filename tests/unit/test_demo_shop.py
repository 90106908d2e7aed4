"""The simulated shop makes valid records, the same for the same seed, and follows tastes."""

from collections import Counter
from itertools import islice

import pytest

from deploy.demo import shop
from deploy.demo.dirt import dirty
from deploy.demo.names import CATEGORIES, catalogue
from schemas.consents import ConsentChange
from schemas.events import Interaction
from schemas.topics import MINUTE_MS
from schemas.wire.codecs import BadRecord, json_codec

NOW = 1_750_000_000_000
CODEC = json_codec()


def some_events(count: int = 5_000, shoppers: int = 50, rate: float = 200, seed: int = 1) -> list[Interaction]:
    everybody = shop.shoppers(seed, shoppers)
    return list(islice(shop.events(everybody, NOW, seed, shop.pace_for(rate, shoppers)), count))


def test_the_catalogue_has_about_400_items_with_names_and_ids_of_their_own() -> None:
    items = catalogue()
    assert 350 <= len(items) <= 450
    assert len({item.item_id for item in items}) == len({item.name for item in items}) == len(items)
    assert {item.category for item in items} == set(CATEGORIES)


def test_every_interaction_passes_the_codec_and_takes_place_in_order() -> None:
    last = NOW
    for record in dirty(iter(some_events()), 1, rubbish_share=0, duplicate_share=0):
        event, unknown = CODEC.interaction(record.payload)
        assert not unknown
        assert event.ts >= last
        last = event.ts


def test_every_kind_of_interaction_occurs() -> None:
    events = some_events(20_000)
    kinds = {"impression", "view", "click", "dwell", "search", "add_to_cart", "purchase"}
    assert {event.type for event in events} == kinds
    assert {event.surface for event in events} == {"home", "search", "item"}
    assert {(event.context or {})["country"] for event in events} == set(shop.COUNTRIES)
    assert len({event.event_id for event in events}) == len(events)


def test_seed_determines_the_events() -> None:
    assert some_events(500) == some_events(500)
    assert some_events(500) != some_events(500, seed=2)


@pytest.mark.parametrize(("rate", "shoppers"), [(200, 300), (50, 20)])
def test_shoppers_together_produce_about_the_requested_event_rate(rate: float, shoppers: int) -> None:
    events = some_events(20_000, shoppers, rate)
    assert 20_000 / ((events[-1].ts - NOW) / 1000) == pytest.approx(rate, rel=0.25)


def test_shoppers_look_at_what_they_like() -> None:
    events = [event for event in some_events(20_000, 60) if event.item_id and event.user_id != "ada"]
    shares = []
    for user in {event.user_id for event in events}:
        seen = Counter(str(event.item_id).split("-")[0] for event in events if event.user_id == user)
        shares.append(sum(count for _, count in seen.most_common(3)) / seen.total())
    assert sum(shares) / len(shares) > 0.85


def test_the_followed_shopper_changes_taste() -> None:
    def favourite(turn: int) -> str:
        begin = NOW + turn * shop.FOLLOWED_TASTE_LASTS_MS
        own = (e for e in events if begin <= e.ts < begin + shop.FOLLOWED_TASTE_LASTS_MS)
        return Counter(str(e.item_id).split("-")[0] for e in own if e.item_id).most_common(1)[0][0]

    events = list(islice(shop.events([shop.followed_shopper(1)], NOW, 1, shop.EVERYDAY_PACE), 300))
    assert [favourite(turn) for turn in range(3)] == list(CATEGORIES[:3])


def test_consents_pass_the_codec_and_most_are_full() -> None:
    everybody = shop.shoppers(1, 300)
    levels = Counter(change.level for change in shop.consents(everybody, NOW))
    assert set(levels) == {"full", "session", "none"}
    assert levels["full"] > 200
    assert everybody[0].level == "full"


def test_consent_changes_spare_the_followed_shopper_and_are_reverted() -> None:
    everybody = shop.shoppers(1, 40)
    changes: list[ConsentChange] = list(islice(shop.consent_changes(everybody, NOW, 1), 200))
    assert "ada" not in {change.user_id for change in changes}
    assert [change.ts for change in changes] == sorted(change.ts for change in changes)
    assert {change.level for change in changes} == {"none", "session", "full"}


def test_single_shopper_keeps_consent() -> None:
    assert list(shop.consent_changes(shop.shoppers(1, 1), NOW, 1)) == []


def test_garbage_is_rejected_and_duplicates_are_identical() -> None:
    records = list(dirty(iter(some_events(3_000)), 1, rubbish_share=0.05, duplicate_share=0.05))
    reasons: Counter[str] = Counter()
    good: list[bytes] = []
    for record in records:
        try:
            event, _ = CODEC.interaction(record.payload)
        except BadRecord as bad:
            reasons[bad.reason] += 1
            assert record.event is None
        else:
            if event.ts <= record.ts + 5 * MINUTE_MS:
                good.append(record.payload)
    assert len(reasons) >= 5
    assert len(set(good)) == 3_000
    assert 100 < len(good) - 3_000 < 250
