"""The catalogue and the rules of the shop in the operators, while both change."""

from typing import Any

from schemas.catalogue import CatalogueItem
from schemas.shop_rules import Boost, Exclusion, Pin, ShopRules
from tests.support.bucket import Bucket
from tests.support.shop import Shop
from tests.support.vocabulary import BEGINNING, MINUTE, SECOND, a_consent, an_interaction
from udfs.assortment import Assortment
from udfs.learning import LearnSettings


def withdraw(assortment: Assortment, item: str) -> None:
    assortment.note(item, CatalogueItem(item, item, available=False))


def a_bucket(**rules: Any) -> Bucket:
    bucket = Bucket(assortment=Assortment(ShopRules(**rules)))
    bucket.take(a_consent("ada"))
    return bucket


def ids_after_click(bucket: Bucket, number: int, item: str = "tea") -> list[str]:
    bucket.take(an_interaction("ada", BEGINNING + number * MINUTE, item))
    found = bucket.store.list_of("ada")
    assert found is not None
    return [one.id for one in found.items]


def test_withdrawn_item_leaves_the_next_list_and_returns() -> None:
    bucket = a_bucket()
    before = ids_after_click(bucket, 1)
    withdraw(bucket.assortment, before[0])
    without = ids_after_click(bucket, 2)
    assert before[0] not in without and len(without) == len(before), "others move up"
    assert without[:-1] == before[1:]
    bucket.assortment.note(before[0], CatalogueItem(before[0], "back"))
    assert ids_after_click(bucket, 3) == before


def test_withdrawn_item_does_not_fill_up_a_list() -> None:
    bucket = a_bucket()
    popular = set(bucket.fallback.ids)
    assert popular & set(ids_after_click(bucket, 1, "unknown item")) == popular
    withdraw(bucket.assortment, "figs")
    assert "figs" not in ids_after_click(bucket, 2, "unknown item")


def test_rules_apply_to_own_lists() -> None:
    plain = ids_after_click(a_bucket(), 1)
    pinned = ids_after_click(a_bucket(pins=(Pin(item="new", position=2),)), 1)
    assert pinned == [plain[0], "new", *plain[1:-1]]
    assert plain[0] not in ids_after_click(a_bucket(exclusions=(Exclusion(items=(plain[0],)),)), 1)
    boosted = ids_after_click(a_bucket(boosts=(Boost(items=(plain[-1],), factor=10.0),)), 1)
    assert boosted == [plain[-1], *plain[:-1]]


def test_pin_of_a_withdrawn_item_is_left_out() -> None:
    bucket = a_bucket(pins=(Pin(item="new", position=1),))
    assert ids_after_click(bucket, 1)[0] == "new"
    withdraw(bucket.assortment, "new")
    assert "new" not in ids_after_click(bucket, 2)


def test_category_of_an_item_is_a_segment_of_popularity() -> None:
    bucket = a_bucket()
    bucket.assortment.note("tea", CatalogueItem("tea", "Tea", "drinks"))
    bucket.take(
        an_interaction("ada", BEGINNING + MINUTE, "tea"),
        an_interaction("ada", BEGINNING + MINUTE, "cup"),
    )
    segments = [row[0] for row in bucket.pass_time(2 * SECOND) if not isinstance(row, tuple)]
    assert "category:drinks" in segments and not [
        one for one in segments if one.startswith("category:") and one != "category:drinks"
    ]


def test_withdrawn_item_leaves_lists_of_similar_items() -> None:
    assortment = Assortment()
    shop = Shop(LearnSettings(similar_items=2), assortment=assortment)
    shop.consents("ada", "bob", "cyd")
    for user in ("ada", "bob", "cyd"):
        shop.clicks(user, "tea", "cup", "pot", "jam")

    def similar() -> set[str]:
        found = shop.bucket.store.similar("tea")
        assert found is not None
        return {one.id for one in found.items}

    shop.pass_time(2 * SECOND)
    assert "cup" in similar() and len(similar()) == 2
    withdraw(assortment, "cup")
    for user in ("ada", "bob"):
        shop.clicks(user, "tea", "jam")
    shop.pass_time(2 * SECOND)
    assert similar() == {"pot", "jam"}, "another item takes the place"
