"""A model on an inference server, behind the interface of :class:`models.scorer.Scorer`.

Only rows of the vocabulary and weights leave the worker: no user, no item id, no time. Every failure is
:class:`ModelUnavailable`, so that :class:`udfs.guarded_model.GuardedModel` pauses instead of asking for parts of the
batch.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from models.ranking import Rows, Scores, best_of
from schemas.errors import ModelUnavailable

CALL_USERS_MAX: Final = 1_024
"""Users in a call. An element has more only while the job catches up."""


class Client(Protocol):
    """What asks the server: :class:`adapters.scoring.arrays.InferenceClient`."""

    def infer(
        self, inputs: Mapping[str, npt.NDArray[Any]], outputs: list[str], deadline_s: float
    ) -> dict[str, npt.NDArray[Any]]:
        """The outputs for these inputs; raises :class:`ModelUnavailable`."""
        ...


class Names(NamedTuple):
    """What the server's model calls its inputs and outputs, and the type of its rows."""

    items: str = "items"
    items_type: str = "int32"
    weights: str | None = None
    scores: str = "scores"
    ids: str | None = None


class RemoteScorer:
    """See :class:`udfs.guarded_model.Scoring`. `calls`, `failures` and `waited_ms` count since the worker started."""

    wanted: tuple[str, ...] = ()

    def __init__(self, client: Client, items: Sequence[str], names: Names, top_k: int, deadline_ms: int) -> None:
        self.items = ["", *items]
        self.index = {item: row for row, item in enumerate(items, start=1)}
        self.calls = self.failures = self.waited_ms = 0
        self._client = client
        self._names = names
        self._top_k = min(top_k, len(items))
        self._deadline_s = deadline_ms / 1000

    def score(
        self,
        items: npt.NDArray[np.int32],
        weights: npt.NDArray[np.float32] | None = None,
        features: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> tuple[Scores, Rows]:
        """Rank the vocabulary for each user in one call, which ends within the deadline.

        The deadline is for all users, also if there are more than :data:`CALL_USERS_MAX`.
        """
        begun = time.monotonic()
        parts = []
        try:
            for at in range(0, len(items), CALL_USERS_MAX):
                cut = slice(at, at + CALL_USERS_MAX)
                left_s = self._deadline_s - (time.monotonic() - begun)
                if left_s <= 0:
                    raise ModelUnavailable("the deadline has passed")
                parts.append(self._ask(items[cut], None if weights is None else weights[cut], left_s))
        except Exception as error:  # a foreign server may answer anything
            self.failures += 1
            raise error if isinstance(error, ModelUnavailable) else ModelUnavailable(type(error).__name__) from error
        finally:
            self.waited_ms += round(1000 * (time.monotonic() - begun))
        width = min((scores.shape[1] for scores, _ in parts), default=1)
        scores = [scores[:, :width] for scores, _ in parts] or [np.empty((0, 1), np.float32)]
        rows = [rows[:, :width] for _, rows in parts] or [np.empty((0, 1), np.int64)]
        return np.concatenate(scores), np.concatenate(rows)

    def _ask(
        self, items: npt.NDArray[np.int32], weights: npt.NDArray[np.float32] | None, deadline_s: float
    ) -> tuple[Scores, Rows]:
        names = self._names
        inputs: dict[str, npt.NDArray[Any]] = {names.items: items.astype(names.items_type)}
        if names.weights is not None:
            inputs[names.weights] = np.ones(items.shape, np.float32) if weights is None else weights
        wanted = [names.scores, *([] if names.ids is None else [names.ids])]
        self.calls += 1
        found = self._client.infer(inputs, wanted, deadline_s)
        if missing := [name for name in wanted if name not in found]:
            raise ModelUnavailable(f"the answer has no output {missing[0]}")
        scores = found[names.scores]
        if scores.ndim != 2 or len(scores) != len(items) or not scores.shape[1] or scores.dtype.kind not in "fiu":
            raise ModelUnavailable(f"scores are {list(scores.shape)} for {len(items)} users")
        if names.ids is None:
            return self._ranked(_as_float32(scores))
        rows = found[names.ids]
        if rows.shape != scores.shape or rows.dtype.kind not in "iu":
            raise ModelUnavailable(f"ids are {rows.dtype}{list(rows.shape)}, and scores are {list(scores.shape)}")
        return _as_float32(scores), rows.astype(np.int64)

    def _ranked(self, scores: Scores) -> tuple[Scores, Rows]:
        """The best of plain scores."""
        if scores.shape[1] == len(self.items) - 1:
            scores = np.pad(scores, ((0, 0), (1, 0)))
        if scores.shape[1] != len(self.items):
            raise ModelUnavailable(f"there are {scores.shape[1]} scores for {len(self.items) - 1} items")
        return best_of(scores, self._top_k)


def _as_float32(scores: npt.NDArray[Any]) -> Scores:
    """`scores` with NaN for numbers that float32 cannot hold: infinite, they would be ranked, or left out."""
    with np.errstate(over="ignore"):
        found = scores.astype(np.float32)
    found[np.isinf(found) & np.isfinite(scores)] = np.nan
    return found
