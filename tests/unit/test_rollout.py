"""The rules of a roll-out: who is in which arm, and what commands change, in any order and however often they come."""

from collections import Counter
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.control import WHOLE, Arm, ModelCommand
from schemas.errors import SchemaError
from schemas.model_versions import DEFAULT, ONLINE, Version
from udfs.rollout import (
    ANSWERS_KEPT,
    CANDIDATES_MAX,
    SHADOW,
    Plan,
    PlanAnswer,
    Trial,
    Warmth,
    arm_of,
    by_arm,
    carry_out,
    decode_plan,
    encode_plan,
    fall_back,
    settle,
    trial_of,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "state" / "rollout-v1.bin"
VERSIONS = [DEFAULT, ONLINE, *(str(Version("shop", digit * 64)) for digit in "abcd")]
ALL_WARM = Warmth(VERSIONS, {})
USERS = [f"p1.user-{number}" for number in range(4_000)]

A, B, C = VERSIONS[2:5]

versions = st.sampled_from(VERSIONS)
arms = st.lists(st.builds(Arm, st.sampled_from(["a", "b", "c"]), versions, st.integers(0, WHOLE)), max_size=3).map(
    tuple
)
warmths = st.builds(Warmth, st.sets(versions).map(lambda some: {*some, DEFAULT}), st.just({}))
steps = st.lists(
    st.tuples(
        st.sampled_from(["load", "activate", "canary", "arms", "rollback", "status"]),
        versions,
        arms,
        st.sampled_from([None, "one", "two"]),
        st.sampled_from([f"r{number}" for number in range(12)]),
        warmths,
    ),
    max_size=12,
)


def an_experiment(*shares: int, name: str = "test") -> Plan:
    divided = tuple(Arm(f"arm{n}", VERSIONS[n + 1], share) for n, share in enumerate(shares))
    return Plan(experiment=name, arms=divided)


def commands_of(
    drawn: list[tuple[str, str, tuple[Arm, ...], str | None, str, Warmth]],
) -> list[tuple[ModelCommand, Warmth]]:
    return [
        (ModelCommand(1, request, action, version, divided, experiment, offset), warmth)  # type: ignore[arg-type]
        for offset, (action, version, divided, experiment, request, warmth) in enumerate(drawn)
    ]


def test_shares_hold_and_assignment_is_stable() -> None:
    plan = an_experiment(1_000, 2_500)
    found = Counter(arm_of(user, plan) for user in USERS)
    assert abs(found[0] / len(USERS) - 0.1) < 0.02 and abs(found[1] / len(USERS) - 0.25) < 0.03
    assert [arm_of(user, plan) for user in USERS[:5]] == [arm_of(user, plan) for user in USERS[:5]]
    assert arm_of("p1.ada", an_experiment(WHOLE)) == 0 and arm_of("p1.ada", an_experiment(0)) == -1


def test_assignment_is_the_same_in_every_release() -> None:
    """Users would change arms in the middle of an experiment at an upgrade."""
    plan = an_experiment(3_000, 3_000)
    assert [arm_of(user, plan) for user in USERS[:12]] == [1, 1, 1, 0, -1, 0, 0, 1, 1, 0, 0, 0]


def test_experiments_divide_users_independently() -> None:
    one, two = (an_experiment(5_000, name=name) for name in ("one", "two"))
    both = sum(arm_of(user, one) == arm_of(user, two) == 0 for user in USERS)
    assert abs(both / len(USERS) - 0.25) < 0.03


@given(st.integers(0, WHOLE), st.integers(0, WHOLE), st.text(max_size=20))
def test_user_stays_in_an_arm_that_grows(share: int, more: int, user: str) -> None:
    if arm_of(user, an_experiment(min(share, more))) == 0:
        assert arm_of(user, an_experiment(max(share, more))) == 0


def test_users_are_grouped_by_their_arms() -> None:
    plan = an_experiment(3_000, 3_000)
    grouped = by_arm(USERS, plan)
    assert sorted(user for users in grouped.values() for user in users) == sorted(USERS)
    assert all(arm_of(user, plan) == position for position, users in grouped.items() for user in users)


@given(steps)
def test_plans_stay_bounded_and_serve_what_was_warm(drawn: list[object]) -> None:
    plan = Plan()
    for command, warmth in commands_of(drawn):  # type: ignore[arg-type]
        before = set(plan.serving()) | {plan.previous}
        plan = carry_out(plan, command, warmth).plan
        assert set(plan.serving()) <= before | set(warmth.warm)
        assert len(plan.candidates) <= CANDIDATES_MAX and len(plan.answered) <= ANSWERS_KEPT
        assert sum(arm.share for arm in plan.arms) <= WHOLE and bool(plan.arms) == bool(plan.experiment)
        assert decode_plan(encode_plan(plan)) == plan


@given(steps)
def test_replay_of_carried_out_commands_changes_nothing(drawn: list[object]) -> None:
    plan, told = Plan(), commands_of(drawn)  # type: ignore[arg-type]
    for command, warmth in told:
        plan = carry_out(plan, command, warmth).plan
    for command, warmth in told:
        assert carry_out(plan, command, warmth).plan == plan


@given(steps)
def test_command_that_comes_twice_is_done_once_and_answered_alike(drawn: list[object]) -> None:
    plan, offset = Plan(), 0
    for command, warmth in commands_of(drawn):  # type: ignore[arg-type]
        first = carry_out(plan, msgspec.structs.replace(command, offset=offset), warmth)
        again = carry_out(first.plan, msgspec.structs.replace(command, offset=offset + 1), warmth)
        assert (again.plan, again.answer) == (first.plan, first.answer)
        plan, offset = first.plan, offset + 2


@given(steps)
def test_failed_version_serves_nobody_after_the_fall_back(drawn: list[object]) -> None:
    plan = Plan()
    for command, warmth in commands_of(drawn):  # type: ignore[arg-type]
        plan = carry_out(plan, command, warmth).plan
    for failed in [version for version in plan.serving() if version != DEFAULT]:
        plan = fall_back(plan, failed, ALL_WARM.warm)
        assert failed not in plan.named()
    assert plan.serving()[0] in VERSIONS


def test_requests_are_answered_when_their_versions_are_loaded_or_refused() -> None:
    plan = Plan()
    for offset, version in enumerate(VERSIONS[2:4]):
        plan = carry_out(
            plan, ModelCommand(1, version[-3:], "load", version, offset=offset), Warmth([DEFAULT], {})
        ).plan
    assert settle(plan, Warmth([DEFAULT], {})) == (plan, [])
    plan, answers = settle(plan, Warmth([DEFAULT, VERSIONS[2]], {VERSIONS[3]: "it is broken"}))
    assert [(one.outcome, one.reason) for one in answers] == [("loaded", ""), ("refused", "it is broken")]
    assert (plan.waiting(), plan.candidates) == ([], (VERSIONS[2],))


def done(plan: Plan, action: str, version: str = DEFAULT, warm: Warmth = ALL_WARM, **more: object) -> Plan:
    """The plan after a command that is carried out."""
    step = carry_out(plan, a_command(plan, action, version, **more), warm)
    assert step.answer.outcome in ("done", "loaded", "loading"), step.answer.reason
    return step.plan


def refusal(plan: Plan, action: str, version: str = DEFAULT, warm: Warmth = ALL_WARM, **more: object) -> str:
    """Why a command is refused, which changes nothing that is served or loaded."""
    step = carry_out(plan, a_command(plan, action, version, **more), warm)
    assert step.answer.outcome == "refused"
    assert msgspec.structs.replace(step.plan, offset=plan.offset, bucket=plan.bucket, answered=plan.answered) == plan
    return step.answer.reason


def a_command(plan: Plan, action: str, version: str, **more: object) -> ModelCommand:
    offset = plan.offset + 1
    return ModelCommand(1, f"request {offset}", action, version, offset=offset, **more)  # type: ignore[arg-type]


def a_shadow(version: str = B, share: int = WHOLE, **more: object) -> Plan:
    return Plan(shadow=version, shadow_share=share, shadow_experiment="try", **more)  # type: ignore[arg-type]


def test_version_that_fails_leaves_a_shadow_of_another_and_is_no_candidate_either() -> None:
    other = fall_back(a_shadow(B, active=A), A, ALL_WARM.warm)
    assert (other.shadow, other.shadow_share, other.active) == (B, WHOLE, DEFAULT)
    both = fall_back(a_shadow(B, candidates=(B, C)), B, ALL_WARM.warm)
    assert both.named() == [DEFAULT, C]


@pytest.mark.parametrize(("warm", "active"), [([DEFAULT, B], B), ([DEFAULT], DEFAULT)])
def test_fall_back_is_to_what_is_loaded(warm: list[str], active: str) -> None:
    plan = fall_back(Plan(active=A, previous=B), A, warm)
    assert (plan.active, plan.previous) == (active, "")


def test_version_in_use_is_no_candidate_and_each_is_one_once() -> None:
    plan = Plan(active=A, previous=B)
    for version in (A, B, DEFAULT):
        assert done(plan, "load", version).candidates == ()
    assert done(done(plan, "load", C), "load", C).candidates == (C,)
    assert done(Plan(candidates=(A, B)), "activate", A).candidates == (B,)


def test_active_version_activated_again_can_still_be_rolled_back() -> None:
    plan = done(Plan(active=A, previous=B), "activate", A)
    assert (plan.active, plan.previous) == (A, B)


def test_shadow_ends_with_the_version_that_it_is_compared_with_and_stays_loaded() -> None:
    for plan in (
        done(a_shadow(B, candidates=(A,)), "activate", A),
        done(a_shadow(B, active=C, previous=A), "rollback"),
    ):
        assert (plan.active, plan.shadow, plan.shadow_share, plan.shadow_experiment) == (A, "", 0, "")
        assert B in plan.candidates
    assert done(Plan(candidates=(A,)), "activate", A).candidates == ()


def test_shadow_ends_by_a_share_of_nothing() -> None:
    plan = done(a_shadow(B), "shadow", B, share=0)
    assert (plan.shadow, plan.candidates) == ("", (B,))


@pytest.mark.parametrize(
    ("version", "experiment", "warm", "why"),
    [
        (B, None, VERSIONS, "needs a name"),
        (A, "try", VERSIONS, "its own shadow"),
        (B, "try", [DEFAULT, A], "not loaded"),
        (C, "try", VERSIONS, "not loaded"),
    ],
)
def test_shadow_that_cannot_be_is_refused(version: str, experiment: str | None, warm: list[str], why: str) -> None:
    plan = Plan(active=A, candidates=(B,))
    assert why in refusal(plan, "shadow", version, Warmth(warm, {}), share=500, experiment=experiment)


def test_version_that_only_another_bucket_has_loaded_is_refused() -> None:
    assert "not loaded" in refusal(Plan(), "activate", A)


def test_return_to_a_version_that_is_not_loaded_is_refused() -> None:
    assert "not loaded" in refusal(Plan(active=A, previous=B), "rollback", warm=Warmth([DEFAULT, A], {}))
    assert "no previous" in refusal(Plan(), "rollback")


@pytest.mark.parametrize("plan", [Plan(), a_shadow(), an_experiment(5_000)])
@pytest.mark.parametrize("experiment", [None, "", "another"])
def test_end_of_no_experiment_under_way_is_refused(plan: Plan, experiment: str | None) -> None:
    assert "no experiment of this name" in refusal(plan, "end", experiment=experiment)


def test_versions_of_an_ended_experiment_are_candidates_unless_in_use() -> None:
    arms = (Arm("a", A, 10), Arm("b", B, 10), Arm("c", DEFAULT, 10))
    plan = Plan(active=A, experiment="test", arms=arms)
    assert done(plan, "end", experiment="test").candidates == (B,)


def test_arm_of_the_active_version_and_users_outside_are_not_tried() -> None:
    plan = Plan(active=A, experiment="test", arms=(Arm("a", A, 5_000), Arm("b", B, 5_000)))
    found = {trial_of(user, plan) for user in USERS[:50]}
    assert found == {None, Trial("test", "b", A, B)}
    shadow = a_shadow(B, 5_000, active=A)
    assert {trial_of(user, shadow) for user in USERS[:50]} == {None, Trial("try", SHADOW, A, B)}
    assert {trial_of(user, Plan(active=A)) for user in USERS[:50]} == {None}


PLAN = Plan(
    7,
    3,
    VERSIONS[2],
    ONLINE,
    "checkout",
    (Arm("a", VERSIONS[3], 500), Arm("b", DEFAULT, 9_500)),
    (VERSIONS[4],),
    (PlanAnswer("r1", "refused", "it is broken", VERSIONS[5]),),
)


def test_golden_bytes_are_read_and_written() -> None:
    assert decode_plan(GOLDEN.read_bytes()) == PLAN
    assert encode_plan(PLAN) == GOLDEN.read_bytes(), "state of this release differs: new version, State: line"


def test_plan_of_a_later_release_is_refused() -> None:
    with pytest.raises(SchemaError, match="plan of version 2"):
        decode_plan(b"\x02")
    assert decode_plan(None) == Plan()
