"""Roll-outs in a bucket: two phases, experiments, refusals, restores, and models that fail in service."""

import time
from typing import Any

import numpy as np
import pytest

from schemas.errors import ModelTooSlow
from schemas.model_versions import DEFAULT, ONLINE
from schemas.receipts import ElementReceipt, ModelReceipt
from tests.support.bucket import ITEMS, receipts
from tests.support.rollouts import BETTER, BROKEN, GOOD, SHORT, WORSE, RolloutBucket, failing
from tests.support.vocabulary import BEGINNING, MINUTE, a_consent, an_interaction
from udfs.operators.rollout_keeper import ASK_EVERY_MS
from udfs.ranking import ListRules
from udfs.rollout import arm_of, decode_plan
from udfs.state import Profile

USERS = [f"p1.user-{number}" for number in range(40)]


@pytest.fixture
def bucket() -> RolloutBucket:
    made = RolloutBucket()
    made.take(*(a_consent(user) for user in ("ada", *USERS)))
    return made


def served(bucket: RolloutBucket, user: str = "ada") -> str:
    """The model of the list that the user's next event causes."""
    bucket.keyed.now_ms += MINUTE
    at = bucket.keyed.now_ms
    bucket.take(an_interaction(user, at=at, id=f"{user}-{at}"))
    found = bucket.list(user)
    assert found is not None
    return found.model


def test_versions_serve_only_after_activation_and_return_at_once(bucket: RolloutBucket) -> None:
    assert bucket.load(GOOD).outcome == "loaded"
    assert served(bucket) == "fixed", "loaded, but not active"
    [done] = bucket.send("activate", GOOD)
    assert (done.outcome, done.active, done.previous, set(done.warm)) == ("done", GOOD, DEFAULT, {GOOD, DEFAULT})
    assert served(bucket) == SHORT[GOOD]
    bucket.activate(BETTER)
    assert served(bucket) == SHORT[BETTER]
    [back] = bucket.send("rollback")
    assert (back.active, back.previous, served(bucket)) == (GOOD, "", SHORT[GOOD])
    assert bucket.opened == [GOOD, BETTER], "previous stays warm"
    [refused] = bucket.send("rollback")
    assert (refused.outcome, refused.active) == ("refused", GOOD)


def test_loading_does_not_hold_up_elements_and_is_answered_without_one(bucket: RolloutBucket) -> None:
    bucket.hold()
    assert bucket.send("load", GOOD) == []
    assert served(bucket) == "fixed", "an element passes while the model is being opened"
    [not_yet] = bucket.send("activate", GOOD)
    assert (not_yet.outcome, "not loaded" in not_yet.reason) == ("refused", True)
    assert receipts(bucket.pass_time(10 * ASK_EVERY_MS), ModelReceipt) == []
    bucket.let_go()
    assert bucket.shelf.wait_for(GOOD, 30)
    [answer] = receipts(bucket.pass_time(ASK_EVERY_MS), ModelReceipt)
    assert (answer.request, answer.bucket, answer.action, answer.outcome) == ("r1", 3, "load", "loaded")
    bucket.keyed.timers = {timer for timer in bucket.keyed.timers if timer % 100}
    assert not bucket.keyed.timers, "nobody asks any more"


def test_model_that_cannot_be_opened_is_refused_and_replaces_nothing(bucket: RolloutBucket) -> None:
    bucket.activate(GOOD)
    answer = bucket.load(BROKEN)
    assert (answer.outcome, answer.reason, answer.active) == ("refused", "its graph cannot be run", GOOD)
    [refused] = bucket.send("activate", BROKEN)
    assert (refused.outcome, served(bucket)) == ("refused", SHORT[GOOD])
    bucket.available.add(BROKEN)
    assert bucket.load(BROKEN).outcome == "loaded", "a new request tries again"


def test_models_that_no_plan_names_are_freed(bucket: RolloutBucket) -> None:
    for version in (GOOD, BETTER, WORSE):
        bucket.load(version)
    assert set(bucket.shelf.view().warm) == {DEFAULT, BETTER, WORSE}, "two candidates at most"
    bucket.send("activate", WORSE)
    bucket.send("activate", BETTER)
    bucket.activate(GOOD)
    assert set(bucket.shelf.view().warm) == {DEFAULT, GOOD, BETTER}, "active and previous"


def test_arms_are_in_lists_and_receipts_and_users_stay_in_them(bucket: RolloutBucket) -> None:
    bucket.load(GOOD)
    bucket.load(BETTER)
    assert bucket.divide(("a", GOOD, 3_000), ("b", BETTER, 3_000)).outcome == "done"
    emitted = bucket.take(*(an_interaction(user, id=user) for user in USERS))
    plan = decode_plan(bucket.keyed.states["rollout-v1"].value())
    arms = {user: ("a", "b", "")[arm_of(user, plan)] for user in USERS}
    assert set(arms.values()) == {"a", "b", ""}
    models = {"a": SHORT[GOOD], "b": SHORT[BETTER], "": "fixed"}
    for user in USERS:
        found = bucket.list(user)
        assert found is not None and (found.arm, found.model) == (arms[user], models[arms[user]])
    [receipt] = receipts(emitted, ElementReceipt)
    assert {one.pseudonym: arm for one, arm in zip(receipt.lists, receipt.arms, strict=True)} == arms
    bucket.send("rollback")
    [receipt] = receipts(bucket.take(an_interaction(USERS[0], at=BEGINNING + MINUTE, id="later")), ElementReceipt)
    assert (receipt.arms, receipt.lists[0].model) == ([], "fixed")


def test_users_stay_in_a_canary_that_grows(bucket: RolloutBucket) -> None:
    bucket.load(GOOD)
    inside: list[set[str]] = []
    for share in (2_000, 5_000, 10_000):
        assert bucket.divide(("canary", GOOD, share), action="canary").outcome == "done"
        inside.append({user for user in USERS if served(bucket, user) == SHORT[GOOD]})
    assert inside[0] < inside[1] < inside[2] == set(USERS)
    assert bucket.divide(("canary", GOOD, 0), action="canary").arms == ()
    assert served(bucket) == "fixed"


@pytest.mark.parametrize(
    ("arms", "why"),
    [
        ([("a", GOOD, 6_000), ("b", DEFAULT, 5_000)], "exceed 100 %"),
        ([("a", GOOD, 5_000), ("a", DEFAULT, 5_000)], "same name"),
        ([("a", BETTER, 5_000)], "not loaded"),
    ],
)
def test_experiment_that_cannot_be_is_refused(
    bucket: RolloutBucket, arms: list[tuple[str, str, int]], why: str
) -> None:
    bucket.load(GOOD)
    answer = bucket.divide(*arms)
    assert (answer.outcome, answer.arms, why in answer.reason) == ("refused", (), True)


def test_repeated_request_and_older_command_change_nothing(bucket: RolloutBucket) -> None:
    bucket.activate(GOOD)
    bucket.activate(BETTER, request="once")
    [first] = bucket.send("rollback", request="back")
    [again] = bucket.send("rollback", request="back")
    assert (first.outcome, again.outcome, again.active) == ("done", "done", GOOD), "done once, answered twice"
    [late] = bucket.send("activate", BETTER, offset=1)
    assert (late.outcome, late.active) == ("refused", GOOD)
    [repeated] = bucket.send("activate", BETTER, request="once")
    assert (repeated.outcome, repeated.active) == ("done", GOOD)


def test_restore_resumes_the_plan_and_replayed_commands_do_nothing_twice(bucket: RolloutBucket) -> None:
    bucket.activate(GOOD)
    snapshot = bucket.keyed.snapshot()
    bucket.activate(BETTER)
    bucket.restart(snapshot)
    bucket.offset = 2
    assert served(bucket) == SHORT[GOOD], "the plan of the snapshot, from its first element on"
    bucket.load(BETTER)
    [replayed] = bucket.send("activate", BETTER)
    assert (replayed.active, replayed.previous) == (BETTER, GOOD)
    snapshot = bucket.keyed.snapshot()
    bucket.restart(snapshot)
    [status] = bucket.send("status")
    assert (status.active, status.previous) == (BETTER, GOOD)
    assert bucket.shelf.wait_for(GOOD, 30), "the previous version is loaded again, too"
    [back] = bucket.send("rollback")
    assert (back.outcome, served(bucket)) == ("done", SHORT[GOOD])


def test_load_that_a_crash_interrupted_is_answered_after_the_restore(bucket: RolloutBucket) -> None:
    bucket.hold()
    bucket.send("load", GOOD, request="asked before")
    bucket.restart(bucket.keyed.snapshot())
    bucket.let_go()
    emitted = bucket.pass_time(ASK_EVERY_MS)
    assert bucket.shelf.wait_for(GOOD, 30)
    [answer] = receipts(emitted + bucket.pass_time(ASK_EVERY_MS), ModelReceipt)
    assert (answer.request, answer.outcome) == ("asked before", "loaded")


def test_restored_plan_whose_model_is_gone_falls_back_and_says_so(bucket: RolloutBucket) -> None:
    bucket.activate(GOOD)
    bucket.activate(BETTER)
    bucket.available.discard(BETTER)
    bucket.restart(bucket.keyed.snapshot())
    [told] = receipts(bucket.take(an_interaction(at=BEGINNING + MINUTE)), ModelReceipt)
    assert (told.outcome, told.version, told.reason) == ("fell_back", BETTER, "its graph cannot be run")
    assert (told.active, bucket.keyed.counts["models_fallen_back_total"]) == (GOOD, 1)
    assert served(bucket) == SHORT[GOOD]


def test_restore_of_an_earlier_release_serves_what_the_settings_name(bucket: RolloutBucket) -> None:
    bucket.activate(GOOD)
    del bucket.keyed.states["rollout-v1"]
    bucket.restart(bucket.keyed.snapshot())
    assert served(bucket) == "fixed"
    [status] = bucket.send("status")
    assert (status.active, status.previous, status.arms) == (DEFAULT, "", ())


@pytest.mark.parametrize("error", [ModelTooSlow("stopped"), RuntimeError("out of memory")])
def test_model_that_fails_in_service_falls_back_within_the_element(bucket: RolloutBucket, error: Exception) -> None:
    bucket.activate(GOOD)
    bucket.activate(WORSE)
    bucket.models[WORSE].score = failing(error)  # type: ignore[method-assign]
    emitted = bucket.take(*(an_interaction(user, id=user) for user in USERS[:4]))
    [told] = receipts(emitted, ModelReceipt)
    assert (told.outcome, told.version, told.active) == ("fell_back", WORSE, GOOD)
    for user in USERS[:4]:
        found = bucket.list(user)
        assert found is not None and (found.model, found.reason) == (SHORT[GOOD], "personalised")
    assert (bucket.keyed.counts["models_fallen_back_total"], served(bucket)) == (1, SHORT[GOOD])
    bucket.restart(bucket.keyed.snapshot())
    assert served(bucket) == SHORT[GOOD], "the fall-back is in the plan"


def test_model_that_answers_nothing_useful_falls_back(bucket: RolloutBucket) -> None:
    bucket.load(WORSE)
    bucket.divide(("a", WORSE, 10_000))

    def nan(items: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.full((len(items), 3), np.nan, np.float32), np.ones((len(items), 3), np.int64)

    bucket.models[WORSE].score = nan  # type: ignore[assignment, method-assign]
    emitted = bucket.take(*(an_interaction(user, id=user) for user in USERS))
    [told] = receipts(emitted, ModelReceipt)
    assert (told.outcome, told.active, told.arms, told.experiment) == ("fell_back", DEFAULT, (), "")
    found = bucket.list(USERS[0])
    assert found is not None and (found.model, found.reason, found.arm) == ("fixed", "personalised", "")


def test_model_that_breaks_after_serving_well_falls_back(bucket: RolloutBucket) -> None:
    bucket.activate(WORSE)
    score = bucket.models[WORSE].score
    model = bucket.shelf[WORSE]
    for _ in range(100):
        model.ranked([Profile(recents=[(ITEMS[0], 1, 0)], newest_ts=1)] * 100, ListRules(), BEGINNING)

    def fails_for_two_of_three(items: Any, weights: Any, features: Any = None) -> Any:
        scores, rows = score(items, weights)
        scores[np.arange(len(scores)) % 3 > 0] = np.nan
        return scores, rows

    bucket.models[WORSE].score = fails_for_two_of_three  # type: ignore[method-assign]
    assert served(bucket) == SHORT[WORSE]
    for turn in range(200 // len(USERS) + 1):
        at = BEGINNING + turn * MINUTE
        bucket.take(*(an_interaction(user, at=at, id=f"{user}{turn}") for user in USERS))
    assert served(bucket) == "fixed"
    assert bucket.keyed.counts["models_fallen_back_total"] == 1


def test_failed_model_can_be_activated_again(bucket: RolloutBucket) -> None:
    bucket.activate(WORSE)
    bucket.models[WORSE].score = failing(ModelTooSlow("stopped"))  # type: ignore[method-assign]
    assert served(bucket) == "fixed"
    [refused] = bucket.send("activate", WORSE)
    assert refused.outcome == "refused", "it is not loaded any more"
    assert bucket.activate(WORSE).outcome == "done"
    assert served(bucket) == SHORT[WORSE]


def test_repeated_or_late_load_opens_nothing(bucket: RolloutBucket) -> None:
    bucket.load(GOOD, request="once")
    bucket.load(BETTER)
    bucket.load(WORSE)
    assert set(bucket.shelf.view().warm) == {DEFAULT, BETTER, WORSE}, "the first is forgotten"
    opened = list(bucket.opened)
    bucket.send("load", GOOD, request="once")
    bucket.send("load", GOOD, offset=1)
    assert bucket.opened == opened


def test_long_reason_of_a_refusal_is_cut_to_one_line(bucket: RolloutBucket) -> None:
    bucket.complaint = "bad\n" * 1_000
    reason = bucket.load(BROKEN).reason
    assert reason.startswith("bad bad") and "\n" not in reason and len(reason) <= 500


def test_bucket_without_roll_out_keeps_no_plan(bucket: RolloutBucket) -> None:
    served(bucket)
    bucket.send("status")
    assert bucket.keyed.states["rollout-v1"].value() is None


def test_version_that_the_worker_holds_no_more_falls_back_before_lists_are_made(bucket: RolloutBucket) -> None:
    bucket.activate(GOOD)
    bucket.shelf.keep([])
    assert served(bucket) == "fixed"
    assert bucket.keyed.counts["models_fallen_back_total"] == 1


def test_only_loading_opens_a_version(bucket: RolloutBucket) -> None:
    for action in ("activate", "shadow"):
        [refused] = bucket.send(action, GOOD, share=100, experiment="test")
        assert refused.outcome == "refused"
    assert bucket.opened == []


def test_restored_plan_waits_for_the_previous_version_before_it_falls_back(
    bucket: RolloutBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.activate(GOOD)
    bucket.activate(BETTER)
    bucket.available.discard(BETTER)
    at_once = bucket._open

    def open_slowly(version: str) -> Any:
        if version == GOOD:
            time.sleep(0.2)
        return at_once(version)

    monkeypatch.setattr(bucket, "_open", open_slowly)
    bucket.restart(bucket.keyed.snapshot())
    assert served(bucket) == SHORT[GOOD]


def test_model_of_the_settings_is_the_default_under_its_own_version(bucket: RolloutBucket) -> None:
    bucket.activate(GOOD)
    [done] = bucket.send("activate", ONLINE)
    assert (done.outcome, done.active, done.previous) == ("done", DEFAULT, GOOD)
    divided = bucket.divide(("a", ONLINE, 5_000), ("b", GOOD, 5_000))
    assert [arm.version for arm in divided.arms] == [DEFAULT, GOOD]


def test_timers_of_a_roll_out_end_with_its_answer(bucket: RolloutBucket) -> None:
    bucket.load(GOOD)
    for _ in range(2):
        bucket.pass_time(ASK_EVERY_MS)
        assert not any(timer % (2 * ASK_EVERY_MS) for timer in bucket.keyed.timers)
