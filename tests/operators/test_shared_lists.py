"""Lists that are nobody's own, as the learner publishes them: items similar to an item, and what is trending."""

import pytest

from schemas.catalogue import CatalogueItem
from schemas.lists import RecommendationList
from schemas.store import TRENDING
from tests.support.shop import Shop
from tests.support.vocabulary import BEGINNING, DAY, MINUTE, SECOND
from udfs.assortment import Assortment
from udfs.learning import TRAIN, LearnSettings


def ids(found: RecommendationList | None) -> list[str]:
    return [] if found is None else [item.id for item in found.items]


def a_shop(*users: str, users_min: int = 2, assortment: Assortment | None = None, **learn: int) -> Shop:
    shop = Shop(LearnSettings(**learn), users_min, assortment)
    shop.consents(*users)
    return shop


def trend(shop: Shop) -> RecommendationList | None:
    return shop.bucket.store.popular(TRENDING)


@pytest.mark.promise("similar-hides")
def test_similar_items_are_published_from_the_second_user_on() -> None:
    shop = a_shop("ada", "bob")
    shop.clicks("ada", "tea", "cup")
    shop.pass_time(2 * SECOND)
    assert shop.bucket.store.similar("tea") is None, "one user has met the pair"
    shop.clicks("bob", "tea", "cup")
    shop.pass_time(2 * SECOND)
    found = shop.bucket.store.similar("tea")
    assert found is not None
    assert (found.reason, found.epoch, ids(found)) == ("similar", BEGINNING, ["cup"])
    assert ids(shop.bucket.store.similar("cup")) == ["tea"]


def test_pair_of_one_user_is_not_among_similar_items_of_popular_ones() -> None:
    shop = a_shop("ada", "bob", "cyd")
    for user in ("ada", "bob"):
        shop.clicks(user, "tea", "cup")
    shop.clicks("ada", *["jam", "tea"] * 5)
    shop.clicks("cyd", "jam")  # the item has two users, its pair with tea has one
    shop.pass_time(2 * SECOND)
    assert ids(shop.bucket.store.similar("tea")) == ["cup"]
    assert shop.bucket.store.similar("jam") is None


def test_list_of_similar_items_has_no_user_no_other_item_twice_and_not_the_item_itself() -> None:
    users = [f"user-{n}-name" for n in range(4)]
    shop = a_shop(*users, similar_items=3)
    for user in users:
        shop.clicks(user, *(f"item-{n}" for n in range(6)), "item-0")
    shop.pass_time(2 * SECOND)
    found = shop.bucket.store.similar("item-0")
    assert found is not None
    assert len(found.items) == 3 == len(set(ids(found)) - {"item-0"})
    scores = [item.score for item in found.items]
    assert scores == sorted(scores, reverse=True) and scores[-1] > 0
    assert "-name" not in str(found)


def test_items_met_by_many_are_not_similar_to_everything() -> None:
    """Each tea drinker meets the bag first, and the cup after it; but everybody else meets the bag, too."""
    drinkers, others = [f"drinker-{n}" for n in range(6)], [f"other-{n}" for n in range(24)]
    shop = a_shop(*drinkers, *others)
    for n, other in enumerate(others):
        shop.clicks(other, f"thing-{n % 3}", "bag")
    for drinker in drinkers:
        shop.clicks(drinker, "tea", "bag", "cup")
    shop.pass_time(2 * SECOND)
    assert ids(shop.bucket.store.similar("tea"))[:2] == ["cup", "bag"]


def test_lists_of_one_second_are_bounded_and_the_others_follow() -> None:
    shop = a_shop("ada", "bob", similar_lists_max=1)
    items = [f"item-{n}" for n in range(8)]
    shop.clicks("ada", *items)
    for item in items:
        published = shop.learner_keyed.counts["similar_lists_total"]
        shop.clicks("bob", item)
        assert shop.learner_keyed.counts["similar_lists_total"] <= published + 2  # two seconds end
    shop.pass_time(9 * SECOND)  # less than until the next storing
    versions = [found.v for item in items if (found := shop.bucket.store.similar(item)) is not None]
    assert len(versions) == 8 and len(set(versions)) == 1, "the last click changed all lists"


def test_lists_of_similar_items_expire() -> None:
    shop = a_shop("ada", "bob", similar_ttl_ms=MINUTE)
    for user in ("ada", "bob"):
        shop.clicks(user, "tea", "cup")
    shop.pass_time(2 * SECOND)
    assert ids(shop.bucket.store.similar("tea")) == ["cup"]
    shop.pass_time(2 * MINUTE)
    assert shop.bucket.store.similar("tea") is None


def test_similar_items_come_back_after_redis_has_lost_them() -> None:
    shop = a_shop("ada", "bob", "cyd")
    for user in ("ada", "bob"):
        shop.clicks(user, "tea", "cup", "pot")
    shop.pass_time(2 * SECOND)
    shop.bucket.store.lose_model()
    shop.bucket.store.lose_shared_lists()
    shop.clicks("cyd", "kettle")
    shop.pass_time(2 * SECOND)
    assert ids(shop.bucket.store.similar("tea")), "no event has met it since"


def test_user_who_denies_training_is_in_no_shared_list() -> None:
    shop = Shop()
    shop.consents("ada", "bob", purposes=7 - TRAIN)
    for user in ("ada", "bob"):
        shop.clicks(user, "tea", "cup")
    shop.pass_time(2 * SECOND)
    assert (shop.bucket.store.similar("tea"), trend(shop)) == (None, None)


def test_older_deployment_overwrites_no_shared_list() -> None:
    shop = a_shop("ada", "bob")
    shop.bucket.store.write_popular(
        TRENDING,
        BEGINNING + 1,
        1,
        30 * DAY,
        b'{"v":1,"epoch":%d,"model":"m","at":1,"reason":"trending","items":[]}' % (BEGINNING + 1),
    )
    rise(shop, ("ada", "bob"))
    assert ids(trend(shop)) == []


def rise(shop: Shop, users: tuple[str, ...]) -> None:
    """Old items for a while, a week of nothing, then the old ones again and a new one that rises."""
    regulars = [f"regular-{n}" for n in range(10)]
    shop.consents(*regulars)
    for user in regulars * 2:
        shop.clicks(user, "tea")
    shop.pass_time(7 * DAY)
    for n in range(12):
        shop.clicks(users[n % len(users)], "tea" if n % 4 == 0 else "lamp")
    shop.pass_time(2 * SECOND)


def test_what_rises_is_trending() -> None:
    shop = a_shop("ada", "bob")
    rise(shop, ("ada", "bob"))
    found = trend(shop)
    assert found is not None
    assert (found.reason, ids(found)) == ("trending", ["lamp"])


@pytest.mark.promise("similar-hides")
def test_item_of_fewer_users_than_popular_lists_want_is_not_trending() -> None:
    shop = a_shop("ada", "bob", users_min=3)
    rise(shop, ("ada", "bob"))
    assert trend(shop) is None
    shop = a_shop("ada", "bob", "cyd", users_min=3)
    rise(shop, ("ada", "bob", "cyd"))
    assert ids(trend(shop)) == ["lamp"]


def test_withdrawn_item_is_not_trending() -> None:
    assortment = Assortment()
    assortment.note("lamp", CatalogueItem("lamp", "Lamp", available=False))
    shop = a_shop("ada", "bob", assortment=assortment)
    rise(shop, ("ada", "bob"))
    assert trend(shop) is None
    assortment.note("lamp", CatalogueItem("lamp", "Lamp"))
    shop.clicks("ada", "lamp")
    shop.pass_time(2 * SECOND)
    assert ids(trend(shop)) == ["lamp"]


def test_unchanged_trend_is_published_again_once_a_minute() -> None:
    shop = a_shop("ada", "bob")
    rise(shop, ("ada", "bob"))
    first = trend(shop)
    shop.clicks("ada", "lamp")
    shop.pass_time(2 * SECOND)
    assert trend(shop) == first
    shop.pass_time(MINUTE)
    shop.clicks("ada", "lamp")
    shop.pass_time(2 * SECOND)
    again = trend(shop)
    assert first is not None and again is not None and again.v > first.v and ids(again) == ids(first)
