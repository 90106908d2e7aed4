"""Wraps a model so that its failures affect ranking, never the job.

What a model does with histories that it has not met can be tried (:mod:`models.trial`), not known. Where it raises for
a user, or answers with what cannot be ranked, that user has no scores: their list is made of what is popular. Where it
takes too long, or fails for whole batches, it rests for a while, so that consents do not wait behind it.
"""

import logging
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from schemas.errors import ModelError, ModelTooSlow, where
from udfs.telling import Teller

REST_MS: Final = 60_000
Items = npt.NDArray[np.int32]
Weights = npt.NDArray[np.float32]
Answer = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]
logger = logging.getLogger(__name__)


class Scoring(Protocol):
    """What ranking needs of a model; :class:`models.scorer.Scorer` is one.

    `items` is row → item id with row 0 for padding, `index` item id → row.
    """

    items: list[str]
    index: dict[str, int]

    def score(self, items: Items, weights: Weights | None) -> Answer:
        """(scores float32[users, k], rows int[users, k]), best first, for int32[users, RECENT_ITEMS_MAX] rows."""
        ...


class GuardedModel:
    """Answers whatever the model does. `failed` counts the users for whom it had no answer, since the worker began."""

    def __init__(self, model: Scoring) -> None:
        self.failed = 0
        self._model = model
        self._rows = len(model.items)
        self._rests_until_ms = 0
        self._tell = Teller(logger, "the model failed: users have lists of what is popular")

    def score(self, items: Items, weights: Weights, now_ms: int) -> Answer:
        """(scores float32[users, k], rows int[users, k]), best first; all scores of a user without answer are -inf.

        `items` and `weights` as :class:`Scoring` takes them. Where a score is finite, its row is from 1 to the last
        row of the model, and no row comes twice. `k` is 1 where nobody has an answer.
        """
        if now_ms < self._rests_until_ms:
            return self._nothing(len(items))
        try:
            return self._judged(self._model.score(items, weights), len(items))
        except ModelTooSlow as error:
            self._rest(now_ms, error)
            return self._nothing(len(items))
        except Exception as error:  # whatever a graph of somebody else's raises
            self._tell(error)
            return self._halved(items, weights, now_ms)

    def _halved(self, items: Items, weights: Weights, now_ms: int) -> Answer:
        """Halve a batch that failed until those who made it fail stand alone, in a bounded number of runs."""
        users = len(items)
        runs_left = 4 * users.bit_length() if users > 1 else 0
        found: list[tuple[slice, Answer]] = []
        waiting = [slice(0, users // 2), slice(users // 2, users)]
        while waiting and runs_left:
            part, runs_left = waiting.pop(), runs_left - 1
            size = part.stop - part.start
            try:
                found.append((part, self._judged(self._model.score(items[part], weights[part]), size)))
            except ModelTooSlow as error:
                self._rest(now_ms, error)
                break
            except Exception:  # as above
                middle = part.start + size // 2
                waiting += [slice(part.start, middle), slice(middle, part.stop)] if size > 1 else []
        else:
            if users > 1 and not found:
                self._rest(now_ms, ModelError("the model failed for each part of a batch"))
        return self._joined(users, found)

    def _joined(self, users: int, found: list[tuple[slice, Answer]]) -> Answer:
        width = max((scores.shape[1] for _, (scores, _) in found), default=1)
        scores, rows = np.full((users, width), -np.inf, np.float32), np.ones((users, width), np.int64)
        for part, (its_scores, its_rows) in found:
            scores[part, : its_scores.shape[1]] = its_scores
            rows[part, : its_rows.shape[1]] = its_rows
        self.failed += users - sum(part.stop - part.start for part, _ in found)
        return scores, rows

    def _nothing(self, users: int) -> Answer:
        return self._joined(users, [])

    def _judged(self, answer: Answer, users: int) -> Answer:
        """`answer` with no scores for users whose rows or scores cannot be ranked; raises where its shape is wrong."""
        scores, rows = answer
        if scores.ndim != 2 or scores.shape != rows.shape or len(scores) != users or not scores.shape[1]:
            raise ModelError(f"the model answered {list(scores.shape)} scores and {list(rows.shape)} rows")
        ranked = np.isfinite(scores)
        # What is not ranked is padding, in whatever row: each gets one of its own, so that only ranked ones are twice.
        in_order = np.sort(np.where(ranked, rows, -1 - np.arange(rows.shape[1])), axis=1)
        wrong = (ranked & ((rows < 1) | (rows >= self._rows))).any(axis=1) | np.isnan(scores).any(axis=1)
        wrong |= (in_order[:, 1:] == in_order[:, :-1]).any(axis=1)
        if not wrong.any():
            return answer
        self.failed += int(wrong.sum())
        self._tell(ModelError("scores that are no numbers, rows of no item, or rows that come twice"))
        return np.where(wrong[:, None], np.float32(-np.inf), scores), rows

    def _rest(self, now_ms: int, error: Exception) -> None:
        self._rests_until_ms = now_ms + REST_MS
        logger.error("%s: all lists are popular lists for %d s", where(error), REST_MS // 1000)
