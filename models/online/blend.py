"""Runs the online model: ranks histories with tables, and tells what there is to learn from what followed."""

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.online.blend_graph import blend_model
from models.online.dimensions import CANDIDATES, HISTORY, OWN_ITEMS
from models.online.score_weights import Gradients, context_of, gradients_of
from models.online.tables import Tables
from models.scorer import open_session

CHUNK_USERS: Final = 32
RANKING: Final = ["scores", "ids"]
LEARNING: Final = ["candidate_scores", "features", "candidates"]
Rows = npt.NDArray[np.int32]


class Histories(NamedTuple):
    """Of users, by row of :class:`Tables`: `items` int32[users, 20] newest last, padded with 0 on the left; `excluded`
    int32[users, any], 0 where there is none; `own` int32[users, 64] and how often the user met each, `own_counts`
    float32[users, 64]; `sizes` int64[users]: items in each history, also those that have no row."""

    items: Rows
    excluded: Rows
    own: Rows
    own_counts: npt.NDArray[np.float32]
    sizes: npt.NDArray[np.int64]

    def part(self, at: slice) -> "Histories":
        """Some of the users."""
        return Histories(self.items[at], self.excluded[at], self.own[at], self.own_counts[at], self.sizes[at])


class Blend:
    """One session, whatever the tables. `rank` and `gradients` may be called from any thread."""

    def __init__(self) -> None:
        self._session = open_session(blend_model().SerializeToString(), "the graph of the online model")
        self._nobody = np.zeros((0, 0), np.int16)

    def rank(
        self, histories: Histories, tables: Tables, size: int = CANDIDATES
    ) -> tuple[npt.NDArray[np.float32], Rows]:
        """(scores float32[users, size], rows int32[users, size]), best first, -inf where there is no more.

        `size` is at most :data:`CANDIDATES`, which is all there are.
        """
        cuts = range(0, len(histories.items), CHUNK_USERS)
        parts = [self._run(RANKING, histories.part(slice(at, at + CHUNK_USERS)), tables, size) for at in cuts]
        scores, rows = zip(*parts, strict=True)
        return np.concatenate(scores), np.concatenate(rows)

    def gradients(self, histories: Histories, tables: Tables, followed: list[Rows]) -> Gradients:
        """What is to be learned from the rows that `followed` each history."""
        scores, features, candidates = self._run(LEARNING, histories, tables)
        hits = np.stack([np.isin(row, rows) for row, rows in zip(candidates, followed, strict=True)])
        return gradients_of(scores, features, hits & np.isfinite(scores), context_of(histories.sizes))

    def parts(self, histories: Histories, tables: Tables) -> tuple[Rows, npt.NDArray[np.float64]]:
        """Of one history: the candidates, and what each feature adds to the score of each: float64[n, features]."""
        scores, features, candidates = self._run(LEARNING, histories, tables)
        usable = np.isfinite(scores[0])
        weights = tables.weights(context_of(histories.sizes)).astype(np.float64)
        return candidates[0, usable], features[0][:, usable].T * weights[0]

    def _run(
        self, outputs: list[str], histories: Histories, tables: Tables, size: int = CANDIDATES
    ) -> list[npt.NDArray[Any]]:
        feed = {
            "items": histories.items,
            "excluded": histories.excluded,
            "own": histories.own,
            "own_counts": histories.own_counts,
            "weights": tables.weights(context_of(histories.sizes)),
            "nobody": self._zeros(len(histories.items), len(tables.feed["right_root"])),
            "size": np.array([size]),
            **tables.feed,
        }
        return self._session.run(outputs, feed)  # type: ignore[no-any-return]

    def _zeros(self, users: int, rows: int) -> npt.NDArray[np.int16]:
        """Kept from run to run: making them costs a tenth of a run."""
        zeros = self._nobody
        if zeros.shape[1] != rows or len(zeros) < users:
            zeros = self._nobody = np.zeros((max(users, CHUNK_USERS), rows), np.int16)
        return zeros[:users]


def empty_histories(users: int, excluded: int = 1) -> Histories:
    """Histories to be filled."""
    return Histories(
        np.zeros((users, HISTORY), np.int32),
        np.zeros((users, excluded), np.int32),
        np.zeros((users, OWN_ITEMS), np.int32),
        np.zeros((users, OWN_ITEMS), np.float32),
        np.zeros(users, np.int64),
    )
