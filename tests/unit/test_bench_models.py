"""The methods beside the online model, and the figures of `freshet bench models`."""

import numpy as np
import pytest

from evaluation.bootstrap import difference
from evaluation.job_twin import ANY_ITEM, JobRules
from evaluation.measures import Measured
from evaluation.session_knn import SessionKnn
from evaluation.side_by_side import Method, replay
from evaluation.simple_methods import PAIRED_ITEMS_MAX, SimpleMethods
from evaluation.steps import Protocol, plan
from models.interactions import Interactions
from schemas.events import KIND_OF


def asked(items: list[int], users: list[int]) -> dict[str, Measured]:
    """All methods, over single events a second apart."""
    times, kinds = np.arange(1, len(items) + 1) * 1_000, np.full(len(items), KIND_OF["view"])
    ids = [str(item) for item in range(max(items) + 1)]
    steps = plan(Interactions(np.array(users), np.array(items), times, kinds, ids), Protocol.PREQUENTIAL)
    methods: dict[str, Method] = {**SimpleMethods(len(ids), False).methods(), "knn": SessionKnn(len(ids), False)}
    return replay(steps, methods, ids, JobRules(ANY_ITEM)).measured


def test_no_method_knows_the_step_that_it_is_asked_about() -> None:
    for name, measured in asked(list(range(40)), [0, 1] * 20).items():
        assert measured.column("hr@10").sum() == 0, f"{name} found an item that nobody had met before"


def test_methods_learn_what_repeats() -> None:
    measured = asked([0, 1, 2, 3, 4, 5, 6, 7] * 6, [0] * 48)
    assert measured["transitions from the last item"].table()["mrr"] == 1.0
    assert measured["popularity 7 d"].table()["hr@10"] == 1.0
    assert measured["own items, most recent first"].table()["mrr"] == pytest.approx(1 / 8)


def test_methods_that_count_pairs_are_left_out_of_large_catalogues() -> None:
    large, small = SimpleMethods(PAIRED_ITEMS_MAX + 1, True).methods(), SimpleMethods(10, True).methods()
    assert set(small) - set(large) == {
        "transitions from the last item",
        "transitions from the last 10 items",
        "item kNN, cosine",
    }


def test_interval_is_wider_where_users_differ_than_where_questions_do() -> None:
    gains, none = np.repeat([0.0, 1.0], 50), np.zeros(100)
    two_users = difference(np.repeat([1, 2], 50), gains, none, seed=1)
    many_users = difference(np.arange(100), gains, none, seed=1)
    assert two_users.mean == many_users.mean == 0.5
    assert two_users.high - two_users.low == 1.0
    assert 0.1 < many_users.high - many_users.low < 0.3
