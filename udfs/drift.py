"""Drift: whether a rate has fallen, and whether inputs look different from before. Pure; versioned with its operator.

The Page-Hinkley test (Page, "Continuous inspection schemes", Biometrika 1954; Hinkley, "Inference about the
change-point from cumulative sum tests", Biometrika 1971) adds up by how much a series is below its mean, beyond an
allowance, and raises an alarm when the sum has risen far above its minimum. The series are rates by minute, in units
of their sampling error, so that a quiet night does not count as much as a busy hour.

The population stability index compares two histograms: Σ (p - q) ln(p / q). Below 0.1 nothing has changed, above 0.25
much has (Siddiqi, "Credit Risk Scorecards", 2006).
"""

import math
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta

PSI_ALARM: Final = 0.25
_SMALLEST_SHARE: Final = 1e-4
_FALL_MAX: Final = 2.0
"""The most, in standard errors, that one minute adds: a rate near 1 falls rarely and then far, and a few such minutes
would be an alarm. With this bound, no rate and no number of trials raises more false alarms than a normal series."""


class DriftSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a fall of a rate of feedback, or a change of the events, is reported."""

    allowance: Annotated[float, Meta(ge=0, le=5)] = 0.25
    """A rate that is lower by this many standard errors a minute is no fall."""
    threshold: Annotated[float, Meta(gt=0, le=1_000)] = 20.0
    """How far the sum of falls beyond the allowance may rise: higher is later, with fewer false alarms."""
    psi: Annotated[float, Meta(gt=0, le=10)] = PSI_ALARM
    """The population stability index of the last hour's events beside those of the day before that is reported."""


class PageHinkley(msgspec.Struct, array_like=True):
    """The state of a test: successes and trials so far, and the sum of falls with its minimum."""

    successes: int = 0
    trials: int = 0
    sum: float = 0.0
    least: float = 0.0

    def add(self, successes: int, trials: int, settings: DriftSettings) -> bool:
        """Add the counts of a minute; whether the rate has fallen. The test then begins anew, with the new rate."""
        fall = self._standard_errors_below(successes, trials)
        self.successes, self.trials = self.successes + successes, self.trials + trials
        self.sum += fall - settings.allowance
        self.least = min(self.least, self.sum)
        if self.sum - self.least <= settings.threshold:
            return False
        self.successes, self.trials, self.sum, self.least = successes, trials, 0.0, 0.0
        return True

    def _standard_errors_below(self, successes: int, trials: int) -> float:
        """By how many standard errors a minute's rate is below the mean before it, bounded; 0 if one is not known."""
        if not trials or not 0 < self.successes < self.trials:
            return 0.0
        mean = self.successes / self.trials
        error = math.sqrt(mean * (1 - mean) * (1 / trials + 1 / self.trials))
        return min((mean - successes / trials) / error, _FALL_MAX)


def psi(before: Sequence[int], now: Sequence[int]) -> float:
    """The population stability index of two histograms; 0 if one is empty.

    >>> psi([50, 50], [50, 50]), round(psi([50, 50], [90, 10]), 2), psi([], [])
    (0.0, 0.88, 0.0)
    """
    if not sum(before) or not sum(now):
        return 0.0
    shares = [(_share(old, sum(before)), _share(new, sum(now))) for old, new in zip(before, now, strict=True)]
    return sum((new - old) * math.log(new / old) for old, new in shares)


def _share(count: int, total: int) -> float:
    return max(count / total, _SMALLEST_SHARE)
