"""When a model is retrained, and how it is proposed."""

from typing import Any

import msgspec
import pytest

from jobs.retraining import Retrainer, RetrainRules, RetrainTrigger
from schemas.control import WHOLE, Arm
from schemas.errors import ModelError
from schemas.model_versions import Version
from schemas.receipts import DriftReceipt, TrialReceipt, TrialVerdict
from tests.support.vocabulary import BEGINNING, DAY, HOUR, MINUTE

VERSION = str(Version("shop", "a" * 64))
RULES = RetrainRules(alarms_min=2, within_ms=6 * HOUR, every_ms=DAY, calm_ms=HOUR)


def test_one_alarm_is_not_enough_and_two_are() -> None:
    trigger = RetrainTrigger(RULES)
    trigger.alarm(BEGINNING)
    assert not trigger.is_due(BEGINNING)
    trigger.alarm(BEGINNING + MINUTE)
    assert trigger.is_due(BEGINNING + MINUTE)
    assert not trigger.is_due(BEGINNING + MINUTE), "once"


def test_alarms_far_apart_do_not_add_up() -> None:
    trigger = RetrainTrigger(RULES)
    trigger.alarm(BEGINNING)
    trigger.alarm(BEGINNING + 7 * HOUR)
    assert not trigger.is_due(BEGINNING + 7 * HOUR)


def test_retraining_has_a_bounded_rate_also_across_restarts() -> None:
    trigger = RetrainTrigger(RULES, trained_at=BEGINNING - HOUR)
    for minute in range(23 * 60):
        trigger.alarm(BEGINNING + minute * MINUTE)
        assert not trigger.is_due(BEGINNING + minute * MINUTE)
    trigger.alarm(BEGINNING + 23 * HOUR)
    assert trigger.is_due(BEGINNING + 23 * HOUR)


def test_alarms_that_never_stop_retrain_once() -> None:
    trigger, fired = RetrainTrigger(RULES), 0
    for minute in range(5 * 24 * 60):
        trigger.alarm(BEGINNING + minute * MINUTE)
        fired += trigger.is_due(BEGINNING + minute * MINUTE)
    assert fired == 1, "retraining did not help: only calm arms it again"


class Job:
    """Notes commands; refuses them all if told so."""

    def __init__(self) -> None:
        self.commands: list[tuple[str, dict[str, Any]]] = []
        self.refuses = False

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *raised: object) -> None:
        pass

    def carry_out(self, action: str, versions: Any = (), **fields: Any) -> None:
        if self.refuses:
            raise ModelError("bucket 1 refused")
        self.commands.append((action, fields))


def a_trial(experiment: str, verdict: TrialVerdict) -> bytes:
    return msgspec.json.encode(
        TrialReceipt(experiment, "default", VERSION, 10, 0.1, 0.0, -0.1, 0.1, verdict, BEGINNING)
    )


def a_retrainer(job: Job, said: list[str], train: Any = lambda: VERSION) -> Retrainer:
    return Retrainer(RetrainTrigger(RULES), train, lambda: job, 20, said.append)


def test_drift_leads_to_a_shadow_and_a_better_model_to_a_canary() -> None:
    job, said = Job(), []
    retrainer = a_retrainer(job, said)
    for minute in range(2):
        drift = DriftReceipt("ctr", "online", "", 0.05, 0.03, BEGINNING + minute * MINUTE)
        retrainer.note(msgspec.json.encode(drift))
    retrainer.turn(BEGINNING + 2 * MINUTE)
    [(action, fields)] = job.commands
    assert (action, fields["version"], fields["share"]) == ("shadow", VERSION, WHOLE // 5)
    retrainer.note(a_trial("shadow-of-another", "better"))
    retrainer.note(a_trial(fields["experiment"], "undecided"))
    assert len(job.commands) == 1
    retrainer.note(a_trial(fields["experiment"], "better"))
    retrainer.note(a_trial(fields["experiment"], "better"))
    [_, (action, fields)] = job.commands
    assert (action, fields["arms"]) == ("canary", (Arm("canary", VERSION, WHOLE // 5),))


def test_a_worse_model_is_not_proposed_further() -> None:
    job, said = Job(), []
    retrainer = a_retrainer(job, said)
    retrainer.propose()
    retrainer.note(a_trial(job.commands[0][1]["experiment"], "worse"))
    assert len(job.commands) == 1
    assert "worse" in said[-1]


def test_what_fails_is_said_and_ends_nothing() -> None:
    job, said = Job(), []
    job.refuses = True
    a_retrainer(job, said).propose()
    assert said == ["no model is proposed: bucket 1 refused"]

    def fail() -> str:
        raise ModelError("there are no interactions")

    a_retrainer(job, said, fail).propose()
    assert said[-1] == "no model is proposed: there are no interactions"


@pytest.mark.parametrize("raw", [b"", b"\xff", b"{}", b'{"kind":"feedback","at":1}', b"[" * 10_000])
def test_other_records_say_nothing(raw: bytes) -> None:
    job, said = Job(), []
    a_retrainer(job, said).note(raw)
    assert (job.commands, said) == ([], [])
