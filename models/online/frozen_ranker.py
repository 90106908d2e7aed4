"""The transition model (:mod:`models.transitions`) in a prequential evaluation: trained once, on what came before."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from models.evaluate import choose_decay
from models.interactions import Interactions
from models.manifest import RECENT_ITEMS_MAX, TrainingWindow
from models.model_directory import Card, export
from models.online.prequential import HAD_MAX, LISTED, Asked, RankedOnline
from models.scorer import Scorer
from models.transitions import TrainingSettings, train

TOP_K: Final = HAD_MAX + LISTED
"""So that a list stays full when all that the user had is left out."""


class FrozenRanker:
    """Trained on `before` with the default settings, quantised to INT8, and scored through its graph."""

    def __init__(self, before: Interactions, new_items: bool) -> None:
        settings = choose_decay(before, TrainingSettings())
        trained = train(before, settings)
        settings = replace(settings, top_k=min(TOP_K, len(trained.items)))
        card = Card("frozen", TrainingWindow(0, 0, 0, 0, len(trained.items)))
        with tempfile.TemporaryDirectory() as scratch:
            directory = Path(scratch) / "model"
            export(directory, trained.numbers, trained.items, settings.top_k, card, int8=True)
            self._scorer = Scorer.open(directory)
        code = {item: place for place, item in enumerate(before.item_ids)}
        self._code_of_row = [-1, *(code[item] for item in trained.items)]
        self._row_of_code = {code: row for row, code in enumerate(self._code_of_row) if row}
        self._new_items = new_items

    def ranker(self) -> RankedOnline:
        """As :func:`models.online.prequential.replay` takes it."""
        return RankedOnline(self.rank, lambda asked, items: None)

    def rank(self, asked: Asked) -> list[int]:
        """The list of a question; empty where the model knows nothing of the history, as the job falls back then."""
        rows = [row for item in asked.past.recents if (row := self._row_of_code.get(item))]
        history = np.zeros((1, RECENT_ITEMS_MAX), np.int32)
        if rows:
            history[0, -len(rows) :] = rows
        scores, found = self._scorer.score(history)
        ranked = [self._code_of_row[row] for row in found[0][np.isfinite(scores[0])].tolist()]
        return [item for item in ranked if not self._new_items or item not in asked.past.had][:LISTED]
