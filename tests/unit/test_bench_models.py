"""The methods beside the online model, and the figures of `freshet bench models`."""

import numpy as np
import pytest

from models.interactions import Interactions
from models.online.bootstrap import difference
from models.online.prequential import Scores, replay, steps_of
from models.online.session_knn import SessionKnn
from models.online.simple_methods import SimpleMethods


def asked(items: list[int], users: list[int]) -> dict[str, Scores]:
    """All methods, over single events a second apart."""
    times, kinds = np.arange(1, len(items) + 1) * 1_000, np.zeros(len(items), np.int64)
    ids = [str(item) for item in range(max(items) + 1)]
    steps = steps_of(Interactions(np.array(users), np.array(items), times, kinds, ids))
    rankers = {**SimpleMethods(len(ids), False).rankers(), "knn": SessionKnn(len(ids), False).ranker()}
    return replay(steps, rankers, False)


def test_no_method_knows_the_step_that_it_is_asked_about() -> None:
    for name, scores in asked(list(range(40)), [0, 1] * 20).items():
        assert scores.hit.sum() == 0, f"{name} found an item that nobody had met before"


def test_methods_learn_what_repeats() -> None:
    scores = asked([0, 1, 2, 3, 4, 5, 6, 7] * 6, [0] * 48)
    assert scores["transitions from the last item"].table()["mrr"] == 1.0
    assert scores["popularity 7 d"].table()["hr@10"] == 1.0
    assert scores["own items, most recent first"].table()["mrr"] == pytest.approx(1 / 8)


def test_interval_is_wider_where_users_differ_than_where_questions_do() -> None:
    gains, none = np.repeat([0.0, 1.0], 50), np.zeros(100)
    two_users = difference(np.repeat([1, 2], 50), gains, none, seed=1)
    many_users = difference(np.arange(100), gains, none, seed=1)
    assert two_users.mean == many_users.mean == 0.5
    assert two_users.high - two_users.low == 1.0
    assert 0.1 < many_users.high - many_users.low < 0.3
