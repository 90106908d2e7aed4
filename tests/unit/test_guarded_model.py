"""A model failure costs only the affected users their ranking, and never stops the job."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.scorer import Scorer
from schemas.errors import ModelTooSlow
from tests.faults.test_model_faults import NAN, adopted
from tests.support.examples import examples
from tests.support.fakes import FixedModel
from tests.support.models import history
from udfs.guarded_model import REST_MS, GuardedModel

ITEMS = [f"item-{number}" for number in range(1, 9)]
POISON = 8
"""The row of the item for whose friends the model fails."""
FAULTS = ["raises", "nan", "infinite", "foreign", "negative", "twice", "short"]


class Failing(FixedModel):
    """Fails as in `fault` if :data:`POISON` is the newest item of a user."""

    def __init__(self, fault: str) -> None:
        super().__init__(ITEMS, top_k=5)
        self.fault = fault

    def score(self, items: Any, weights: Any, features: Any = None) -> tuple[Any, Any]:
        scores, rows = super().score(items, weights)
        bad = items[:, -1] == POISON
        if not bad.any():
            return scores, rows
        if self.fault == "raises":
            raise ValueError("a graph of somebody else's")
        if self.fault == "slow":
            raise ModelTooSlow("the model was stopped")
        if self.fault == "short":
            return scores[:, :0], rows[:, :0]
        scores[bad, 1] = {"nan": np.nan, "infinite": np.inf}.get(self.fault, scores[bad, 1])
        rows[bad, 1] = {"foreign": 9, "negative": -1, "twice": rows[bad, 0]}.get(self.fault, rows[bad, 1])
        return scores, rows


def asked(newest: list[int]) -> tuple[Any, Any]:
    items = np.concatenate([history(3, row) for row in newest])
    return items, (items > 0).astype(np.float32)


@settings(max_examples=examples(120), deadline=None)
@given(st.sampled_from(FAULTS), st.lists(st.integers(1, 7), min_size=1, max_size=40), st.integers(0, 39))
def test_model_failing_for_one_user_keeps_other_scores(fault: str, newest: list[int], at: int) -> None:
    at %= len(newest)
    newest = [*newest[:at], POISON, *newest[at:]]
    model = Failing(fault)
    guarded = GuardedModel(model)
    scores, rows = guarded.score(*asked(newest), 0)
    others = np.array([row != POISON for row in newest])
    assert np.isneginf(scores[at]).all()
    assert guarded.failed == 1
    for place in np.flatnonzero(others):
        alone, its_rows = FixedModel(ITEMS, top_k=5).score(*asked([newest[place]]))
        assert np.allclose(scores[place], alone[0]), "by the sum of weights in another order"
        assert rows[place].tolist() == its_rows[0].tolist()
    assert len(model.batches) <= 1 + 4 * len(newest).bit_length()


@pytest.mark.parametrize("fault", FAULTS)
def test_model_failing_for_everybody_is_called_boundedly(fault: str) -> None:
    model = Failing(fault)
    guarded = GuardedModel(model)
    scores, _ = guarded.score(*asked([POISON] * 64), 0)
    assert scores.shape[0] == 64
    assert np.isneginf(scores).all()
    assert guarded.failed == 64
    assert len(model.batches) <= 1 + 4 * 7


@pytest.mark.parametrize("fault", ["slow", "raises"])
@pytest.mark.promise("model-fails-safe")
def test_hanging_or_failing_model_rests_and_is_retried(fault: str) -> None:
    model = Failing(fault)
    guarded = GuardedModel(model)
    guarded.score(*asked([POISON] * 4), 1_000)
    tried = len(model.batches)
    assert np.isneginf(guarded.score(*asked([1, 2]), 1_000 + REST_MS - 1)[0]).all()
    assert len(model.batches) == tried, "it rests"
    assert np.isfinite(guarded.score(*asked([1, 2]), 1_000 + REST_MS)[0]).all()


def test_padding_may_be_in_any_row_and_repeated() -> None:
    class Padded(FixedModel):
        def score(self, items: Any, weights: Any, features: Any = None) -> tuple[Any, Any]:
            scores, rows = super().score(items, weights)
            scores[:, 2:], rows[:, 2:] = -np.inf, 0
            return scores, rows

    guarded = GuardedModel(Padded(ITEMS, 5))
    scores, _ = guarded.score(*asked([1, 2, 3]), 0)
    assert np.isfinite(scores).sum() == 6
    assert guarded.failed == 0


def test_plain_scores_that_are_no_numbers_are_failures(tmp_path: Path) -> None:
    """The graph has no ids: the scorer ranks its scores, and NaN has no rank."""
    adopted(tmp_path / "faulty")
    guarded = GuardedModel(Scorer.open(tmp_path / "faulty"))
    scores, _ = guarded.score(*asked([1, NAN, 2]), 0)
    assert np.isfinite(scores).any(axis=1).tolist() == [True, False, True]
    assert guarded.failed == 1


class Answering(FixedModel):
    """Answers what `change` makes of scores and rows."""

    def __init__(self, change: Callable[[Any, Any, Any], tuple[Any, Any]]) -> None:
        super().__init__(ITEMS, top_k=5)
        self.change = change

    def score(self, items: Any, weights: Any, features: Any = None) -> tuple[Any, Any]:
        return self.change(items, *super().score(items, weights))


@pytest.mark.parametrize(
    "change",
    [
        lambda items, scores, rows: (scores[0], rows[0]),
        lambda items, scores, rows: (scores, rows[:, :2]),
        lambda items, scores, rows: (scores[:1], rows[:1]),
        lambda items, scores, rows: (scores[:, :0], rows[:, :0]),
    ],
)
def test_answer_of_another_shape_has_scores_for_nobody(change: Any) -> None:
    guarded = GuardedModel(Answering(change))
    scores, rows = guarded.score(*asked([1, 2, 3]), 0)
    assert scores.shape == rows.shape and len(scores) == 3
    if np.isfinite(scores).any():  # the first user alone fits
        assert change(0, np.zeros((1, 5)), np.zeros((1, 5)))[0].shape == (1, 5)


def test_rows_without_scores_are_padding() -> None:
    def last_unranked(items: Any, scores: Any, rows: Any) -> tuple[Any, Any]:
        scores[0, 3:], rows[0, 3:], scores[1, 0] = -np.inf, 99, np.nan
        return scores, rows

    scores, rows = GuardedModel(Answering(last_unranked)).score(*asked([1, 2]), 0)
    assert rows[~np.isfinite(scores)].tolist() == [0] * 7


def test_one_user_who_fails_is_asked_about_once_and_the_model_does_not_rest() -> None:
    model = Failing("raises")
    guarded = GuardedModel(model)
    guarded.score(*asked([POISON]), 0)
    assert (len(model.batches), guarded.failed, guarded.rests(0)) == (1, 1, False)
    guarded.score(*asked([POISON, 1, 2, 3]), 0)
    assert not guarded.rests(0), "it works for others"
    assert 0 not in model.batches


def test_model_too_slow_for_a_part_of_a_batch_rests_at_once() -> None:
    class SlowParts(FixedModel):
        def score(self, items: Any, weights: Any, features: Any = None) -> tuple[Any, Any]:
            self.batches.append(len(items))
            raise ValueError("no") if len(items) == 8 else ModelTooSlow("the model was stopped")

    model = SlowParts(ITEMS, 5)
    guarded = GuardedModel(model)
    scores, _ = guarded.score(*asked([1] * 8), 0)
    assert np.isneginf(scores).all()
    assert (model.batches, guarded.rests(0), guarded.failed) == ([8, 4], True, 8)


@pytest.mark.parametrize(("stands_in", "newest", "rests"), [(True, 1, True), (False, 1, False), (True, 0, False)])
def test_answer_without_scores_is_a_failure_where_another_model_stands_in(
    stands_in: bool, newest: int, rests: bool
) -> None:
    nothing = Answering(lambda items, scores, rows: (np.full_like(scores, -np.inf), rows))
    guarded = GuardedModel(nothing, stands_in=stands_in)
    items, weights = asked([newest])
    guarded.score(items if newest else items * 0, weights, 0)
    assert guarded.rests(0) == rests, "of users without known items, no model knows anything"
