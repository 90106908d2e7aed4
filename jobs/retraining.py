"""Retrains a model when lists get worse, and proposes it: as a shadow, then, if it is better, as a canary.

A process of its own (`freshet model retrain --watch`): training takes minutes, and must not take them from the job.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import msgspec

from adapters.kafka.settings import KafkaSettings
from adapters.kafka.settled_topic import Tail
from jobs.clock import clock_ms
from jobs.model_commands import CANARY, Rollout, checked_arm, experiment_of, shadow_name, share_of
from jobs.settings import Settings
from schemas import topics
from schemas.errors import FreshetError
from schemas.model_versions import shortened
from schemas.receipts import DriftReceipt, TrialReceipt
from schemas.topics import DAY_MS, HOUR_MS

POLL_S: Final = 5.0
Train = Callable[[], str]
"""Trains and pushes a model; returns its version. Raises a :class:`FreshetError` if it cannot."""
Say = Callable[[str], None]


class RetrainRules(NamedTuple):
    """When to retrain: after `alarms_min` alarms of drift within `within_ms`, at most once in `every_ms`.

    It is armed again only after `calm_ms` without an alarm.
    """

    alarms_min: int = 2
    within_ms: int = 6 * HOUR_MS
    every_ms: int = DAY_MS
    calm_ms: int = HOUR_MS


class RetrainTrigger:
    """Decides when to retrain. Times are in ms, and only go forward. `trained_at` is when that was last done."""

    def __init__(self, rules: RetrainRules, trained_at: int = 0) -> None:
        self._rules, self._trained_at = rules, trained_at
        self._alarms: list[int] = []
        self._last_alarm, self._is_armed = 0, True

    def alarm(self, at: int) -> None:
        """Something has drifted."""
        self._rearm(at)
        self._last_alarm = max(self._last_alarm, at)
        self._alarms = [*self._alarms[-self._rules.alarms_min + 1 :], at]

    def is_due(self, now: int) -> bool:
        """Whether to retrain now; it then counts as done."""
        rules = self._rules
        self._rearm(now)
        recent = [at for at in self._alarms if at > now - rules.within_ms]
        if not self._is_armed or len(recent) < rules.alarms_min or now - self._trained_at < rules.every_ms:
            return False
        self._trained_at, self._alarms, self._is_armed = now, [], False
        return True

    def _rearm(self, now: int) -> None:
        if now - self._last_alarm >= self._rules.calm_ms:
            self._is_armed = True


def trained_at(folder: Path) -> int:
    """When the model in `folder` was written, in ms; 0 if there is none. So a restart does not retrain too soon."""
    manifest = folder / "manifest.json"
    return int(manifest.stat().st_mtime * 1000) if manifest.exists() else 0


class Proposing(Protocol):
    """Sends commands to the job: :class:`jobs.model_commands.Rollout` is one."""

    def carry_out(self, action: str, versions: Iterable[str] = (), **fields: object) -> object: ...  # noqa: D102


class Retrainer:
    """Follows the records of `metrics`. `percent` of the users are in a shadow, and in a canary."""

    def __init__(
        self, trigger: RetrainTrigger, train: Train, open_rollout: Callable[[], Proposing], percent: float, say: Say
    ) -> None:
        self._trigger, self._train, self._open, self._percent, self._say = trigger, train, open_rollout, percent, say
        self._version, self._experiment = "", ""

    def note(self, value: bytes) -> None:
        """Take a record of `metrics`; others than alarms and trials say nothing."""
        try:
            receipt = msgspec.json.decode(value, type=DriftReceipt | TrialReceipt)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return
        if isinstance(receipt, DriftReceipt):
            self._say(f"drift of {receipt.what} {receipt.model}: {receipt.before:g}, now {receipt.now:g}")
            self._trigger.alarm(receipt.at)
        elif receipt.experiment == self._experiment and receipt.verdict != "undecided":
            self._decide(receipt)

    def turn(self, now: int) -> None:
        """Retrain if it is due, and propose the model as a shadow."""
        if self._trigger.is_due(now):
            self.propose()

    def propose(self) -> None:
        """Train a model, and have it rank in shadow. What fails is said, and tried again when it is due again."""
        try:
            version = self._train()
            experiment = shadow_name(version)
            fields = {"version": version, "share": share_of(self._percent), "experiment": experiment}
            self._command("shadow", [version], **fields)
        except FreshetError as error:
            self._say(f"no model is proposed: {error}")
            return
        self._version, self._experiment = version, experiment
        self._say(f"{shortened(version)} ranks in shadow for {self._percent:g} % of the users")

    def _decide(self, receipt: TrialReceipt) -> None:
        version, self._experiment = self._version, ""
        if receipt.verdict == "worse":
            self._say(f"{shortened(version)} is worse than the active model: its shadow has ended")
            return
        try:
            arm = checked_arm(CANARY, version, self._percent)
            self._command("canary", [version], arms=(arm,), experiment=experiment_of(version))
        except FreshetError as error:
            self._say(f"{shortened(version)} is better, but no canary: {error}")
            return
        self._say(f"{shortened(version)} is better: it serves {self._percent:g} % of the users as a canary")

    def _command(self, action: str, versions: list[str], **fields: object) -> None:
        with self._open() as rollout:  # type: ignore[attr-defined]
            rollout.carry_out(action, versions, **fields)


def watch(settings: Settings, retrainer: Retrainer) -> None:
    """Follow `metrics` until the process is ended."""
    tail = _tail(settings.kafka)
    try:
        while True:
            for record in tail.records(POLL_S):
                retrainer.note(record.value or b"")
            retrainer.turn(clock_ms())
    finally:
        tail.close()


def _tail(kafka: KafkaSettings) -> Tail:
    return Tail(kafka, topics.METRICS)


def rollout_of(settings: Settings) -> Callable[[], Proposing]:
    """What opens a session with the job for each command."""
    return lambda: Rollout(settings)  # type: ignore[return-value]
