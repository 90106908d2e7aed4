"""Rolling out models: which model makes whose lists, and what a command changes about that. Pure.

The plan of a bucket is kept in its state, so that a restore resumes it. A command is carried out once, in the order of
`control`: its offset must be above that of the last one, and a request that was answered gets the same answer again.
"""

from collections.abc import Collection, Iterable, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec

from schemas.control import WHOLE, Arm, ModelCommand
from schemas.errors import SchemaError
from schemas.model_versions import DEFAULT, shortened
from schemas.receipts import ModelOutcome

CANDIDATES_MAX: Final = 2
ANSWERS_KEPT: Final = 8
SHADOW: Final = "shadow"
"""What the trial of a shadow has in place of an arm."""
LOADING: Final = "loading"
"""The outcome of a request that is not answered yet."""


class PlanAnswer(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A request, its outcome and the reason; `loading` if it waits for `version`."""

    request: str
    outcome: str
    reason: str
    version: str


class Plan(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What `bucket` serves. `offset` is that of the last command in `control` that it has carried out.

    `candidates` are loaded or being loaded, to be activated later; oldest first. `shadow` ranks beside the active
    version, for `shadow_share` of the users, and serves nobody.
    """

    offset: int = -1
    bucket: int = 0
    active: str = DEFAULT
    previous: str = ""
    experiment: str = ""
    arms: tuple[Arm, ...] = ()
    candidates: tuple[str, ...] = ()
    answered: tuple[PlanAnswer, ...] = ()
    shadow: str = ""
    shadow_share: int = 0
    shadow_experiment: str = ""

    def serving(self) -> list[str]:
        """The versions that make lists, the active one first."""
        return list(dict.fromkeys([self.active, *(arm.version for arm in self.arms)]))

    def named(self) -> list[str]:
        """The versions that are to stay loaded."""
        return list(dict.fromkeys(filter(None, [*self.serving(), self.previous, self.shadow, *self.candidates])))

    def waiting(self) -> list[PlanAnswer]:
        """The requests that wait for a version."""
        return [one for one in self.answered if one.outcome == LOADING]


class Trial(NamedTuple):
    """`other` is compared with the active version `served`, in `arm` of `experiment`."""

    experiment: str
    arm: str
    served: str
    other: str


class Warmth(NamedTuple):
    """What can be served at once, and why the versions that could not be loaded could not."""

    warm: Collection[str]
    refused: dict[str, str]


class PlanStep(NamedTuple):
    """The plan after a command, and its answer; `repeated` if nothing was done, because it was answered before."""

    plan: Plan
    answer: PlanAnswer
    repeated: bool = False


def carry_out(plan: Plan, command: ModelCommand, shelf: Warmth) -> PlanStep:
    """Carry out a command, or refuse it."""
    if command.action == "status":
        return PlanStep(plan, _answer(command, "done"))
    for one in plan.answered:
        if one.request == command.request:
            return PlanStep(plan, one, repeated=True)
    if command.offset <= plan.offset:
        return PlanStep(
            plan, _answer(command, "refused", "a later command has been carried out already"), repeated=True
        )
    after, answer = _STEPS[command.action](plan, command, shelf)
    after = msgspec.structs.replace(after, offset=command.offset, bucket=command.bucket)
    return PlanStep(_noted(after, answer), answer)


def settle(plan: Plan, shelf: Warmth) -> tuple[Plan, list[PlanAnswer]]:
    """Answer the requests whose versions are loaded by now, or cannot be."""
    settled = []
    for one in plan.waiting():
        if one.version in shelf.warm:
            settled.append(msgspec.structs.replace(one, outcome="loaded"))
        elif one.version in shelf.refused:
            settled.append(msgspec.structs.replace(one, outcome="refused", reason=shelf.refused[one.version]))
            plan = _without_candidate(plan, one.version)
    for one in settled:
        plan = _noted(plan, one)
    return plan, settled


def fall_back(plan: Plan, failed: str, warm: Collection[str]) -> Plan:
    """The plan without a version that has failed: users return to the active one, all to the previous or default."""
    if plan.shadow == failed:
        plan = msgspec.structs.replace(plan, shadow="", shadow_share=0, shadow_experiment="")
    arms = tuple(arm for arm in plan.arms if arm.version != failed)
    experiment = plan.experiment if arms else ""
    previous = "" if plan.previous == failed else plan.previous
    plan = msgspec.structs.replace(
        _without_candidate(plan, failed), arms=arms, experiment=experiment, previous=previous
    )
    if plan.active != failed:
        return plan
    return msgspec.structs.replace(plan, active=previous if previous in warm else DEFAULT, previous="")


def arm_of(pseudonym: str, plan: Plan) -> int:
    """The position of the user's arm in the plan; -1 for none.

    The salt is the experiment's name: another experiment divides users independently of this one.
    """
    place, end = _place(plan.experiment, pseudonym), 0
    for position, arm in enumerate(plan.arms):
        end += arm.share
        if place < end:
            return position
    return -1


def _place(experiment: str, pseudonym: str) -> int:
    digest = blake2b(f"{experiment}\n{pseudonym}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) % WHOLE


def trial_of(pseudonym: str, plan: Plan) -> Trial | None:
    """What is tried on this user: the version of their arm, or else the shadow; None if nothing is."""
    position = arm_of(pseudonym, plan) if plan.arms else -1
    if position >= 0:
        arm = plan.arms[position]
        return Trial(plan.experiment, arm.name, plan.active, arm.version) if arm.version != plan.active else None
    if plan.shadow and _place(plan.shadow_experiment, pseudonym) < plan.shadow_share:
        return Trial(plan.shadow_experiment, SHADOW, plan.active, plan.shadow)
    return None


def by_arm(pseudonyms: Iterable[str], plan: Plan) -> dict[int, list[str]]:
    """The users of each arm, by its position; those in none are at -1."""
    found: dict[int, list[str]] = {}
    for pseudonym in pseudonyms:
        found.setdefault(arm_of(pseudonym, plan), []).append(pseudonym)
    return found


def _load(plan: Plan, command: ModelCommand, shelf: Warmth) -> tuple[Plan, PlanAnswer]:
    wanted = command.version
    in_use = {*plan.serving(), plan.previous, DEFAULT}
    candidates = tuple(one for one in plan.candidates if one != wanted and one not in in_use)
    if wanted not in in_use:
        candidates = (*candidates[-CANDIDATES_MAX + 1 :], wanted)
    outcome = "loaded" if wanted in shelf.warm else LOADING
    return msgspec.structs.replace(plan, candidates=candidates), _answer(command, outcome)


def _activate(plan: Plan, command: ModelCommand, shelf: Warmth) -> tuple[Plan, PlanAnswer]:
    wanted = command.version
    if reason := _why_not([wanted], plan, shelf):
        return plan, _answer(command, "refused", reason)
    previous = plan.previous if wanted == plan.active else plan.active
    candidates = tuple(one for one in plan.candidates if one != wanted)
    after = msgspec.structs.replace(
        plan, active=wanted, previous=previous, arms=(), experiment="", candidates=candidates
    )
    return _without_shadow(after), _answer(command, "done")


def _experiment(plan: Plan, command: ModelCommand, shelf: Warmth) -> tuple[Plan, PlanAnswer]:
    """Begin, change or, without arms, end an experiment; its versions stay loaded as candidates."""
    arms = tuple(arm for arm in command.arms if arm.share)
    if reason := _why_not_divided(arms, command) or _why_not([arm.version for arm in arms], plan, shelf):
        return plan, _answer(command, "refused", reason)
    ended = [arm.version for arm in plan.arms]
    after = msgspec.structs.replace(plan, arms=arms, experiment=(command.experiment or "") if arms else "")
    return _with_candidates(after, ended), _answer(command, "done")


def _rollback(plan: Plan, command: ModelCommand, shelf: Warmth) -> tuple[Plan, PlanAnswer]:
    """End the experiment, if there is one; else return to the previous version. What is left stays loaded."""
    if plan.arms:
        ended = [arm.version for arm in plan.arms]
        return _with_candidates(msgspec.structs.replace(plan, arms=(), experiment=""), ended), _answer(command, "done")
    if not plan.previous:
        return plan, _answer(command, "refused", "there is no previous version to return to")
    if reason := _why_not([plan.previous], plan, shelf):
        return plan, _answer(command, "refused", reason)
    after = _without_shadow(msgspec.structs.replace(plan, active=plan.previous, previous=""))
    return _with_candidates(after, [plan.active]), _answer(command, "done")


def _shadow(plan: Plan, command: ModelCommand, shelf: Warmth) -> tuple[Plan, PlanAnswer]:
    """Begin, change or, without a share, end a shadow; its version stays loaded as a candidate."""
    if not command.share:
        return _without_shadow(plan), _answer(command, "done")
    if not command.experiment:
        return plan, _answer(command, "refused", "an experiment needs a name")
    if command.version == plan.active:
        return plan, _answer(command, "refused", "this version is active: it cannot be its own shadow")
    if reason := _why_not([command.version], plan, shelf):
        return plan, _answer(command, "refused", reason)
    fields = {"shadow": command.version, "shadow_share": command.share, "shadow_experiment": command.experiment}
    return msgspec.structs.replace(_without_shadow(plan), **fields), _answer(command, "done")


def _end(plan: Plan, command: ModelCommand, shelf: Warmth) -> tuple[Plan, PlanAnswer]:
    """End the experiment of this name, if it is under way: the judge may say so twice, or late."""
    if command.experiment and command.experiment == plan.shadow_experiment:
        return _without_shadow(plan), _answer(command, "done")
    if command.experiment and command.experiment == plan.experiment:
        ended = [arm.version for arm in plan.arms]
        return _with_candidates(msgspec.structs.replace(plan, arms=(), experiment=""), ended), _answer(command, "done")
    return plan, _answer(command, "refused", "no experiment of this name is under way")


_STEPS: Final = {
    "load": _load,
    "activate": _activate,
    "canary": _experiment,
    "arms": _experiment,
    "shadow": _shadow,
    "end": _end,
    "rollback": _rollback,
}


def _why_not(versions: Sequence[str], plan: Plan, shelf: Warmth) -> str:
    """Why `versions` cannot serve; "" if they can."""
    named = {*plan.named(), DEFAULT}
    cold = next((one for one in versions if one not in shelf.warm or one not in named), None)
    return "" if cold is None else f"{shortened(cold)} is not loaded: load it first"


def _why_not_divided(arms: Sequence[Arm], command: ModelCommand) -> str:
    if arms and not command.experiment:
        return "an experiment needs a name"
    if len({arm.name for arm in arms}) != len(arms):
        return "two arms have the same name"
    return "the shares of the arms exceed 100 %" if sum(arm.share for arm in arms) > WHOLE else ""


def _answer(command: ModelCommand, outcome: ModelOutcome | str, reason: str = "") -> PlanAnswer:
    return PlanAnswer(command.request, outcome, reason, command.version)


def _noted(plan: Plan, answer: PlanAnswer) -> Plan:
    """With the answer, for when the request comes again."""
    others = [one for one in plan.answered if one.request != answer.request]
    return msgspec.structs.replace(plan, answered=(*others[-ANSWERS_KEPT + 1 :], answer))


def _with_candidates(plan: Plan, versions: Iterable[str]) -> Plan:
    in_use = {*plan.serving(), plan.previous, DEFAULT}
    wanted = [*(one for one in plan.candidates if one not in versions), *versions]
    kept = [one for one in dict.fromkeys(wanted) if one not in in_use]
    return msgspec.structs.replace(plan, candidates=tuple(kept[-CANDIDATES_MAX:]))


def _without_shadow(plan: Plan) -> Plan:
    ended = [plan.shadow] if plan.shadow else []
    return _with_candidates(msgspec.structs.replace(plan, shadow="", shadow_share=0, shadow_experiment=""), ended)


def _without_candidate(plan: Plan, version: str) -> Plan:
    return msgspec.structs.replace(plan, candidates=tuple(one for one in plan.candidates if one != version))


PLAN_VERSION: Final = 1
_HEAD: Final = bytes([PLAN_VERSION])
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Plan)


def encode_plan(plan: Plan) -> bytes:
    """Encode a plan for `rollout-v1`: a version byte, then MessagePack."""
    return _HEAD + _encoder.encode(plan)


def decode_plan(raw: bytes | None) -> Plan:
    """Decode a plan; for None, that of a bucket in which nothing was rolled out. Raises :class:`SchemaError`."""
    if raw is None:
        return Plan()
    if raw[:1] != _HEAD:
        raise SchemaError(f"plan of version {raw[0]}, this release reads {PLAN_VERSION}: upgrade step by step")
    return _decoder.decode(memoryview(raw)[1:])
