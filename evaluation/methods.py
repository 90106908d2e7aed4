"""The models of this project as methods of an evaluation: their lists are made by the job's rules."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from evaluation.job_twin import JobRules, LearnerTwin, ListsTwin, Took
from evaluation.side_by_side import Asked
from models.manifest import POPULAR_MAX, TrainingWindow
from models.model_directory import Card, export
from models.scorer import Scorer
from models.transitions import Trained, TrainingSettings
from schemas.lists import decode_list
from udfs.frozen_model import FrozenModel
from udfs.ranking import PopularItems

Scored = tuple[list[int], npt.NDArray[np.float32]]
"""Item codes, best first, and their scores."""
NO_WINDOW: Final = TrainingWindow(0, 0, 0, 0, 0)


class OnlineMethod:
    """The online model: learns as the job does, from what the job's rules make of each step."""

    def __init__(self, item_ids: Sequence[str], rules: JobRules) -> None:
        self._learner = LearnerTwin(rules)
        self.model = self._learner.model
        self._listed = _Listed(ListsTwin(rules, self.model), item_ids)

    def rank(self, asked: Asked) -> list[int]:
        """See :class:`evaluation.side_by_side.Method`."""
        return self.scored(asked)[0]

    def scored(self, asked: Asked) -> Scored:
        """The list, and its scores."""
        self._learner.follow(asked.at_ms)
        return self._listed.scored(asked)

    def learn(self, asked: Asked, items: list[int], took: Took) -> None:
        """See :class:`evaluation.side_by_side.Method`."""
        self._learner.follow(asked.at_ms)
        self._learner.learn(took, asked.at_ms)
        self._listed.lists.note(took.accepted)


class FrozenMethod:
    """A model that does not change, with lists filled up by what is popular."""

    def __init__(self, scorer: Scorer, item_ids: Sequence[str], rules: JobRules) -> None:
        model = FrozenModel(scorer, scorer.manifest.name, rules.profile)
        fallback = PopularItems.ranked(scorer.manifest.popular)
        self._listed = _Listed(ListsTwin(rules, model, fallback), item_ids)

    def rank(self, asked: Asked) -> list[int]:
        """See :class:`evaluation.side_by_side.Method`."""
        return self.scored(asked)[0]

    def scored(self, asked: Asked) -> Scored:
        """The list, and its scores."""
        return self._listed.scored(asked)

    def learn(self, asked: Asked, items: list[int], took: Took) -> None:
        """See :class:`evaluation.side_by_side.Method`."""
        self._listed.lists.note(took.accepted)


class _Listed:
    """Lists as item codes."""

    def __init__(self, lists: ListsTwin, item_ids: Sequence[str]) -> None:
        self.lists = lists
        self._code = {item: code for code, item in enumerate(item_ids)}

    def scored(self, asked: Asked) -> Scored:
        """The items and scores of the list that the job would write; none without one."""
        writes = [] if asked.state is None else self.lists.lists({asked.name: asked.state}, asked.at_ms)
        items = [item for write in writes for item in decode_list(write.payload).items]
        return [self._code[item.id] for item in items], np.array([item.score for item in items], np.float32)


def trained_scorer(trained: Trained, settings: TrainingSettings, *, int8: bool = True) -> Scorer:
    """A model through its exported graph, so that what is served is what is measured."""
    enough = zip(trained.items, trained.item_users, strict=True)
    popular = [item for item, users in enough if users >= settings.popular_users_min]
    card = Card("evaluation", NO_WINDOW, popular[:POPULAR_MAX], settings.popular_users_min)
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "model"
        export(directory, trained.numbers, trained.items, settings.top_k, card, int8=int8)
        return Scorer.open(directory)
