"""Off-policy estimates: the click rate that another policy would have in explored slots, from what was logged there.

Of row i, `p` is the propensity of what was shown, `r` whether it was clicked, and the weight `w` is 1/p if the policy
chooses what was shown, else 0. `q` is a model of the click rate, fitted on other users.

- inverse propensity score (IPS): mean of w·r (Horvitz & Thompson, JASA 1952);
- self-normalised (SNIPS): sum of w·r over sum of w (Swaminathan & Joachims, NIPS 2015);
- doubly robust (DR): mean of q(chosen) + w·(r − q(shown)) (Dudík, Langford & Li, ICML 2011).

IPS and DR are unbiased with exact propensities, SNIPS is consistent. Intervals draw users with all of their rows.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.errors import ModelError

DRAWS: Final = 2_000
FOLDS: Final = 5
EFFECTIVE_MIN: Final = 100.0
"""Below this effective sample size, there is no estimate."""
HITS_MIN: Final = 10
"""Nor with fewer clicks on what the policy would choose, too."""
KNOWN_MIN: Final = 0.5
"""Nor if the policy has an opinion about less than this share of the pools."""
DEVIATIONS_MAX: Final = 4.0
"""With the right propensities, the expectation of a weight is 1: the mean is as near as so many standard errors."""
SHRINKAGE: Final = 10.0
"""Expected clicks that every item is credited with beforehand in `q`."""
_DRAWN_AT_ONCE: Final = 4_000_000

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]


class Log(NamedTuple):
    """Impressions of explored slots, parallel columns[n]: codes of `users` and of the items `shown` (below `items`),
    positions of `slots`, the `propensity` of what was shown, and whether it was `clicked`, 0 or 1."""

    users: Codes
    slots: Codes
    shown: Codes
    propensity: Floats
    clicked: Floats
    items: int


class Estimate(NamedTuple):
    """A click rate, or a difference of two, with its 95 % interval."""

    value: float
    low: float
    high: float


class Estimates(NamedTuple):
    """What is estimated of a policy.

    `effective` is the effective sample size: (sum of w)² over sum of w² (Kish, "Survey Sampling", 1965). `difference`,
    doubly robust, is the policy minus the one that serves.
    """

    ips: Estimate
    snips: Estimate
    dr: Estimate
    effective: float
    difference: Estimate


def click_rates(log: Log, chosen: Codes) -> tuple[Floats, Floats]:
    """The modelled click rates of what was shown, and of what a policy has `chosen`: float64[n] each.

    Of a slot, the mean; times what an item is clicked over what is expected of its slots, shrunk towards 1. For each
    row, it is fitted on the users of other folds (cross-fitting: Chernozhukov et al., Econometrics Journal 2018).
    """
    _, slots = np.unique(log.slots, return_inverse=True)
    folds, of_shown, of_chosen = log.users % FOLDS, np.zeros(len(slots)), np.zeros(len(slots))
    for fold in range(FOLDS):
        mine, others = folds == fold, folds != fold
        overall = log.clicked[others].mean() if others.any() else 0.0
        seen = np.bincount(slots[others], minlength=slots.max() + 1)
        clicked = np.bincount(slots[others], log.clicked[others], minlength=slots.max() + 1)
        by_slot = (clicked + overall) / (seen + 1)
        expected = np.bincount(log.shown[others], by_slot[slots[others]], minlength=log.items)
        factors = (np.bincount(log.shown[others], log.clicked[others], minlength=log.items) + SHRINKAGE) / (
            expected + SHRINKAGE
        )
        of_shown[mine] = by_slot[slots[mine]] * factors[log.shown[mine]]
        of_chosen[mine] = by_slot[slots[mine]] * factors[chosen[mine]]
    return np.minimum(of_shown, 1.0), np.minimum(of_chosen, 1.0)


def estimate(log: Log, chosen: Codes, served: Codes, seed: int, known: float = 1.0) -> Estimates:
    """Estimate a policy that would have `chosen` these items; `served` are those of the policy that serves.

    `known` is the share of rows that it has an opinion about. Raises :class:`ModelError` if the log says too little.
    """
    weights, reference = weights_of(log, chosen), weights_of(log, served)
    _refuse(log, weights, known)
    of_shown, of_chosen = click_rates(log, chosen)
    doubly = of_chosen + weights * (log.clicked - of_shown)
    reference_shown, reference_chosen = click_rates(log, served)
    reference_doubly = reference_chosen + reference * (log.clicked - reference_shown)
    ones = np.ones(len(doubly))
    columns = [weights * log.clicked, weights, doubly, doubly - reference_doubly, ones]
    drawn = np.concatenate([*_drawn_sums(log.users, np.stack(columns, axis=1), seed)])
    whole = np.stack(columns, axis=1).sum(axis=0)

    def ratio(over: int, under: int) -> Estimate:
        low, high = np.quantile(drawn[:, over] / np.maximum(drawn[:, under], 1e-12), [0.025, 0.975])
        return Estimate(float(whole[over] / whole[under]), float(low), float(high))

    return Estimates(ratio(0, 4), ratio(0, 1), ratio(2, 4), effective_size(weights), ratio(3, 4))


def clicked_rate(log: Log, seed: int) -> Estimate:
    """The click rate of what was shown by chance."""
    columns = np.stack([log.clicked, np.ones(len(log.clicked))], axis=1)
    drawn = np.concatenate([*_drawn_sums(log.users, columns, seed)])
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    return Estimate(float(log.clicked.mean()), float(low), float(high))


def weights_of(log: Log, chosen: Codes) -> Floats:
    """The weight of each row: 1 over its propensity where the policy chooses what was shown, else 0."""
    weights: Floats = np.where(chosen == log.shown, 1.0 / log.propensity, 0.0)
    return weights


def effective_size(weights: Floats) -> float:
    """How many rows of equal weight say as much.

    >>> effective_size(np.array([2.0, 2.0, 0.0])), effective_size(np.zeros(3))
    (2.0, 0.0)
    """
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares else 0.0


def _refuse(log: Log, weights: Floats, known: float) -> None:
    """Raise if the log says too little of a policy, or its propensities cannot be right."""
    effective, hits = effective_size(weights), int(log.clicked[weights > 0].sum())
    if known < KNOWN_MIN:
        raise ModelError(
            f"no estimate: the model knows an item of {known:.0%} of the pools, and {KNOWN_MIN:.0%} are needed: "
            "it would choose other items than were explored"
        )
    if effective < EFFECTIVE_MIN or hits < HITS_MIN:
        raise ModelError(
            f"no estimate: {len(weights):,} impressions are worth {effective:,.0f} of this policy's own, with {hits} "
            f"clicks; {EFFECTIVE_MIN:.0f} and {HITS_MIN} are needed: explore longer, a larger share or a smaller pool"
        )
    by_user = np.bincount(log.users, weights - 1)[np.unique(log.users)]
    error = float(np.sqrt((by_user**2).sum()))
    if abs(by_user.sum()) > DEVIATIONS_MAX * error:
        raise ModelError(
            f"no estimate: the mean weight is {weights.mean():.3f} and should be 1: propensities are wrong, or "
            "impressions of some items are missing"
        )


def _drawn_sums(users: Codes, columns: Floats, seed: int) -> Iterator[Floats]:
    """Sums of `columns` float64[n, c] for :data:`DRAWS` draws of users, with replacement, some draws at a time."""
    _, group = np.unique(users, return_inverse=True)
    sums = np.stack([np.bincount(group, column) for column in columns.T], axis=1)
    random, count = np.random.default_rng(seed), len(sums)
    at_once = max(1, min(DRAWS, _DRAWN_AT_ONCE // count))
    for start in range(0, DRAWS, at_once):
        size = min(at_once, DRAWS - start)
        yield random.multinomial(count, np.full(count, 1 / count), size=size).astype(np.float64) @ sums
