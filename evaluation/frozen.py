"""Evaluates the frozen model on a global time split, through the job's rules, against popularity.

All interactions before the cut are for training. Each later step of a user with a history is a question. A global cut
leaks nothing from the future, unlike leave-one-out per user (Meng et al., "Exploring Data Splitting Strategies for the
Evaluation of Recommendation Models", RecSys 2020).

There are two tables: one where every item of the step counts, and one for ``new items``, where items that the user had
are neither listed nor expected, which is how lists are served by default.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from evaluation.job_twin import ANY_ITEM, JobRules, Took
from evaluation.measures import Measured
from evaluation.methods import FrozenMethod, trained_scorer
from evaluation.side_by_side import Asked, Method, replay
from evaluation.steps import Protocol, Step, moving, plan, rows_before_questions
from models.interactions import Interactions
from models.transitions import Trained, TrainingSettings, train
from schemas.errors import ModelError

QUESTIONS_MAX: Final = 5_000
DECAYS: Final = (1.0, 0.95, 0.85, 0.7, 0.5)
MEASURES: Final = ("ndcg@10", "hr@10", "recall@20", "coverage@10")
TABLES: Final = {"": JobRules(ANY_ITEM), ", new items": JobRules()}


def evaluate(interactions: Interactions, settings: TrainingSettings) -> dict[str, dict[str, float]]:
    """Train on the first 80 % in time, test on the rest: ranking method → metric → value.

    The methods are ``int8`` and ``fp32`` (the model as served and before quantisation) and ``popularity`` (the same
    list for all, weighted by recency), each also as ``…, new items``. Raises :class:`ModelError` without enough data.
    """
    counted = moving(interactions)
    steps = sampled_split(counted)
    trained = train(rows_of(counted, rows_before_questions(steps)), settings)
    scorers = {"int8": trained_scorer(trained, settings), "fp32": trained_scorer(trained, settings, int8=False)}
    table = {}
    for suffix, rules in TABLES.items():
        methods: dict[str, Method] = {
            name: FrozenMethod(scorer, interactions.item_ids, rules) for name, scorer in scorers.items()
        }
        methods["popularity"] = PopularMethod(trained, interactions.item_ids, rules)
        for name, measured in _measured(steps, methods, interactions.item_ids, rules).items():
            values = measured.table()
            table[name + suffix] = {measure: values[measure] for measure in MEASURES}
    return table


def choose_decay(interactions: Interactions, settings: TrainingSettings) -> TrainingSettings:
    """``settings`` with the ``history_decay`` of `DECAYS` that ranks new items best in the last fifth of the time.

    The best value depends on the shop: yesterday's basket is still informative, twenty clicks ago hardly. Pass training
    data only. With too little data to test, the settings are unchanged.
    """
    counted, rules = moving(interactions), JobRules()
    try:
        steps = sampled_split(counted)
        trained = train(rows_of(counted, rows_before_questions(steps)), settings)
    except ModelError:
        return settings
    methods: dict[str, Method] = {
        str(decay): FrozenMethod(
            trained_scorer(trained.with_decay(decay), settings, int8=False), interactions.item_ids, rules
        )
        for decay in DECAYS
    }
    measured = _measured(steps, methods, interactions.item_ids, rules)
    if not len(measured[str(DECAYS[0])].rows):
        return settings
    best = max(DECAYS, key=lambda decay: measured[str(decay)].table()["ndcg@10"])
    return replace(settings, history_decay=best)


def before_cut(interactions: Interactions) -> Interactions:
    """The interactions that :func:`evaluate` trains on; raises :class:`ModelError` if there is nothing to ask."""
    counted = moving(interactions)
    return rows_of(counted, rows_before_questions(sampled_split(counted)))


class PopularMethod:
    """What was popular at the end of training, for all users."""

    def __init__(self, trained: Trained, item_ids: Sequence[str], rules: JobRules) -> None:
        code = {item: place for place, item in enumerate(item_ids)}
        self._ranked, self._rules = [code[item] for item in trained.items], rules.lists

    def rank(self, asked: Asked) -> list[int]:
        """See :class:`evaluation.side_by_side.Method`."""
        had = asked.past.had if self._rules.exclude_had else {}
        return [item for item in self._ranked[: len(had) + self._rules.items] if item not in had]

    def learn(self, asked: Asked, items: list[int], took: Took) -> None:
        """It does not change."""


def sampled_split(counted: Interactions) -> list[Step]:
    """The steps, with at most `QUESTIONS_MAX` questions, evenly sampled."""
    steps = plan(counted, Protocol.GLOBAL_TIME)
    asked = [place for place, step in enumerate(steps) if step.asked]
    if len(asked) <= QUESTIONS_MAX:
        return steps
    kept = {asked[place] for place in np.linspace(0, len(asked) - 1, QUESTIONS_MAX).astype(np.int64).tolist()}
    return [step._replace(asked=place in kept) for place, step in enumerate(steps)]


def rows_of(counted: Interactions, rows: list[int]) -> Interactions:
    """These rows of `counted`."""
    taken = np.zeros(len(counted), np.bool_)
    taken[rows] = True
    return counted.where(taken)


def _measured(
    steps: list[Step], methods: dict[str, Method], item_ids: list[str], rules: JobRules
) -> dict[str, Measured]:
    return replay(steps, methods, item_ids, rules).measured
