"""A model that was trained elsewhere and does not change: its input from profiles, and the rules on its output."""

import logging
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.lists import item_fragment
from udfs.failure_share import FailureShare
from udfs.fault_log import FaultLog
from udfs.guarded_model import REST_MS, GuardedModel, Scoring
from udfs.had_items import ENTRY, counts_of, item_hash
from udfs.left_out import Ints, among
from udfs.model_inputs import ModelInputs
from udfs.profile import ProfileBounds
from udfs.ranking import ListRules, Ranked
from udfs.state import Profile

_Owned = tuple[Ints, Ints]
"""Values, preceded by the place of the user whose each is, as :func:`udfs.left_out.among` takes them."""
logger = logging.getLogger(__name__)


class FrozenModel:
    """A :class:`udfs.ranking.ListModel`: guarded, with its items and its `name` as lists contain them.

    `rest_ms`: how long it is not asked after it was too slow, or failed for a whole batch. `stands_in`: whether
    another model then makes the lists (:class:`udfs.fallback_model.FallbackModel`).
    """

    def __init__(
        self,
        model: Scoring,
        name: str,
        bounds: ProfileBounds | None = None,
        rest_ms: int = REST_MS,
        stands_in: bool = False,
    ) -> None:
        self.name = name
        self.name_json = msgspec.json.encode(name)
        self.index = model.index
        self.fragments = np.array([item_fragment(item) for item in model.items], object)
        self.guarded = GuardedModel(model, rest_ms, stands_in)
        self.report_failure = FaultLog(logger, "a list cannot be computed: its user has none")
        self._hashes = np.array([item_hash(item) for item in model.items], np.int64)
        self.inputs = ModelInputs(model.index, model.wanted, bounds or ProfileBounds())
        self._share, self._noted = FailureShare(), 0
        self._has_failed_most = False

    def knows(self, item: str) -> bool:
        """See :class:`udfs.ranking.ListModel`."""
        return item in self.index

    @property
    def failed(self) -> int:
        """See :class:`udfs.ranking.ListModel`."""
        return self.guarded.failed + self.report_failure.count

    @property
    def failing(self) -> bool:
        """See :class:`udfs.ranking.ListModel`."""
        return self.guarded.rested or self.fails_for_most()

    def fails_for_most(self) -> bool:
        """Whether it ever failed for most of the users who were asked about lately."""
        self._note(0)
        return self._has_failed_most

    def forget_failures(self) -> None:
        """Judge it anew."""
        self._share, self._noted, self._has_failed_most = FailureShare(), self.failed, False

    def _note(self, asked: int) -> None:
        self._share.add(asked, self.failed - self._noted)
        self._noted = self.failed
        self._has_failed_most |= self._share.is_most

    def ranked(self, profiles: Sequence[Profile], rules: ListRules, now_ms: int) -> Ranked:
        """See :class:`udfs.ranking.ListModel`. All users are scored in one batch."""
        inputs = self.inputs.of(profiles, now_ms)
        items = inputs.items
        scores, rows = self.guarded.score(items, inputs.weights, now_ms, inputs.features)
        self._note(len(profiles))
        kept = np.isfinite(scores) & items.any(axis=1)[:, None]
        kept &= ~among(rows, *self._left_out(profiles, items, rules))
        if rules.exclude_had:
            kept &= ~among(self._hashes[rows], *_had(profiles))
        kept &= np.cumsum(kept, axis=1) <= rules.items
        return Ranked(scores, rows, kept)

    def _left_out(self, profiles: Sequence[Profile], items: npt.NDArray[np.int32], rules: ListRules) -> _Owned:
        """Rows of what users met last, and bought."""
        owners, values = np.zeros(0, np.int64), np.zeros(0, np.int64)
        if rules.exclude_recent:
            recent = items[:, -rules.exclude_recent :]
            owners, columns = np.nonzero(recent)
            values = recent[owners, columns].astype(np.int64)
        if rules.exclude_bought:
            row_of = self.index.get
            bought = [(user, row_of(item, 0)) for user, profile in enumerate(profiles) for item in profile.bought]
            more = np.array(bought, np.int64).reshape(-1, 2)
            owners, values = np.concatenate([owners, more[:, 0]]), np.concatenate([values, more[:, 1]])
        return owners, values


def _had(profiles: Sequence[Profile]) -> _Owned:
    """Checksums of the items that users have met."""
    had = counts_of(b"".join(profile.had for profile in profiles))["item"].astype(np.int64)
    sizes = [len(profile.had) // ENTRY.itemsize for profile in profiles]
    return np.repeat(np.arange(len(profiles)), sizes), had
