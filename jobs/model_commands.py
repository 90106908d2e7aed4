"""Rolls out models in the running job (`freshet model`): sends commands to every bucket, and reads their answers."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from adapters.kafka.job_session import JobSession
from jobs.clock import clock_ms
from jobs.settings import Settings
from schemas.control import WHOLE, Arm, BucketCommand, ModelAction, ModelCommand
from schemas.errors import ModelError
from schemas.model_versions import shortened
from schemas.receipts import ModelReceipt

LOADED_WITHIN_S: Final = 300.0
"""Fetching and opening a large model takes long; everything else takes a moment."""
CANARY: Final = "canary"
"""The name of its arm."""


class Rollout:
    """A session with the job of `settings`; a context manager."""

    def __init__(self, settings: Settings) -> None:
        self._session = JobSession(settings.kafka, settings.job.buckets, LOADED_WITHIN_S)

    def __enter__(self) -> "Rollout":
        self._session.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._session.__exit__(*raised)

    def ask(self, action: ModelAction, **fields: Any) -> list[ModelReceipt]:
        """The answers of all buckets to one command, by bucket."""
        answers = self._session.every_bucket(functools.partial(_command, action, fields), ModelReceipt)
        return sorted(answers, key=lambda answer: answer.bucket)

    def carry_out(self, action: ModelAction, versions: Iterable[str] = (), **fields: Any) -> list[ModelReceipt]:
        """Have all buckets load `versions`, and only when all have, carry out a command.

        Raises :class:`ModelError` if buckets refused, with their reasons; if they refused to load, nothing has changed.
        """
        for version in dict.fromkeys(versions):
            raise_if_refused(self.ask("load", version=version), "nothing was changed: ")
        return raise_if_refused(self.ask(action, **fields))


def _command(action: ModelAction, fields: dict[str, Any], bucket: int, request: str) -> BucketCommand:
    return ModelCommand(bucket, request, action, **fields)


def raise_if_refused(answers: list[ModelReceipt], so: str = "") -> list[ModelReceipt]:
    """`answers`; raises :class:`ModelError` if a bucket refused."""
    reasons: dict[str, list[int]] = {}
    for answer in answers:
        if answer.outcome == "refused":
            reasons.setdefault(answer.reason, []).append(answer.bucket)
    if reasons:
        told = "; ".join(f"{buckets_of(buckets, len(answers))} refused: {why}" for why, buckets in reasons.items())
        raise ModelError(so + told)
    return answers


def buckets_of(buckets: Sequence[int], of: int) -> str:
    """Buckets in words.

    >>> buckets_of([0, 1], 2), buckets_of([3], 4), buckets_of([1, 2], 4)
    ('all 2 buckets', 'bucket 3', 'buckets 1, 2')
    """
    if len(buckets) == of:
        return f"all {of} buckets"
    return f"bucket{'s' if len(buckets) > 1 else ''} {', '.join(map(str, buckets))}"


class Serving(NamedTuple):
    """What some buckets agree on."""

    active: str
    previous: str
    experiment: str
    arms: tuple[Arm, ...]
    warm: tuple[str, ...]
    shadow: str
    shadow_share: int


class Agreement(NamedTuple):
    """What is served, by which of the buckets; the model that the settings name is `default`."""

    default: str
    buckets: int
    serving: list[tuple[Serving, list[int]]]


def agreement(answers: Sequence[ModelReceipt]) -> Agreement:
    """Which buckets serve the same, the most first."""
    found: dict[Serving, list[int]] = {}
    for answer in answers:
        serving = Serving(
            answer.active,
            answer.previous,
            answer.experiment,
            answer.arms,
            answer.warm,
            answer.shadow,
            answer.shadow_share,
        )
        found.setdefault(serving, []).append(answer.bucket)
    return Agreement(answers[0].default, len(answers), sorted(found.items(), key=lambda one: -len(one[1])))


def described(found: Agreement) -> list[str]:
    """What is served, as lines of text."""
    lines = [f"default: {shortened(found.default)}, as the job's settings name it"]
    for serving, buckets in found.serving:
        lines.append(f"{buckets_of(buckets, found.buckets)}: {shortened(serving.active)} is active")
        if serving.previous:
            warm = "warm" if serving.previous in serving.warm else "not loaded"
            lines.append(f"  previous: {shortened(serving.previous)}, {warm}: `freshet model rollback` returns to it")
        if serving.arms:
            lines.append(f"  experiment {serving.experiment}:")
            lines += [
                f"    {arm.name}: {percent(arm.share)} of users, {shortened(arm.version)}" for arm in serving.arms
            ]
            rest = WHOLE - sum(arm.share for arm in serving.arms)
            lines.append(f"    no arm: {percent(rest)} of users, {shortened(serving.active)}")
        if serving.shadow:
            lines.append(f"  shadow: {percent(serving.shadow_share)} of users, {shortened(serving.shadow)}")
        others = set(serving.warm) - {
            serving.active,
            serving.previous,
            serving.shadow,
            *(arm.version for arm in serving.arms),
        }
        lines += [f"  loaded: {shortened(version)}" for version in sorted(others)]
    if len(found.serving) > 1:
        lines.append("the buckets differ: send the last command again")
    return lines


def percent(share: int) -> str:
    """A share in percent.

    >>> percent(10_000), percent(5), percent(1250)
    ('100 %', '0.05 %', '12.5 %')
    """
    return f"{share / WHOLE * 100:g} %"


def experiment_of(version: str) -> str:
    """The experiment of a canary: each version has its own users.

    >>> experiment_of("shop.v2/" + "ab" * 32), experiment_of("online")
    ('canary-abababababab', 'canary-online')
    """
    return f"{CANARY}-{shortened(version).rpartition('/')[2]}"


def shadow_name(version: str) -> str:
    """The experiment of a shadow that begins now: another one of the same version counts anew."""
    return f"shadow-{shortened(version).rpartition('/')[2]}-{clock_ms()}"


def share_of(percentage: float) -> int:
    """The share that is `percentage` percent of the users."""
    return round(percentage / 100 * WHOLE)


def arm_in(text: str) -> tuple[str, str, float]:
    """Name, version and percentage of the arm in NAME=VERSION:PERCENT.

    >>> arm_in("new=shop/1a2b:12.5")
    ('new', 'shop/1a2b', 12.5)
    """
    name, _, rest = text.partition("=")
    version, _, percentage = rest.rpartition(":")
    try:
        return name, version, float(percentage)
    except ValueError:
        raise ModelError(f"{text!r} is not an arm: write NAME=VERSION:PERCENT") from None


def checked_arm(name: str, version: str, percentage: float) -> Arm:
    """An arm; raises :class:`ModelError` if its name or share is invalid."""
    try:
        return msgspec.convert([name, version, share_of(percentage)], Arm)
    except msgspec.ValidationError as error:
        raise ModelError(f"arm {name!r} of {percentage:g} % is invalid: {error}") from None
