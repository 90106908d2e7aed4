"""A model that was trained elsewhere and does not change: its input from profiles, and the rules on its output."""

import logging
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.lists import item_fragment
from udfs.fault_log import FaultLog
from udfs.guarded_model import REST_MS, GuardedModel, Scoring
from udfs.had_items import counts_of, item_hash
from udfs.model_inputs import ModelInputs
from udfs.profile import ProfileBounds
from udfs.ranking import ListRules, Ranked
from udfs.state import Profile

FAILED_USERS: Final = 32
"""A model that has failed for so many users, and for more than half of all, is failing."""
logger = logging.getLogger(__name__)


class FrozenModel:
    """A :class:`udfs.ranking.ListModel`: guarded, with its items and its `name` as lists contain them.

    `rest_ms`: how long it is not asked after it was too slow, or failed for a whole batch.
    """

    def __init__(self, model: Scoring, name: str, bounds: ProfileBounds | None = None, rest_ms: int = REST_MS) -> None:
        self.name = name
        self.name_json = msgspec.json.encode(name)
        self.index = model.index
        self.fragments = np.array([item_fragment(item) for item in model.items], object)
        self.guarded = GuardedModel(model, rest_ms)
        self.report_failure = FaultLog(logger, "a list cannot be computed: its user has none")
        self._hashes = np.array([item_hash(item) for item in model.items], np.int64)
        self.inputs = ModelInputs(model.index, model.wanted, bounds or ProfileBounds())
        self._asked = 0

    @property
    def failed(self) -> int:
        """See :class:`udfs.ranking.ListModel`."""
        return self.guarded.failed + self.report_failure.count

    @property
    def failing(self) -> bool:
        """See :class:`udfs.ranking.ListModel`."""
        return self.guarded.rested or (self.failed >= FAILED_USERS and 2 * self.failed > self._asked)

    def ranked(self, profiles: Sequence[Profile], rules: ListRules, now_ms: int) -> Ranked:
        """See :class:`udfs.ranking.ListModel`. All users are scored in one batch."""
        self._asked += len(profiles)
        inputs = self.inputs.of(profiles, now_ms)
        items = inputs.items
        scores, rows = self.guarded.score(items, inputs.weights, now_ms, inputs.features)
        kept = np.isfinite(scores) & items.any(axis=1)[:, None]
        if rules.exclude_recent:
            recent = items[:, -rules.exclude_recent :]
            kept &= ~(rows[:, :, None] == recent[:, None, :]).any(axis=2)
        if rules.exclude_bought:
            for user, profile in enumerate(profiles):
                if profile.bought:
                    kept[user] &= ~np.isin(rows[user], [self.index.get(item, 0) for item in profile.bought])
        if rules.exclude_had:
            kept &= ~self._had(profiles, rows)
        kept &= np.cumsum(kept, axis=1) <= rules.items
        return Ranked(scores, rows, kept)

    def _had(self, profiles: Sequence[Profile], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which of `rows` are items that their user has met: bool[users, k]. One search for all users."""
        had = counts_of(b"".join(profile.had for profile in profiles))["item"].astype(np.int64)
        owners = np.repeat(np.arange(len(profiles)), [len(counts_of(profile.had)) for profile in profiles])
        return np.isin(self._hashes[rows] | np.arange(len(profiles))[:, None] << 32, had | owners << 32)
