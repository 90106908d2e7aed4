"""A model that was trained elsewhere and does not change: its input from profiles, and the rules on its output."""

import logging
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.lists import item_fragment
from udfs.fault_log import FaultLog
from udfs.guarded_model import GuardedModel, Scoring
from udfs.had_items import counts_of, item_hash
from udfs.profile import RECENT_ITEMS_MAX, WEIGHT_OF_KIND, ProfileBounds
from udfs.ranking import ListRules, Ranked
from udfs.state import Profile

WEIGHTS: Final = np.array(WEIGHT_OF_KIND)
logger = logging.getLogger(__name__)


class FrozenModel:
    """A :class:`udfs.ranking.ListModel`: guarded, with its items and its `name` as lists contain them."""

    def __init__(self, model: Scoring, name: str, bounds: ProfileBounds | None = None) -> None:
        self.name = name
        self.name_json = msgspec.json.encode(name)
        self.index = model.index
        self.fragments = np.array([item_fragment(item) for item in model.items], object)
        self.guarded = GuardedModel(model)
        self.report_failure = FaultLog(logger, "a list cannot be computed: its user has none")
        self._hashes = np.array([item_hash(item) for item in model.items], np.int64)
        self._bounds = bounds or ProfileBounds()

    @property
    def failed(self) -> int:
        """See :class:`udfs.ranking.ListModel`."""
        return self.guarded.failed + self.report_failure.count

    def ranked(self, profiles: Sequence[Profile], rules: ListRules, now_ms: int) -> Ranked:
        """See :class:`udfs.ranking.ListModel`. All users are scored in one batch."""
        items, weights = self._features(profiles)
        scores, rows = self.guarded.score(items, weights, now_ms)
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

    def _features(self, profiles: Sequence[Profile]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Rows int32 and weights float32, both [users, RECENT_ITEMS_MAX], newest last, padded with 0 on the left.

        A weight is that of the item's kind, halved for every `recents_half_life_ms` before the user's newest event.
        Items that the model does not know leave no gap.
        """
        recents = [recent for profile in profiles for recent in profile.recents]
        row_of = self.index.get
        rows = np.array([row_of(item, 0) for item, _, _ in recents], np.int32)
        known = np.flatnonzero(rows)
        users = np.repeat(np.arange(len(profiles)), [len(profile.recents) for profile in profiles])[known]
        sizes = np.bincount(users, minlength=len(profiles))
        columns = np.arange(len(known)) + np.repeat(RECENT_ITEMS_MAX - np.cumsum(sizes), sizes)
        newest = np.array([profile.newest_ts for profile in profiles])[users]
        ages = newest - np.array([ts for _, ts, _ in recents], np.int64)[known]
        kinds = np.array([kind for _, _, kind in recents], np.int64)[known]

        items = np.zeros((len(profiles), RECENT_ITEMS_MAX), np.int32)
        weights = np.zeros((len(profiles), RECENT_ITEMS_MAX), np.float32)
        items[users, columns] = rows[known]
        weights[users, columns] = WEIGHTS[kinds] * np.exp2(-ages / self._bounds.recents_half_life_ms)
        return items, weights

    def _had(self, profiles: Sequence[Profile], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which of `rows` are items that their user has met: bool[users, k]. One search for all users."""
        had = counts_of(b"".join(profile.had for profile in profiles))["item"].astype(np.int64)
        owners = np.repeat(np.arange(len(profiles)), [len(counts_of(profile.had)) for profile in profiles])
        return np.isin(self._hashes[rows] | np.arange(len(profiles))[:, None] << 32, had | owners << 32)
