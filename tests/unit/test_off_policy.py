"""Estimates of a policy from another one's log, against a simulated shop whose click rates are known."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from evaluation.explored_log import Row, chosen_by, lines, log_of, off_policy
from evaluation.off_policy import Codes, Estimate, Floats, Log, clicked_rate, effective_size, estimate, weights_of
from schemas.errors import ModelError
from schemas.exports import ExportedEvent
from tests.support.fakes import FixedModel
from tests.support.vocabulary import BEGINNING, MINUTE
from udfs.exploring import draw
from udfs.frozen_model import FrozenModel

POOL, KINDS = 6, 3


class SimulatedShop(NamedTuple):
    """Users of three kinds see two slots, drawn from six items; `rates[kind, item]` is the click rate in the first."""

    rates: Floats
    fall: float = 0.5

    def log(self, policy: Codes, users: int, focus: float, seed: int) -> tuple[Log, Codes, Codes]:
        """What a log has, what `policy[kind]` (items, best first) chooses, and what the first of the pool is."""
        random = np.random.default_rng(seed)
        weights = [number**-focus for number in range(1, POOL + 1)]
        rows, chosen, served = [], [], []
        for user in range(users):
            kind = random.integers(KINDS)
            taste = random.uniform(0.5, 1.5)
            for _ in range(int(random.integers(1, 6))):
                left = list(range(POOL))
                for slot, (item, propensity) in enumerate(draw(weights, random.random(2))):
                    rate = self.rates[kind, item] * self.fall**slot * taste
                    rows.append((user, 8 + slot, item, propensity, float(random.random() < rate)))
                    chosen.append(next(one for one in policy[kind] if one in left))
                    served.append(left[0])
                    left.remove(item)
        log = Log._make([*map(np.array, zip(*rows, strict=True)), POOL])
        return log, np.array(chosen), np.array(served)

    def truth(self, policy: Codes, focus: float) -> float:
        """The click rate of `policy` in a slot, by summing over all that can be drawn before it."""
        weights = np.arange(1, POOL + 1.0) ** -focus
        first = weights / weights.sum()
        total = 0.0
        for kind in range(KINDS):
            best, second = policy[kind][0], policy[kind][1]
            total += self.rates[kind, best]
            total += self.fall * ((1 - first[best]) * self.rates[kind, best] + first[best] * self.rates[kind, second])
        return total / KINDS / 2


def a_shop(seed: int = 1) -> SimulatedShop:
    return SimulatedShop(np.random.default_rng(seed).uniform(0.02, 0.3, (KINDS, POOL)))


def best_policy(shop: SimulatedShop) -> Codes:
    return np.argsort(-shop.rates, axis=1)


def holds(one: Estimate, value: float) -> bool:
    return one.low <= value <= one.high


@pytest.mark.parametrize("focus", [0.0, 1.0])
def test_intervals_hold_the_truth_and_the_observed_rate_does_not(focus: float) -> None:
    shop = a_shop()
    policy, seeds = best_policy(shop), 16
    truth = shop.truth(policy, focus)
    covered, values = np.zeros(3), []
    for seed in range(seeds):
        log, chosen, served = shop.log(policy, 500, focus, seed)
        found = estimate(log, chosen, served, seed)
        covered += [holds(one, truth) for one in (found.ips, found.snips, found.dr)]
        values.append([found.ips.value, found.snips.value, found.dr.value, log.clicked.mean()])
    means, errors = np.mean(values, axis=0), np.std(values, axis=0) / np.sqrt(seeds)
    assert (covered >= 13).all(), "at 95 %, fewer are held in 1 of 1,000 runs"
    assert (np.abs(means - truth)[:3] < 3.5 * errors[:3]).all(), "unbiased"
    assert abs(means[3] - truth) > 10 * errors[3], "what was clicked by chance is not what the policy would get"


def test_clicks_where_the_policy_agrees_are_biased_and_estimates_are_not() -> None:
    """Rows where the log happens to agree are not a sample: items that come first are shown more often."""
    shop = SimulatedShop(np.array([[0.05, 0.3, 0.1, 0.1, 0.1, 0.1]] * KINDS))
    policy = np.array([[1, 0, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]])
    truth = shop.truth(policy, 1.5)
    naive, snips = [], []
    for seed in range(12):
        log, chosen, served = shop.log(policy, 500, 1.5, seed)
        naive.append(log.clicked[chosen == log.shown].mean())
        snips.append(estimate(log, chosen, served, seed).snips.value)
    error = np.std(snips) / np.sqrt(12)
    assert abs(np.mean(snips) - truth) < 3.5 * error < abs(np.mean(naive) - truth)


def test_better_policy_is_better_by_its_interval_and_a_policy_is_no_better_than_itself() -> None:
    shop = a_shop()
    log, chosen, served = shop.log(best_policy(shop), 2_000, 0.0, 1)
    assert estimate(log, chosen, served, 1).difference.low > 0
    assert estimate(log, served, served, 1).difference == Estimate(0.0, 0.0, 0.0)
    assert clicked_rate(log, 1).value == pytest.approx(log.clicked.mean())


def test_effective_size_is_that_of_equal_weights() -> None:
    assert effective_size(np.array([3.0] * 5 + [0.0] * 10)) == pytest.approx(5)
    assert effective_size(np.array([1.0, 3.0])) == pytest.approx(1.6)


def test_too_small_a_log_is_refused() -> None:
    shop = a_shop()
    log, chosen, served = shop.log(best_policy(shop), 40, 0.0, 1)
    with pytest.raises(ModelError, match=r"worth .* of this policy's own, with .* clicks; 100 and 10 are"):
        estimate(log, chosen, served, 1)


def test_policy_that_knows_few_of_the_pools_is_refused() -> None:
    shop = a_shop()
    log, chosen, served = shop.log(best_policy(shop), 700, 0.0, 1)
    with pytest.raises(ModelError, match="knows an item of 49% of the pools, and 50% are needed"):
        estimate(log, chosen, served, 1, known=0.49)


def test_wrong_propensities_and_lost_impressions_are_refused() -> None:
    shop = a_shop()
    log, chosen, served = shop.log(best_policy(shop), 700, 1.0, 1)
    with pytest.raises(ModelError, match=r"the mean weight is .* and should be 1"):
        estimate(log._replace(propensity=np.full(len(chosen), 1 / POOL)), chosen, served, 1)
    lost = weights_of(log, chosen) > 0
    lost &= np.arange(len(lost)) % 2 == 0
    columns = [column[~lost] for column in log[:5]]
    kept = Log._make([*columns, POOL])
    with pytest.raises(ModelError, match="impressions of some items are missing"):
        estimate(kept, chosen[~lost], served[~lost], 1)


# -- from exports

ITEMS = [f"i{number}" for number in range(8)]


def an_event(
    user: str, kind: str, item: str, at: int, request: str | None = None, pool: tuple[str, ...] = (), slot: int = 9
) -> ExportedEvent:
    drawn = (slot, 1 / len(pool), [*pool], at - MINUTE) if pool else (None, None, None, None)
    made = ExportedEvent(user, kind, at, at, item, request=request)
    made.slot, made.propensity, made.pool, made.list_at = drawn
    return made


def test_rows_are_items_of_lists_once_each_with_their_clicks() -> None:
    pool = ("i1", "i2", "i3")
    events = [
        an_event("x.a", "impression", "i2", BEGINNING, "r1", pool),
        an_event("x.a", "impression", "i2", BEGINNING + 1, "r1", pool),
        an_event("x.a", "click", "i2", BEGINNING + 2, "r1", pool),
        an_event("x.a", "impression", "i2", BEGINNING + 3, "r1", pool),
        an_event("x.a", "impression", "i2", BEGINNING, "r2", pool),
        an_event("x.b", "impression", "i3", BEGINNING, "r1", pool),
        an_event("x.b", "impression", "i5", BEGINNING),
        an_event("x.b", "impression", "i9", BEGINNING, "r9", pool),
    ]
    found = log_of(events)
    assert [(row.user, row.shown, row.clicked) for row in found.rows] == [
        ("x.a", "i2", True),
        ("x.a", "i2", False),
        ("x.b", "i3", False),
    ]
    assert found.unusable == 1


def test_model_chooses_by_the_history_of_the_moment_when_the_list_was_made() -> None:
    pool = ("i5", "i6", "i7")
    events = [
        an_event("x.a", "click", "i7", BEGINNING),
        an_event("x.a", "click", "i6", BEGINNING + 10 * MINUTE),
        an_event("x.b", "click", "i5", BEGINNING),
    ]
    rows = [
        Row("x.a", BEGINNING + MINUTE, 9, "i5", 1 / 3, pool, False),
        Row("x.a", BEGINNING + 11 * MINUTE, 9, "i5", 1 / 3, pool, False),
        Row("x.b", BEGINNING + MINUTE, 9, "i5", 1 / 3, ("none", "of these"), False),
        Row("x.c", BEGINNING + MINUTE, 9, "i5", 1 / 3, pool, False),
    ]
    model = FrozenModel(FixedModel(ITEMS, 4), "near")
    assert [*chosen_by(model, rows, events)] == ["i7", "i6", None, None]


class FailingModel(FixedModel):
    def score(self, items: Any, weights: Any, features: Any = None) -> tuple[Any, Any]:
        raise ValueError


def test_model_that_fails_is_an_error_and_not_a_policy() -> None:
    events = [an_event("x.a", "click", "i1", BEGINNING)]
    events.append(an_event("x.a", "impression", "i2", BEGINNING + 2 * MINUTE, "r1", ("i1", "i2")))
    with pytest.raises(ModelError, match="the model failed for 1 of 1 lists"):
        off_policy(events, FrozenModel(FailingModel(ITEMS), "broken"), 0, seed=1)


def test_export_gives_estimates_of_a_model() -> None:
    random, events = np.random.default_rng(5), []
    for number in range(900):
        user, at = f"x.{number % 200}", BEGINNING + number * MINUTE
        favourite = ITEMS[1 + number % 200 % 6]
        events.append(an_event(user, "click", favourite, at - 2 * MINUTE))
        pool = tuple(ITEMS[1:7])
        shown = pool[random.integers(6)]
        request = f"r{number}"
        events.append(an_event(user, "impression", shown, at, request, pool))
        if random.random() < (0.6 if shown == favourite else 0.1):
            events.append(an_event(user, "click", shown, at + 1, request, pool))
    model = FrozenModel(FixedModel(ITEMS, 4), "near")
    found = off_policy(events, model, 0, seed=1)
    assert (found.impressions, found.users, found.known) == (900, 200, 1.0)
    assert found.new.dr.value > found.served.dr.value
    assert "near" in lines(found)[1]
    with pytest.raises(ModelError, match="no event of the export says how its item was drawn"):
        off_policy(events[::100][:0], model, 0, seed=1)
    begun = BEGINNING + 99 * MINUTE
    later = off_policy(events, model, begun, seed=1)
    assert (later.impressions, later.learned) == (799, 101), "lists are made a minute before their impressions"
    assert "left out: 101 impressions from before the end of what the model was trained on" in lines(later)
    with pytest.raises(ModelError, match=r"trained on events until 2025-.*, and the last explored list is of 2025-"):
        off_policy(events, model, BEGINNING + 900 * MINUTE, seed=1)
