"""A shadow in a bucket and its judge: who is tried, what leaves the bucket, and the rollback of a worse model."""

from typing import Any

import msgspec
import numpy as np
import pytest

from models.paired_gains import LEVELS, no_pairs
from schemas.consents import PURPOSES
from schemas.control import WHOLE, ModelCommand
from schemas.errors import ModelTooSlow
from schemas.receipts import ModelReceipt, TrialReceipt
from tests.support.bucket import ITEMS, receipts
from tests.support.fakes import FixedModel, Harness, Keyed
from tests.support.rollouts import BETTER, GOOD, SHORT, WORSE, RolloutBucket, failing
from tests.support.vocabulary import BEGINNING, DAY, SECOND, a_consent, an_interaction
from udfs.frozen_model import FrozenModel
from udfs.judging import JudgeSettings
from udfs.operators.judge_operator import COMMANDS, FORGOTTEN_AFTER_MS, JudgeOperator
from udfs.operators.shadow_keeper import TRIALS
from udfs.rollout import Trial, decode_plan, encode_plan
from udfs.shadow import decode_trials, encode_trials

USERS = [f"p1.user-{number}" for number in range(60)]
MEASURE = 1 << PURPOSES.index("measure")


class Backwards(FixedModel):
    """Ranks the best items last."""

    def score(self, items: Any, weights: Any, features: Any = None) -> tuple[Any, Any]:
        scores, rows = super().score(items, weights, features)
        order = np.argsort(scores, axis=1, kind="stable")
        return np.take_along_axis(-scores, order, axis=1), np.take_along_axis(rows, order, axis=1)


class ShadowBucket(RolloutBucket):
    """WORSE ranks the best items last. `trials` is what leaves for the judge."""

    def __init__(self) -> None:
        self.trials: list[tuple[str, bytes]] = []
        super().__init__()

    def _open(self, version: str) -> FrozenModel:
        found = super()._open(version)
        if version != WORSE:
            return found
        self.models[version] = Backwards(ITEMS)
        return FrozenModel(self.models[version], SHORT[version])

    def shadow(self, version: str, share: int = WHOLE, experiment: str = "try-1") -> ModelReceipt:
        self.load(version)
        [answer] = self.send("shadow", version, share=share, experiment=experiment)
        return answer  # type: ignore[no-any-return]

    def clicks(self, *users: str, items: tuple[str, ...] = ("tea", "cup")) -> None:
        """Each item in an element of its own."""
        for item in items:
            self.keyed.now_ms += SECOND
            at = self.keyed.now_ms
            clicks = [an_interaction(user, at, item, id=f"{user} {at}") for user in users]
            self.note(self.take(*clicks))
            self.note(self.pass_time(SECOND))

    def note(self, outputs: list[Any]) -> None:
        self.trials += [output[1] for output in outputs if isinstance(output, tuple) and output[0] is TRIALS]

    def counts(self) -> dict[Trial, int]:
        """How many lists were compared, by trial."""
        found: dict[Trial, int] = {}
        for _, raw in self.trials:
            for trial, counts in decode_trials(raw).items():
                found[trial] = found.get(trial, 0) + int(counts.sum())
        return found


@pytest.fixture
def bucket() -> ShadowBucket:
    made = ShadowBucket()
    made.take(*(a_consent(user) for user in USERS))
    return made


class Judge:
    """The judge of one trial."""

    def __init__(self, key: str, settings: JudgeSettings = JudgeSettings()) -> None:  # noqa: B008
        self.keyed = Keyed(key, BEGINNING)
        self.harness = Harness(JudgeOperator(settings, buckets=4), self.keyed)

    def take(self, trials: list[tuple[str, bytes]], now_ms: int) -> list[Any]:
        self.keyed.now_ms = max(self.keyed.now_ms, now_ms)
        for trial in trials:
            self.harness.element(trial)
        return self.harness.advance_to(self.keyed.now_ms + SECOND)


def commands_in(outputs: list[Any]) -> list[ModelCommand]:
    found = [output[1] for output in outputs if isinstance(output, tuple) and output[0] is COMMANDS]
    return [msgspec.json.decode(raw, type=ModelCommand) for raw in found]


def test_a_worse_model_in_shadow_is_rolled_back_and_nobody_got_its_lists(bucket: ShadowBucket) -> None:
    done = bucket.shadow(WORSE)
    assert (done.outcome, done.shadow, done.shadow_share, done.active) == ("done", WORSE, WHOLE, "default")
    for start in range(0, len(USERS), 15):
        bucket.clicks(*USERS[start : start + 15])
    found = bucket.list(USERS[0])
    assert found is not None
    assert found.model == "fixed"
    judge = Judge(bucket.trials[0][0])
    outputs = judge.take(bucket.trials, bucket.keyed.now_ms)
    commands = commands_in(outputs)
    assert [(one.bucket, one.action, one.experiment) for one in commands] == [(n, "end", "try-1") for n in range(4)]
    [verdict] = receipts(outputs, TrialReceipt)
    assert (verdict.verdict, verdict.other, verdict.served) == ("worse", WORSE, "default")
    assert verdict.high < 0
    [answer] = bucket.send("end", experiment="try-1", request=commands[0].request)
    assert (answer.outcome, answer.shadow) == ("done", "")
    [again] = bucket.send("end", experiment="try-1", request="judge-later")
    assert again.outcome == "refused", "said twice, it changes nothing"


def test_a_canary_is_compared_on_its_users_and_ended(bucket: ShadowBucket) -> None:
    bucket.load(WORSE)
    bucket.divide(("canary", WORSE, WHOLE), action="canary", experiment="canary-1")
    bucket.clicks(*USERS[:15])
    [(trial, lists)] = bucket.counts().items()
    assert trial == Trial("canary-1", "canary", "default", WORSE)
    assert lists == 15
    [answer] = bucket.send("end", experiment="canary-1")
    assert (answer.outcome, answer.arms) == ("done", ())


def test_only_a_share_of_the_users_is_tried(bucket: ShadowBucket) -> None:
    bucket.shadow(GOOD, share=WHOLE // 4)
    for start in range(0, len(USERS), 15):
        bucket.clicks(*USERS[start : start + 15])
    [lists] = bucket.counts().values()
    assert 3 <= lists <= 30


@pytest.mark.promise("feedback-needs-consent")
def test_only_users_who_allow_measuring_are_tried(bucket: ShadowBucket) -> None:
    bucket.shadow(GOOD)
    bucket.take(a_consent("p1.no", purposes=~MEASURE & 7), a_consent("p1.session", "session"))
    bucket.clicks("p1.no", "p1.session")
    assert bucket.counts() == {}
    bucket.clicks(USERS[0])
    assert list(bucket.counts().values()) == [1]
    assert not any(b"user-" in raw or b"tea" in raw or b"cup" in raw for _, raw in bucket.trials)


def test_what_no_list_can_have_is_not_compared(bucket: ShadowBucket) -> None:
    bucket.shadow(GOOD)
    bucket.clicks(USERS[0], items=("tea", "tea"))
    assert bucket.counts() == {}, "lists leave recent items out"


def test_lists_are_compared_before_the_event_is_applied(bucket: ShadowBucket) -> None:
    bucket.shadow(GOOD)
    bucket.clicks(USERS[0], items=("tea", "cup"))
    [counts] = decode_trials(bucket.trials[0][1]).values()
    expected = no_pairs()
    expected[LEVELS, LEVELS] = 1
    assert (counts == expected).all(), "cup is the first item beside tea; after the event it would be left out"


def test_a_shadow_that_fails_ends_and_no_list_is_missing(bucket: ShadowBucket) -> None:
    bucket.shadow(GOOD)
    bucket.models[GOOD].score = failing(ValueError("no"))  # type: ignore[method-assign]
    for start in range(0, len(USERS), 15):
        bucket.clicks(*USERS[start : start + 15])
    [now] = bucket.send("status")
    assert now.shadow == "", "it fell back after the first element"
    assert sum(bucket.counts().values()) <= 15
    for user in USERS:
        found = bucket.list(user)
        assert found is not None
        assert found.model == "fixed"


def test_trials_of_a_model_that_fails_in_one_of_them_are_not_counted(bucket: ShadowBucket) -> None:
    bucket.activate(GOOD)
    bucket.load(BETTER)
    bucket.divide(("a", BETTER, WHOLE // 2), ("b", "default", WHOLE // 2))
    bucket.models[GOOD].score = failing(ModelTooSlow("stopped"))  # type: ignore[method-assign]
    bucket.clicks(*USERS[:15])
    assert len(bucket.counts()) == 1, "the other trial would compare with a model that rests"


def test_shadow_that_ends_while_an_element_is_applied_does_not_break_it(
    bucket: ShadowBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.shadow(GOOD)
    bucket.clicks(USERS[0], items=("tea",))
    bucket.models[GOOD].score = failing(ModelTooSlow("stopped"))  # type: ignore[method-assign]
    monkeypatch.setattr(bucket.harness.operator, "_split_failed", failing(AssertionError("applied twice")))
    for item in ("cup", "pot"):
        bucket.keyed.now_ms += 1
        bucket.take(an_interaction(USERS[0], bucket.keyed.now_ms, item, id=item))
    [now] = bucket.send("status")
    assert now.shadow == ""


def test_model_that_cannot_be_compared_loses_no_event(bucket: ShadowBucket) -> None:
    bucket.shadow(GOOD)
    bucket.shelf[GOOD].ranked = failing(ValueError("no"))  # type: ignore[method-assign]
    bucket.clicks(USERS[0])
    assert bucket.keyed.counts['events_total{outcome="accepted"}'] == 2
    assert bucket.keyed.counts.get("records_given_up_total", 0) == 0
    assert bucket.trials == []


def test_a_restart_continues_the_shadow(bucket: ShadowBucket) -> None:
    bucket.shadow(GOOD)
    bucket.restart(bucket.keyed.snapshot())
    bucket.clicks(USERS[0])
    assert list(bucket.counts().values()) == [1]


def test_a_plan_of_before_shadows_is_read() -> None:
    plan = decode_plan(encode_plan(decode_plan(None)))
    older = msgspec.msgpack.encode(msgspec.to_builtins(plan)[:8])
    assert decode_plan(b"\x01" + older) == plan


def a_trial(served: int, other: int, lists: int) -> tuple[str, bytes]:
    trial, counts = Trial("try-1", "shadow", "default", WORSE), no_pairs()
    counts[served, other] = lists
    return "\n".join(trial), encode_trials({trial: counts})


def test_the_judge_keeps_its_verdict_over_a_restart_and_commands_again_only_later() -> None:
    judge = Judge(a_trial(0, 0, 1)[0])
    assert commands_in(judge.take([a_trial(LEVELS, 0, 200)], BEGINNING)) != []
    judge.harness = Harness(JudgeOperator(JudgeSettings(), 4), judge.keyed)
    assert commands_in(judge.take([a_trial(LEVELS, 0, 1)], BEGINNING + 2 * SECOND)) == []
    outputs = judge.take([a_trial(0, LEVELS, 5_000)], BEGINNING + 60 * SECOND)
    assert len(commands_in(outputs)) == 4, "lists are still compared"
    assert receipts(outputs, TrialReceipt) == [], "the verdict is final, and was said"


def test_equal_models_are_left_alone() -> None:
    judge = Judge(a_trial(0, 0, 1)[0])
    outputs = judge.take([a_trial(LEVELS, 0, 100), a_trial(0, LEVELS, 100), a_trial(5, 5, 9_000)], BEGINNING)
    assert commands_in(outputs) == []
    [said] = [output for output in outputs if isinstance(output, bytes)]
    assert msgspec.json.decode(said, type=TrialReceipt).verdict == "undecided"


def test_unreadable_counts_are_left_out_and_a_trial_is_forgotten() -> None:
    key, raw = a_trial(LEVELS, LEVELS, 10)
    judge = Judge(key)
    [said] = judge.take([(key, b"\xc1"), (key, raw)], BEGINNING)
    assert msgspec.json.decode(said)["lists"] == 10
    judge.harness.advance_to(BEGINNING + FORGOTTEN_AFTER_MS + 3 * DAY)
    assert judge.keyed.states["trial-v1"].value() is None
    assert judge.keyed.timers == set()


def test_a_model_that_was_better_for_long_and_becomes_worse_is_found() -> None:
    judge = Judge(a_trial(0, 0, 1)[0])
    outputs = []
    for second in range(20):
        good = [a_trial(LEVELS // 2, LEVELS, 2_000), a_trial(0, 0, 8_000)]
        outputs += judge.take(good, BEGINNING + second * SECOND)
    assert commands_in(outputs) == []
    for second in range(20, 24):
        outputs += judge.take([a_trial(LEVELS, LEVELS // 2, 100), a_trial(0, 0, 400)], BEGINNING + second * SECOND)
    [verdict] = receipts(outputs, TrialReceipt)
    assert (verdict.verdict, verdict.difference > 0) == ("worse", True), "over all lists it is better"
