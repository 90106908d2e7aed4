"""The online model in the operators: what a bucket teaches, what the learner publishes, and the lists that follow."""

import msgspec
import numpy as np
import pytest

from models.online.learner import Learner
from models.online.lessons import Lesson, decode_sums, sum_lessons
from models.online.updates import decode_update, encode_update
from schemas.control import RelearnCommand
from schemas.lists import encode_list, item_fragment
from schemas.store import TRENDING
from tests.support.fakes import MemoryStore
from tests.support.shop import Shop, hash_bit
from tests.support.vocabulary import BEGINNING, DAY, MINUTE, SECOND, a_consent, an_interaction
from udfs.elements import EventRecord
from udfs.learning import TRAIN, LearnSettings
from udfs.online_model import OnlineModel
from udfs.profile import ProfileBounds
from udfs.ranking import ListRules
from udfs.relearning import Relearning


def test_user_gets_a_personal_list_after_a_session_that_resembles_another() -> None:
    shop = Shop()
    shop.consents("ada", "bob", "cyd")
    for user in ("ada", "bob"):
        shop.clicks(user, "tea", "cup", "pot")
    shop.pass_time(2 * SECOND)
    shop.clicks("cyd", "tea")
    found = shop.bucket.store.list_of("cyd")
    assert found is not None
    assert (found.reason, found.model.partition("@")[0]) == ("personalised", "online")
    assert {item.id for item in found.items} == {"cup", "pot"}


@pytest.mark.promise("learning-hides-users")
def test_new_item_is_in_another_users_list_after_its_second_user() -> None:
    shop = Shop()
    shop.consents("ada", "bob", "cyd", "dan")
    shop.clicks("ada", "tea", "cup")
    shop.clicks("bob", "tea", "cup")
    shop.clicks("cyd", "tea", "brand-new")
    shop.clicks("dan", "tea")
    assert "brand-new" not in shop.ids("dan"), "one user has met it"
    shop.clicks("bob", "brand-new")
    shop.pass_time(2 * SECOND)
    shop.clicks("dan", "tea")
    assert "brand-new" in shop.ids("dan")


@pytest.mark.promise("learning-needs-consent")
def test_user_who_denies_training_teaches_nothing() -> None:
    shop = Shop()
    shop.consents("ada", "bob", purposes=7 - TRAIN)
    for user in ("ada", "bob"):
        shop.clicks(user, "tea", "cup", "pot")
    assert shop.lessons == []
    assert shop.bucket.store.whole_model() is None


@pytest.mark.promise("learning-hides-users")
def test_lessons_and_updates_name_no_user() -> None:
    shop = Shop()
    shop.consents("ada-the-user", "bob-the-user")
    for user in ("ada-the-user", "bob-the-user"):
        shop.clicks(user, "tea", "cup", "pot")
    published = [shop.bucket.store.whole_model() or b"", *shop.bucket.store.updates()]
    states = list(shop.learner_keyed.states["rows-v1"].data.values())
    for raw in (*shop.lessons, *published, *states):
        assert b"the-user" not in raw
    assert shop.lessons and published[0]


def test_learner_restored_from_a_snapshot_equals_one_that_never_stopped() -> None:
    """Up to the rounding of fading twice: the published shares are half as precise as the counts."""
    shop, other = Shop(), Shop()
    for each in (shop, other):
        each.consents("ada", "bob")
        each.clicks("ada", *(f"item-{n}" for n in range(15)))
    shop.learner_keyed = shop.learner_keyed.snapshot()
    shop.start_learner()
    for each in (shop, other):
        each.clicks("bob", *(f"item-{n}" for n in range(15)))
        each.pass_time(MINUTE)
    followed, expected = OnlineModel(), OnlineModel()
    followed.follow(shop.bucket.store)
    expected.follow(other.bucket.store)
    assert followed.tables.ids == expected.tables.ids
    for name, column in expected.tables.feed.items():
        np.testing.assert_allclose(followed.tables.feed[name], column, rtol=2e-3, atol=1e-6, err_msg=name)


def test_model_comes_back_after_redis_has_lost_it() -> None:
    shop = Shop()
    shop.consents("ada", "bob", "cyd")
    for user in ("ada", "bob"):
        shop.clicks(user, "tea", "cup", "pot")
    shop.bucket.store.lose_model()
    shop.clicks("ada", "tea")
    shop.pass_time(2 * SECOND)
    followed = OnlineModel()
    followed.follow(shop.bucket.store)
    assert {"tea", "cup", "pot"} <= set(followed.tables.ids)


def test_scorer_that_followed_updates_has_the_tables_of_one_that_read_the_whole() -> None:
    shop = Shop()
    followed, fresh = OnlineModel(), OnlineModel()
    shop.consents("ada", "bob")
    for n in range(70):  # longer than a whole model stays the last one
        shop.clicks(("ada", "bob")[n % 2], f"item-{n * n % 23}")
        followed.follow(shop.bucket.store)
        fresh.forget()
        fresh.follow(shop.bucket.store)
        assert (fresh.name, fresh.tables.index) == (followed.name, followed.tables.index)
        rows = len(fresh.tables.index) + 1
        for name, column in fresh.tables.feed.items():
            assert np.array_equal(followed.tables.feed[name][:rows], column[:rows]), (n, name)


def test_scorer_that_has_missed_updates_reads_the_whole() -> None:
    shop = Shop()
    late, followed = OnlineModel(), OnlineModel()
    shop.consents("ada", "bob")
    for n in range(140):
        shop.clicks(("ada", "bob")[n % 2], f"item-{n // 2 % 35}")
        followed.follow(shop.bucket.store)
        if n == 4:
            late.follow(shop.bucket.store)
    late.follow(shop.bucket.store)
    assert (late.name, late.tables.index) == (followed.name, followed.tables.index)
    assert len(late.tables.index) > 30


@pytest.mark.promise("learning-needs-consent")
def test_grant_that_redis_refuses_teaches_nothing() -> None:
    shop = Shop()
    shop.bucket.keyed.now_ms += MINUTE
    shop.bucket.store.withdraw("ada", BEGINNING + MINUTE)
    grant = a_consent("ada", said_at=BEGINNING)
    shop.pass_on(shop.bucket.take(grant, an_interaction("ada", item="tea", appended=BEGINNING + MINUTE)))
    shop.pass_time(2 * SECOND)
    assert shop.lessons == []


def test_older_deployment_publishes_nothing() -> None:
    shop = Shop()
    shop.consents("ada", "bob")
    for user in ("ada", "bob"):
        shop.clicks(user, "tea", "cup")
    newer = shop.bucket.store.at_epoch(BEGINNING + 1)
    newer.publish_whole(1, b"newer")
    shop.clicks("ada", "pot")
    shop.pass_time(2 * MINUTE)
    assert shop.bucket.store.whole_model() == b"newer"


@pytest.mark.parametrize("raw", [b"", b"\x01", b"\x02abc", b"\x01\x90", b"nonsense"])
def test_unreadable_updates_leave_lists_to_what_is_popular(raw: bytes) -> None:
    store = MemoryStore(BEGINNING, lambda: BEGINNING)
    store.publish_whole(5, raw)
    model = OnlineModel()
    model.follow(store)
    assert model.tables.is_empty


def test_unreadable_lessons_are_left_out_and_counted() -> None:
    shop = Shop()
    shop.consents("ada", "bob")
    shop.learner_keyed.now_ms = shop.bucket.keyed.now_ms
    shop.learner.element(b"nonsense")
    for user in ("ada", "bob"):
        shop.clicks(user, "tea", "cup")
    shop.pass_time(2 * SECOND)
    assert shop.learner_keyed.counts["lessons_left_out_total"] == 1
    assert shop.bucket.store.whole_model() is not None


def test_lessons_hold_what_was_learned() -> None:
    shop = Shop()
    shop.consents("ada")
    shop.clicks("ada", "tea", "cup")
    shop.pass_time(SECOND)
    items = [decode_sums(raw).items for raw in shop.lessons]
    assert items == [["tea"], ["cup", "tea"]]
    assert decode_update(shop.bucket.store.whole_model() or b"").names == [], "one user is not enough to publish"


def test_list_is_made_again_from_the_model_it_names_and_the_users_state() -> None:
    """As an evaluator does it, which has the whole model of each sequence and never applied an update to another."""
    shop, follower, made_again = Shop(), OnlineModel(), OnlineModel()
    shop.consents("ada", "bob", "cyd")
    wholes: dict[str, bytes] = {}
    compared = 0
    for n in range(45):
        user = ("ada", "bob", "cyd")[n % 3]
        shop.clicks(user, f"item-{n * n % 17}")
        found = shop.bucket.store.list_of(user)
        if found is not None and found.model in wholes:
            made_again.forget()
            made_again.apply([decode_update(wholes[found.model])])
            state = shop.bucket.user(user)
            assert state is not None and state.profile is not None
            scores, rows, kept, _ = made_again.ranked([state.profile], shop.bucket.rules, 0)
            ids = [made_again.tables.ids[row] for row in rows[kept]]
            assert [(item.id, item.score) for item in found.items][: len(ids)] == [
                (item, round(float(score), 4)) for item, score in zip(ids, scores[kept], strict=True)
            ]
            compared += len(ids)
        follower.follow(shop.bucket.store)
        wholes[follower.name] = encode_update(follower.tables.whole())
    assert compared > 20


def relearned(shop: Shop, *events: EventRecord) -> None:
    """What `freshet model relearn` does, with these as the events that are left."""
    relearning = Relearning(ProfileBounds(), ListRules(), LearnSettings())
    relearning.take(events)
    shop.bucket.store.relearned_parts.update({("again", part): raw for part, raw in relearning.state()})
    shop.pass_on(shop.bucket.take(commands=[RelearnCommand(3, "again")]))
    shop.pass_time(2 * SECOND)


def a_shop_with_a_secret() -> Shop:
    """Ada and bob have met tea, cup and pot; eve and mal have met tea and the secret."""
    shop = Shop()
    shop.consents("ada", "bob", "eve", "mal", "zoe")
    for user in ("ada", "bob"):
        shop.clicks(user, "tea", "cup", "pot")
    for user in ("eve", "mal"):
        shop.clicks(user, "tea", "secret")
    return shop


def some_clicks(user: str, *items: str) -> list[EventRecord]:
    return [an_interaction(user, BEGINNING + n * SECOND, item, user_bit=hash_bit(user)) for n, item in enumerate(items)]


@pytest.mark.promise("learning-forgets-at-once")
def test_learning_again_removes_what_an_erased_user_taught() -> None:
    shop = a_shop_with_a_secret()
    shop.clicks("zoe", "tea")
    assert "secret" in shop.ids("zoe")
    left = [event for user in ("ada", "bob") for event in some_clicks(user, "tea", "cup", "pot")]
    relearned(shop, *left, *some_clicks("eve", "tea", "secret"))
    shop.clicks("zoe", "tea")
    assert "secret" not in shop.ids("zoe") and {"cup", "pot"} <= set(shop.ids("zoe"))
    for _ in range(2):
        tables = OnlineModel()
        tables.follow(shop.bucket.store)
        assert {"tea", "cup", "pot"} <= set(tables.tables.ids) and "secret" not in tables.tables.ids
        shop.learner_keyed = shop.learner_keyed.snapshot()
        shop.start_learner()
        shop.clicks("ada", "tea")
    shop.clicks("mal", "secret")
    shop.pass_time(2 * SECOND)
    tables.follow(shop.bucket.store)
    assert "secret" in tables.tables.ids, "the second user of those who are left has the bit that the job gives them"


@pytest.mark.promise("learning-forgets-at-once")
@pytest.mark.parametrize("lost", ["0", "head", None])
def test_restore_from_before_learning_again_does_not_bring_an_erased_share_back(lost: str | None) -> None:
    """The command is read again. Its parts may have expired by then: the model is emptied rather than restored."""
    shop = a_shop_with_a_secret()
    older = shop.learner_keyed.snapshot()
    left = [event for user in ("ada", "bob") for event in some_clicks(user, "tea", "cup", "pot")]
    relearned(shop, *left)
    shop.learner_keyed = older
    shop.start_learner()
    shop.bucket.store.relearned_parts.pop(("again", lost), None)
    shop.pass_on(shop.bucket.take(commands=[RelearnCommand(3, "again")]))
    shop.pass_time(2 * SECOND)
    followed = OnlineModel()
    followed.follow(shop.bucket.store)
    assert "secret" not in followed.tables.ids
    assert ("cup" in followed.tables.ids) == (lost is None)
    for user in ("ada", "bob"):
        shop.clicks(user, "mug", "jug")
    followed.follow(shop.bucket.store)
    assert {"mug", "jug"} <= set(followed.tables.ids), "an emptied model goes on learning"


@pytest.mark.promise("learning-forgets-at-once")
def test_lists_of_an_erased_share_end_when_the_model_is_learned_again() -> None:
    shop = Shop()
    shop.consents("ada", "bob", "eve", "mal")
    for user in ("ada", "bob"):
        shop.clicks(user, "tea", "cup")
    for user in ("eve", "mal"):
        shop.clicks(user, *("secret", "secret-2") * 5)
    store = shop.bucket.store
    assert store.similar("secret") is not None
    rising = encode_list(1, BEGINNING, b'"m"', BEGINNING, "trending", [item_fragment("secret")], [1.0])
    store.write_popular(TRENDING, BEGINNING, 1, DAY, rising)
    relearned(shop, *(event for user in ("ada", "bob") for event in some_clicks(user, "tea", "cup")))
    emptied, similar, trending = store.similar("secret"), store.similar("tea"), store.popular(TRENDING)
    assert emptied is not None and emptied.items == ()
    assert similar is not None and {item.id for item in similar.items} == {"cup"}
    assert trending is not None and trending.items == ()


def test_restart_keeps_items_that_were_met_without_a_pair() -> None:
    shop = Shop()
    shop.consents(*(f"u{n}" for n in range(150)))
    for n in range(150):
        shop.clicks(f"u{n}", f"landing-{n % 75}")
    shop.pass_time(MINUTE)
    shop.learner_keyed = shop.learner_keyed.snapshot()
    shop.start_learner()
    shop.clicks("u0", "tea")
    followed = OnlineModel()
    followed.follow(shop.bucket.store)
    assert {f"landing-{n}" for n in range(75)} <= set(followed.tables.ids)


def test_flood_of_new_items_takes_no_more_rows_than_there_are() -> None:
    learner = Learner(items_max=100)
    for user in (1, 2, 3):
        learner.learn([sum_lessons([Lesson(f"old-{n}", BEGINNING, user, ()) for n in range(80)])], BEGINNING)
    flood = [Lesson(f"new-{n}", BEGINNING + SECOND, 9, (f"new-{n - 1}",)) for n in range(20_000)]
    learner.learn([sum_lessons(flood)], BEGINNING + SECOND)
    assert len(learner.index) <= 100
    assert sum(item.startswith("old-") for item in learner.index) == 80
    for n in range(20):
        learner.learn([sum_lessons([Lesson(f"more-{n}-{m}", BEGINNING + SECOND, 9, ()) for m in range(50)])], BEGINNING)
    assert sum(item.startswith("old-") for item in learner.index) == 80, "items that several users met stay"


def test_learning_again_equals_learning_in_the_stream() -> None:
    """The same events in the same order: the same pairs and counts, whatever the seconds they were merged in."""
    shop = Shop()
    shop.consents("ada", "bob")
    events = []
    for user in ("ada", "bob"):
        for item in ("tea", "cup", "pot", "tea", "mug"):
            shop.clicks(user, item)
            at = shop.appended
            events.append(an_interaction(user, at, item, appended=at, user_bit=hash_bit(user)))
    before, after = OnlineModel(), OnlineModel()
    before.follow(shop.bucket.store)
    relearned(shop, *events)
    after.follow(shop.bucket.store)
    assert sorted(after.tables.ids) == sorted(before.tables.ids)
    for item in ("tea", "cup", "pot", "mug"):
        was, now = (model.tables.similar(np.array([model.tables.index[item]]), 5) for model in (before, after))
        names = [[model.tables.ids[row] for row in one.rows[0]] for model, one in ((before, was), (after, now))]
        assert names[0] == names[1]
        np.testing.assert_allclose(now.likeness, was.likeness, rtol=5e-3, atol=1e-6)


def test_lessons_that_cannot_be_merged_take_no_good_ones_with_them() -> None:
    shop = Shop()
    shop.consents("ada", "bob")
    shop.clicks("ada", "tea", "cup")
    good = list(shop.learner_keyed.states["lessons-v1"].get() or ())
    shop.learner.element(b"\x07nonsense")
    broken = msgspec.structs.replace(decode_sums(shop.lessons[0]), gradients=(1, b"", b""))
    shop.learner.operator._waiting.append(broken)
    shop.learner.advance_to(shop.learner_keyed.now_ms + 2 * SECOND)
    assert list(shop.learner_keyed.states["lessons-v1"].get() or ())[: len(good)] == good
