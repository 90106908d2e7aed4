"""The operators and the evaluator on the same events: the same lists, byte for byte.

Lists differ in nothing, because the evaluator is told the two moments that a list names: `epoch` and `at`.
"""

from typing import Any

import numpy as np
import pytest

from evaluation.job_twin import JobRules, LearnerTwin, ListsTwin, UsersTwin
from evaluation.model_archive import ModelArchive
from schemas.lists import decode_list
from tests.support.bucket import BOUNDS, REFRESH, Bucket
from tests.support.fakes import FixedModel
from tests.support.shop import OnlineBucket, Shop, hash_bit
from tests.support.vocabulary import BEGINNING, HOUR, SECOND, a_consent, an_interaction
from udfs.elements import Element
from udfs.exploring import NO_EXPLORATION, ExploreSettings
from udfs.online_model import OnlineModel
from udfs.ranking import PopularItems

USERS = ("ada", "bob", "cyd", "dan")
KINDS = ("click", "purchase", "impression")


def events(seed: int, steps: int = 120) -> list[Any]:
    """Baskets of one to three items of some kind, now and then, also late ones."""
    random, at, found = np.random.default_rng(seed), BEGINNING, []
    for number in range(steps):
        at += int(random.integers(4, 40)) * SECOND + int(random.random() < 0.1) * 5 * HOUR
        user, kind = USERS[random.integers(4)], KINDS[int(random.choice(3, p=[0.6, 0.3, 0.1]))]
        late = int(random.random() < 0.2) * 3 * HOUR
        for place in range(int(random.integers(1, 4))):
            item = f"item-{int(random.integers(40))}"
            offset, bit = 10 * number + place, hash_bit(user)
            found.append(an_interaction(user, at - late, item, kind, appended=at, offset=offset, user_bit=bit))
    return found


def steps_of(records: list[Any]) -> list[list[Any]]:
    found: dict[int, list[Any]] = {}
    for record in records:
        found.setdefault(record.append_ts, []).append(record)
    return list(found.values())


@pytest.mark.parametrize("explore", [NO_EXPLORATION, ExploreSettings(slots=2, share=0.7, pool=4, focus=0.5)])
@pytest.mark.parametrize("seed", range(3))
def test_frozen_model_gives_the_same_bytes(seed: int, explore: ExploreSettings) -> None:
    bucket = KnowingBucket(explore=explore)
    rules = JobRules(bucket.rules, BOUNDS, REFRESH, explore=explore)
    users, lists = UsersTwin(BOUNDS), ListsTwin(rules, bucket.new_ranking_model(), bucket.fallback, bucket.epoch)
    grants = [a_consent(user, offset=place) for place, user in enumerate(USERS)]
    bucket.take(*grants)
    users.apply(Element(3, [], grants))
    compared = explored = 0
    for step in steps_of(events(seed)):
        bucket.take(*step)
        took = users.apply(Element(3, step))
        for write in lists.lists(took.moved, bucket.keyed.now_ms):
            assert bucket.store.raw_list_of(write.pseudonym) == write.payload
            compared += 1
            explored += bool(decode_list(write.payload).explored)
    assert compared > 60
    assert explored == 0 if not explore.slots else 0 < explored < compared


class KnowingBucket(Bucket):
    """Its model knows the items."""

    def new_model(self) -> Any:
        return FixedModel([f"item-{number}" for number in range(30)])


@pytest.mark.parametrize("seed", range(2))
def test_online_model_of_the_sequence_that_a_list_names_gives_the_same_bytes(seed: int) -> None:
    shop, model = Shop(), OnlineModel()
    rules = JobRules(OnlineBucket.rules, BOUNDS, REFRESH)
    users, lists = UsersTwin(BOUNDS), ListsTwin(rules, model, PopularItems(), shop.bucket.epoch)
    shop.consents(*USERS)
    users.apply(Element(3, [], [a_consent(user, offset=place) for place, user in enumerate(USERS)]))
    archive, compared = ModelArchive(), 0
    for step in steps_of(events(seed)):
        shop.pass_time(max(0, step[0].append_ts - shop.bucket.keyed.now_ms))
        shop.pass_on(shop.bucket.take(*step))
        took = users.apply(Element(3, step))
        for name, state in took.moved.items():
            written = shop.bucket.store.list_of(name)
            if written is not None and written.reason == "personalised":
                lists.model = archive.model(written.model)
                [write] = lists.lists({name: state}, shop.bucket.keyed.now_ms)
                assert shop.bucket.store.raw_list_of(name) == write.payload
                compared += 1
        for _ in range(3):
            shop.pass_time(SECOND)
        archive.record(shop.bucket.store)
    assert compared > 40


@pytest.mark.parametrize("seed", range(2))
def test_learner_of_the_evaluator_is_that_of_the_job(seed: int) -> None:
    """The sums leave a bucket at the end of a second, and are merged at the end of the next."""
    shop, twin = Shop(), LearnerTwin(JobRules(OnlineBucket.rules, BOUNDS, REFRESH))
    users = UsersTwin(BOUNDS)
    shop.consents(*USERS)
    users.apply(Element(3, [], [a_consent(user, offset=place) for place, user in enumerate(USERS)]))
    for step in steps_of(events(seed)):
        at = step[0].append_ts
        shop.pass_time(max(0, at - shop.bucket.keyed.now_ms))
        shop.pass_on(shop.bucket.take(*step))
        twin.follow(at)
        twin.learn(users.apply(Element(3, step)), at)
        for _ in range(3):
            shop.pass_time(SECOND)
    twin.follow(shop.bucket.keyed.now_ms)
    followed = OnlineModel()
    followed.follow(shop.bucket.store)
    assert followed.tables.index == twin.model.tables.index
    rows = max(followed.tables.index.values()) + 1
    for name, column in followed.tables.feed.items():
        np.testing.assert_array_equal(twin.model.tables.feed[name][:rows], column[:rows], err_msg=name)
