"""Wraps a model so that its failures affect ranking, never the job.

How a model handles unknown histories can be tested (:mod:`models.trial`) but not proved. If it raises for a user, or
returns something that cannot be ranked, that user gets no scores, and a list of popular items. If it is too slow, or
fails for whole batches, it is not called for a while, so that consents do not wait for it.
"""

import logging
from collections.abc import Mapping
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from schemas.errors import ModelError, ModelTooSlow, ModelUnavailable, where
from udfs.fault_log import FaultLog

REST_MS: Final = 60_000
Items = npt.NDArray[np.int32]
Weights = npt.NDArray[np.float32]
Features = Mapping[str, npt.NDArray[Any]]
Answer = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]
NO_FEATURES: Final[Features] = {}
logger = logging.getLogger(__name__)


class Scoring(Protocol):
    """The interface of a model; implemented by :class:`models.scorer.Scorer`.

    `items` maps row → item id, with row 0 for padding; `index` maps item id → row. `wanted` are the inputs beside rows
    and weights that the model takes (:data:`models.contract.PROFILE`).
    """

    items: list[str]
    index: dict[str, int]
    wanted: tuple[str, ...]

    def score(self, items: Items, weights: Weights | None, features: Features = NO_FEATURES) -> Answer:
        """(scores float32[users, k], rows int[users, k]), best first, for int32[users, RECENT_ITEMS_MAX] rows.

        `features` are those in `wanted`, each [users, width].
        """
        ...


class GuardedModel:
    """Always answers, whatever the model does. `failed` counts users without scores since the worker started.

    `rested` is whether it was ever too slow, or failed for a whole batch. If another model `stands_in` while this one
    rests, an answer with scores for nobody is a failure, too; otherwise those users alone have none.
    """

    def __init__(self, model: Scoring, rest_ms: int = REST_MS, stands_in: bool = False) -> None:
        self.failed = 0
        self.rested = False
        self._model = model
        self._rest_ms = rest_ms
        self._stands_in = stands_in
        self._rows = len(model.items)
        self._rests_until_ms = 0
        self._log_fault = FaultLog(logger, "the model failed: users have lists of what is popular")

    def score(self, items: Items, weights: Weights, now_ms: int, features: Features = NO_FEATURES) -> Answer:
        """(scores float32[users, k], rows int[users, k]), best first; a user without scores has only -inf.

        `items`, `weights` and `features` are as in :class:`Scoring`. Rows of finite scores are between 1 and the
        model's last row, and unique per user; others are 0. `k` is 1 if no user has scores.
        """
        if self.rests(now_ms):
            return self._nothing(len(items))
        try:
            scores, rows = self._check_answer(self._model.score(items, weights, features), len(items))
            known = items.any(axis=1)  # of others, no model knows anything
            if self._stands_in and known.any() and not np.isfinite(scores[known]).any():
                self.rest(now_ms, ModelUnavailable("the answer has scores for nobody"))
            return scores, rows
        except ModelTooSlow as error:
            self.rest(now_ms, error)
            return self._nothing(len(items))
        except Exception as error:  # a foreign model may raise anything
            self._log_fault(error)
            return self._score_halves(items, weights, features, now_ms)

    def rests(self, now_ms: int) -> bool:
        """Whether the model is not asked at the moment. After :meth:`score`: whether nobody got scores."""
        return now_ms < self._rests_until_ms

    def _score_halves(self, items: Items, weights: Weights, features: Features, now_ms: int) -> Answer:
        """Halve a failed batch until the users who make it fail are isolated, in a bounded number of runs."""
        users = len(items)
        runs_left = 4 * users.bit_length() if users > 1 else 0
        found: list[tuple[slice, Answer]] = []
        waiting = [slice(0, users // 2), slice(users // 2, users)]
        while waiting and runs_left:
            part, runs_left = waiting.pop(), runs_left - 1
            size = part.stop - part.start
            try:
                some = {name: one[part] for name, one in features.items()}
                found.append((part, self._check_answer(self._model.score(items[part], weights[part], some), size)))
            except ModelTooSlow as error:
                self.rest(now_ms, error)
                break
            except Exception:  # as above
                middle = part.start + size // 2
                waiting += [slice(part.start, middle), slice(middle, part.stop)] if size > 1 else []
        else:
            if users > 1 and not found:
                self.rest(now_ms, ModelError("the model failed for each part of a batch"))
        return self._joined(users, found)

    def _joined(self, users: int, found: list[tuple[slice, Answer]]) -> Answer:
        width = max((scores.shape[1] for _, (scores, _) in found), default=1)
        scores, rows = np.full((users, width), -np.inf, np.float32), np.zeros((users, width), np.int64)
        for part, (its_scores, its_rows) in found:
            scores[part, : its_scores.shape[1]] = its_scores
            rows[part, : its_rows.shape[1]] = its_rows
        self.failed += users - sum(part.stop - part.start for part, _ in found)
        return scores, rows

    def _nothing(self, users: int) -> Answer:
        return self._joined(users, [])

    def _check_answer(self, answer: Answer, users: int) -> Answer:
        """`answer` without the scores of users whose rows or scores cannot be ranked; raises if its shape is wrong."""
        scores, rows = answer
        if scores.ndim != 2 or scores.shape != rows.shape or len(scores) != users or not scores.shape[1]:
            raise ModelError(f"the model answered {list(scores.shape)} scores and {list(rows.shape)} rows")
        ranked = np.isfinite(scores)
        # Unranked entries are padding with arbitrary rows: give each a unique row, so only ranked ones can repeat.
        in_order = np.sort(np.where(ranked, rows, -1 - np.arange(rows.shape[1])), axis=1)
        wrong = (ranked & ((rows < 1) | (rows >= self._rows))).any(axis=1)
        wrong |= (~(scores < np.inf)).any(axis=1)  # inf or NaN
        wrong |= (in_order[:, 1:] == in_order[:, :-1]).any(axis=1)
        if wrong.any():
            self.failed += int(wrong.sum())
            self._log_fault(ModelError("scores that are no numbers, rows of no item, or rows that come twice"))
            scores = np.where(wrong[:, None], np.float32(-np.inf), scores)
            ranked &= ~wrong[:, None]
        return (scores, rows) if ranked.all() else (scores, np.where(ranked, rows, 0))

    def rest(self, now_ms: int, error: Exception) -> None:
        """Do not ask the model for a while, because of `error`."""
        self.rested, self._rests_until_ms = True, now_ms + self._rest_ms
        logger.error("%s: the model is not asked for %g s", where(error), self._rest_ms / 1000)
