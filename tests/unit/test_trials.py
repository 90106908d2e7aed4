"""What `freshet model status` says of a trial."""

import re

import numpy as np
import pytest

from evaluation.bootstrap import USERS_MIN, difference
from evaluation.study import sentence
from jobs.trials import described_trials
from schemas.receipts import TrialReceipt


def said(gain: float, difference: float, low: float, high: float) -> str:
    receipt = TrialReceipt("shadow", "default", "shop/" + "a" * 64, 3, gain, difference, low, high, "undecided", 0)
    return described_trials([receipt])[1]


@pytest.mark.parametrize(
    ("gain", "low", "high"), [(0.0, -0.09, 0.97), (1e-5, -0.99719, 0.9), (0.2, -1.0, 1.0), (0.01, -0.02, 0.9)]
)
def test_few_lists_give_no_senseless_share(gain: float, low: float, high: float) -> None:
    """`-99719000000.0%` was printed."""
    line = said(gain, -gain, low, high)
    assert all(abs(float(number)) <= 1_000 for number in re.findall(r"[-+]([\d.]+)%", line)), line


def test_enough_lists_give_a_share_and_its_ends() -> None:
    assert said(0.2, 0.01, -0.02, 0.04) == "  gain 0.2000; the other: +5.0%, between -10.0% and +20.0%: not decided yet"


def test_interval_of_few_users_is_not_printed() -> None:
    """One user's was a point: `-1.0000 to -1.0000`."""
    for users in (1, USERS_MIN - 1, USERS_MIN):
        each = difference(np.arange(users), np.zeros(users), np.ones(users), seed=1)
        assert ("interval -1.0000 to -1.0000" in sentence(each)) == (users == USERS_MIN)
