"""Explanations of lists, against what ranking without each recent item gives."""

import msgspec
import pytest

from tests.support.fakes import FixedModel
from tests.support.shop import Shop
from tests.support.vocabulary import BEGINNING
from udfs.explaining import EXPERTS, ItemReason, explain
from udfs.frozen_model import FrozenModel
from udfs.online_model import OnlineModel
from udfs.ranking import CANDIDATES_MAX, ListModel, ListRules
from udfs.state import Profile

RULES = ListRules(items=6)
PAIRS = (("tea", "cup"), ("bread", "butter"), ("pen", "paper"), ("lamp", "bulb"))


@pytest.fixture(scope="module")
def learned() -> OnlineModel:
    """Shoppers met each second item of a pair right after the first."""
    users = [f"user-{n}" for n in range(6)]
    shop = Shop()
    shop.consents(*users)
    for n, user in enumerate(users):
        for first, second in PAIRS[n % 4 :] + PAIRS[: n % 4]:
            shop.clicks(user, first, second)
    shop.pass_time(3_000)
    model = OnlineModel()
    model.follow(shop.bucket.store)
    assert not model.tables.is_empty
    return model


def a_profile(*items: str) -> Profile:
    recents = [(item, BEGINNING + place, 1) for place, item in enumerate(items)]
    return Profile(recents, newest_ts=BEGINNING + len(items))


def scores_of(model: ListModel, profile: Profile) -> dict[bytes, float]:
    ranked = model.ranked([profile], msgspec.structs.replace(RULES, items=CANDIDATES_MAX), BEGINNING)
    kept = ranked.kept[0]
    return dict(zip(model.fragments[ranked.rows[0, kept]].tolist(), ranked.scores[0, kept].tolist(), strict=True))


def listed(model: ListModel, profile: Profile) -> list[str]:
    return [msgspec.json.decode(fragment[8:-9]) for fragment in scores_of(model, profile)]


def without(profile: Profile, item: str) -> Profile:
    return msgspec.structs.replace(profile, recents=[one for one in profile.recents if one[0] != item])


def fragment_of(item: str) -> bytes:
    return b'},{"id":"%b","score":' % item.encode()


@pytest.mark.parametrize("recents", [("tea", "bread"), ("tea", "bread", "pen"), ("lamp", "pen", "bread", "tea")])
def test_without_the_named_item_the_score_is_lower_than_without_any_other(
    learned: OnlineModel, recents: tuple[str, ...]
) -> None:
    profile = a_profile(*recents)
    reasons = explain(listed(learned, profile), profile, learned, RULES, BEGINNING)
    assert [reason.because for reason in reasons if reason.because], "some depend on one of them"
    for reason in reasons:
        alone = {one: scores_of(learned, without(profile, one)).get(fragment_of(reason.item)) for one in recents}
        assert reason.score == pytest.approx(scores_of(learned, profile)[fragment_of(reason.item)], abs=1e-4)
        assert reason.expert in EXPERTS
        if reason.because is not None:
            named = alone.pop(reason.because)
            assert all(named is None or (other is not None and named <= other + 1e-6) for other in alone.values())
            assert reason.without == (None if named is None else pytest.approx(named, abs=1e-4))


def test_item_is_there_because_of_its_pair(learned: OnlineModel) -> None:
    profile = a_profile("tea", "bread", "pen")
    reasons = {one.item: one for one in explain(["cup", "butter", "paper"], profile, learned, RULES, BEGINNING)}
    assert {item: one.because for item, one in reasons.items()} == {"cup": "tea", "butter": "bread", "paper": "pen"}


def test_item_that_the_model_did_not_propose_has_no_reason(learned: OnlineModel) -> None:
    assert explain(["pinned"], a_profile("tea"), learned, RULES, BEGINNING) == [ItemReason("pinned")]


def test_frozen_model_names_the_item_without_naming_an_expert() -> None:
    model = FrozenModel(FixedModel([f"i{n}" for n in range(20)], 20), "fixed")
    profile = a_profile("i1", "i2", "i3")
    reasons = explain(listed(model, profile), profile, model, RULES, BEGINNING)
    assert reasons and all(reason.expert is None and reason.score is not None for reason in reasons)
    for reason in reasons:
        alone = {
            one: scores_of(model, without(profile, one)).get(fragment_of(reason.item)) for one in ("i1", "i2", "i3")
        }
        if reason.because is not None and reason.without is not None:
            assert reason.without == pytest.approx(
                min(score for score in alone.values() if score is not None), abs=1e-4
            )
