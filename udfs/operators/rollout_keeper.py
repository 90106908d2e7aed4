"""Keeps the plan of each bucket in Flink's keyed state, ranks by it, and answers the commands of a roll-out."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

import msgspec
from pyflink.common import Types
from pyflink.datastream import RuntimeContext
from pyflink.datastream.state import ValueStateDescriptor

from schemas.control import ModelCommand
from schemas.model_versions import DEFAULT, shortened
from schemas.receipts import ModelOutcome, ModelReceipt, encode_receipt
from schemas.store import ListWrite
from udfs.elements import EventRecord
from udfs.operators.meters import ModelLevels
from udfs.operators.model_shelf import ModelShelf
from udfs.operators.outputs import RECEIPTS
from udfs.operators.timers import register_end_of
from udfs.ranking import ListModel, PopularItems, Ranker
from udfs.rollout import (
    LOADING,
    Plan,
    PlanAnswer,
    Trial,
    by_arm,
    carry_out,
    decode_plan,
    encode_plan,
    fall_back,
    settle,
    trial_of,
)
from udfs.shadow import Moment, Shadowing, compare, encode_trials
from udfs.state import UserState

ASK_EVERY_MS: Final = 50
"""How often a bucket looks whether a model is loaded."""
RESTORED_WITHIN_S: Final = 20.0
"""How long the first element after a restore waits for the models of the plan."""
logger = logging.getLogger(__name__)


class Turn:
    """What happens to the plan of a bucket during one element or timer."""

    def __init__(self, plan: Plan) -> None:
        self.plan = self.stored = plan
        self.receipts: list[ModelReceipt] = []


class RolloutKeeper:
    """The plans of a worker's buckets. Only this operator changes them, so each is read from state once."""

    def __init__(
        self,
        context: RuntimeContext,
        shelf: ModelShelf,
        ranker: Ranker,
        fell_back: Callable[[], None],
        serving: ModelLevels,
    ) -> None:
        self._state = context.get_state(ValueStateDescriptor("rollout-v1", Types.PICKLED_BYTE_ARRAY()))
        self._shelf, self._ranker, self._count_fall_back, self._serving = shelf, ranker, fell_back, serving
        self._plans: dict[Any, Plan] = {}

    def begin(self, ctx: Any, now_ms: int) -> Turn:
        """Before an element or a timer: continue with the plan that is stored."""
        key = ctx.get_current_key()
        plan = self._plans.get(key)
        if plan is not None:
            return Turn(plan)
        turn = Turn(decode_plan(self._state.value()))
        self._plans[key] = turn.plan
        self._resume(turn, now_ms)
        self._serving.serve(key, self._in_service(turn))
        return turn

    def model(self, turn: Turn) -> ListModel:
        """The model that serves the users who are in no arm."""
        return self._shelf[turn.plan.active]

    def _in_service(self, turn: Turn) -> str:
        """The active model as a label: without the sequence of an online one, which changes each second."""
        return shortened(self.model(turn).name).partition("@")[0]

    def rank(
        self,
        turns: Sequence[tuple[Turn, Mapping[str, UserState]]],
        popular: PopularItems,
        now_ms: int,
        list_ttl_ms: int,
    ) -> list[list[ListWrite]]:
        """For each bucket, a list for each of its users, by its plan.

        Each model ranks the users of all buckets at once. A model that fails falls back, and they are ranked again.
        """
        self._replace_unfit(turns, now_ms)
        lists = self._ranked(turns, popular, now_ms, list_ttl_ms)
        while self._replace_unfit(turns, now_ms):
            lists = self._ranked(turns, popular, now_ms, list_ttl_ms)
        return lists

    def shadowing(self, turn: Turn) -> Shadowing | None:
        """Collects what the next element tries; None if no trial is under way."""
        plan = turn.plan
        if not plan.shadow and not plan.arms:
            return None
        return Shadowing(lambda pseudonym: trial_of(pseudonym, plan) is not None, self._ranker.rules)

    def compared(self, turn: Turn, shadowing: Shadowing | None, accepted: Sequence[EventRecord], now_ms: int) -> bytes:
        """How the models of each trial compare at the moments of users whose events were `accepted` in the end."""
        if shadowing is None:
            return b""
        trials: dict[Trial, list[Moment]] = {}
        for moment in shadowing.moments({event.pseudonym for event in accepted}):
            if (trial := trial_of(moment.pseudonym, turn.plan)) is not None:
                trials.setdefault(trial, []).append(moment)
        found = {}
        for trial, moments in trials.items():
            if not self._shelf.unfit([trial.served, trial.other]):
                models = self._shelf[trial.served], self._shelf[trial.other]
                counts = compare(*models, moments, self._ranker.rules, now_ms)
                if counts is not None:
                    found[trial] = counts
        return encode_trials(found) if found else b""

    def _ranked(
        self,
        turns: Sequence[tuple[Turn, Mapping[str, UserState]]],
        popular: PopularItems,
        now_ms: int,
        list_ttl_ms: int,
    ) -> list[list[ListWrite]]:
        together: dict[tuple[str, str], dict[str, UserState]] = {}
        bucket_of: dict[str, int] = {}
        for number, (turn, users) in enumerate(turns):
            bucket_of |= dict.fromkeys(users, number)
            for served_by, mine in _by_model(turn.plan, users).items():
                together.setdefault(served_by, {}).update(mine)
        lists: list[list[ListWrite]] = [[] for _ in turns]
        for (version, arm), users in together.items():
            for write in self._ranker.rank(users, popular, self._shelf[version], now_ms, list_ttl_ms, arm):
                lists[bucket_of[write.pseudonym]].append(write)
        return lists

    def _replace_unfit(self, turns: Sequence[tuple[Turn, Mapping[str, UserState]]], now_ms: int) -> bool:
        """Fall back from the versions that cannot serve, or do it badly; whether there were any."""
        found = False
        for turn, _ in turns:
            unfit = self._shelf.unfit(filter(None, [*turn.plan.serving(), turn.plan.shadow]))
            for version, reason in unfit.items():
                self._fall_back(turn, version, reason, now_ms)
            found = found or bool(unfit)
        return found

    def execute(self, turn: Turn, commands: Sequence[Any], now_ms: int) -> None:
        """Carry out the roll-out commands among `commands`."""
        for command in commands:
            if isinstance(command, ModelCommand):
                self._execute(turn, self._with_default(command), now_ms)

    def _execute(self, turn: Turn, command: ModelCommand, now_ms: int) -> None:
        step = carry_out(turn.plan, command, self._shelf.view())
        turn.plan = step.plan
        if command.action == "load" and not step.repeated:
            self._shelf.want(command.version)
        if step.answer.outcome != LOADING:
            self._answer(turn, step.answer, command.action, command.bucket, now_ms)

    def settle(self, turn: Turn, now_ms: int) -> None:
        """At a timer: answer requests whose versions are loaded by now, or cannot be."""
        if not turn.plan.waiting():
            return
        turn.plan, settled = settle(turn.plan, self._shelf.view())
        for one in settled:
            self._answer(turn, one, "load", turn.plan.bucket, now_ms)

    def put(self, turn: Turn, ctx: Any) -> Iterator[Any]:
        """Store the plan if it has changed; yields receipts."""
        plan = turn.plan
        if plan is not turn.stored:
            self._plans[ctx.get_current_key()] = turn.stored = plan
            self._state.update(encode_plan(plan))
            self._serving.serve(ctx.get_current_key(), self._in_service(turn))
            self._shelf.keep({version for one in self._plans.values() for version in one.named()})
        if plan.answered and plan.waiting():
            register_end_of(ASK_EVERY_MS, ctx)
        for receipt in turn.receipts:
            yield RECEIPTS, encode_receipt(receipt)

    def _resume(self, turn: Turn, now_ms: int) -> None:
        """After a restore: load what the plan names, and wait for what makes lists."""
        for version in turn.plan.named():
            self._shelf.want(version)
        deadline_s = time.monotonic() + RESTORED_WITHIN_S

        def is_warm(version: str) -> bool:
            return self._shelf.wait_for(version, deadline_s - time.monotonic())

        for version in turn.plan.serving():
            if not is_warm(version):
                is_warm(turn.plan.previous)
                self._fall_back(turn, version, self._shelf.view().refused.get(version, ""), now_ms)

    def _fall_back(self, turn: Turn, version: str, reason: str, now_ms: int) -> None:
        turn.plan = fall_back(turn.plan, version, self._shelf.view().warm)
        self._count_fall_back()
        logger.error("model %s: %s: its users get lists by %s", shortened(version), reason, turn.plan.active)
        answer = PlanAnswer("", "fell_back", reason, version)
        self._answer(turn, answer, "fall_back", turn.plan.bucket, now_ms)

    def _with_default(self, command: ModelCommand) -> ModelCommand:
        """`command` with the model that the settings name as `default`, however it is called."""

        def named(version: str) -> str:
            return DEFAULT if version == self._shelf.default else version

        arms = tuple(msgspec.structs.replace(arm, version=named(arm.version)) for arm in command.arms)
        return msgspec.structs.replace(command, version=named(command.version), arms=arms)

    def _answer(self, turn: Turn, answer: PlanAnswer, action: str, bucket: int, now_ms: int) -> None:
        plan, warm = turn.plan, self._shelf.view().warm
        turn.receipts.append(
            ModelReceipt(
                answer.request,
                bucket,
                action,
                answer.version,
                cast(ModelOutcome, answer.outcome),
                now_ms,
                answer.reason,
                plan.active,
                plan.previous,
                plan.experiment,
                plan.arms,
                tuple(version for version in plan.named() if version in warm),
                self._shelf.default,
                plan.shadow,
                plan.shadow_share,
                plan.shadow_experiment,
            )
        )


def _by_model(plan: Plan, users: Mapping[str, UserState]) -> dict[tuple[str, str], Mapping[str, UserState]]:
    """The users of a bucket by the version that serves them, and the name of their arm, "" for none."""
    if not plan.arms:
        return {(plan.active, ""): users}
    found: dict[tuple[str, str], Mapping[str, UserState]] = {}
    for position, names in by_arm(users, plan).items():
        served_by = (plan.active, "") if position < 0 else (plan.arms[position].version, plan.arms[position].name)
        found[served_by] = {name: users[name] for name in names}
    return found
