"""Ranking: builds the model's input from profiles, filters its output, and encodes lists.

All changed users of an element are scored in one batch, once each, however many events they had.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from schemas.consents import Level
from schemas.lists import Reason, RecommendationList, encode_scores, item_fragment, join_list
from schemas.store import ListWrite, consent_value
from udfs.fault_log import FaultLog
from udfs.guarded_model import GuardedModel, Scoring
from udfs.profile import RECENT_ITEMS_MAX, WEIGHT_OF_KIND, AtLeastOne, ProfileBounds
from udfs.state import Profile, UserState

WEIGHTS: Final = np.array(WEIGHT_OF_KIND)
LEVELS: Final = tuple(Level)
logger = logging.getLogger(__name__)


class ListRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What goes into a list."""

    items: AtLeastOne = 30
    """Items in a list."""
    exclude_bought: bool = True
    """Leave out what the user has bought."""
    exclude_recent: Annotated[int, Meta(ge=0)] = RECENT_ITEMS_MAX
    """Leave out this many of the user's most recent items."""


class PopularItems(NamedTuple):
    """A popular list decoded for filling up other lists: parallel ids, fragments and scores, best first."""

    ids: Sequence[str] = ()
    fragments: Sequence[bytes] = ()
    scores: Sequence[float] = ()

    @classmethod
    def of(cls, popular: RecommendationList) -> "PopularItems":
        """The items of a popular list as stored in Redis."""
        ids = [item.id for item in popular.items]
        return cls(ids, [item_fragment(item) for item in ids], [item.score for item in popular.items])

    @classmethod
    def ranked(cls, ids: Sequence[str]) -> "PopularItems":
        """Items of which only the order is known: the score is the reciprocal rank."""
        return cls(ids, [item_fragment(item) for item in ids], [1.0 / rank for rank in range(1, len(ids) + 1)])


class RankingModel:
    """The model that makes lists: guarded, with its items and its `name` as lists contain them."""

    def __init__(self, model: Scoring, name: str) -> None:
        self.name = name
        self.name_json = msgspec.json.encode(name)
        self.index = model.index
        self.fragments = np.array([item_fragment(item) for item in model.items], object)
        self.guarded = GuardedModel(model)
        self.report_failure = FaultLog(logger, "a list cannot be computed: its user has none")

    @property
    def failed(self) -> int:
        """For how many users the model, or ranking with it, has failed since the worker started."""
        return self.guarded.failed + self.report_failure.count


class Ranker:
    """Computes lists with a given model. `epoch` is the submission time in ms that all its writes carry.

    The hot path works on columns, not on users: one step for all users of an element wherever numpy has one.
    """

    def __init__(self, rules: ListRules, bounds: ProfileBounds, epoch: int) -> None:
        self._rules = rules
        self._bounds = bounds
        self._epoch = epoch

    def rank(
        self,
        users: Mapping[str, UserState],
        popular: PopularItems,
        model: RankingModel,
        now_ms: int,
        list_ttl_ms: int,
    ) -> list[ListWrite]:
        """One list by `model` for each of `users` that has a profile, and items to recommend.

        If ranking fails for one user, for whatever reason, the others still get theirs.
        """
        try:
            return self._rank(users, popular, model, now_ms, list_ttl_ms)
        except Exception as error:  # no list may stop the job: consents and withdrawals would wait
            if len(users) == 1:
                model.report_failure(error)
                return []
        alone = [{pseudonym: state} for pseudonym, state in users.items()]
        return [write for one in alone for write in self.rank(one, popular, model, now_ms, list_ttl_ms)]

    def _rank(
        self,
        users: Mapping[str, UserState],
        popular: PopularItems,
        model: RankingModel,
        now_ms: int,
        list_ttl_ms: int,
    ) -> list[ListWrite]:
        ready = [(pseudonym, state, state.profile) for pseudonym, state in users.items() if state.profile is not None]
        if not ready:
            return []
        profiles = [profile for _, _, profile in ready]
        items, weights = self._features(profiles, model)
        scores, rows = model.guarded.score(items, weights, now_ms)
        known = items.any(axis=1)
        kept = self._kept(profiles, model, items, scores, rows) & known[:, None]
        fragments = model.fragments[rows[kept]].tolist()
        numbers = encode_scores(np.round(scores[kept].astype(np.float64), 4).tolist())
        writes, start = [], 0
        for (pseudonym, state, profile), size in zip(ready, kept.sum(axis=1).tolist(), strict=True):
            end = start + size
            mine, its_numbers = fragments[start:end], numbers[start:end]
            if size < self._rules.items:
                self._fill_up(mine, its_numbers, profile, popular)
            if mine:
                writes.append(self._write(pseudonym, state, model, size > 0, mine, its_numbers, now_ms, list_ttl_ms))
            start = end
        return writes

    def _write(
        self,
        pseudonym: str,
        state: UserState,
        model: RankingModel,
        scored: bool,
        fragments: list[bytes],
        numbers: list[bytes],
        now_ms: int,
        list_ttl_ms: int,
    ) -> ListWrite:
        session = state.level == Level.SESSION
        reason: Reason = "popular" if not scored else "session" if session else "personalised"
        payload = join_list(state.version, self._epoch, model.name_json, now_ms, reason, fragments, numbers)
        ttl_ms = self._bounds.session_gap_ms if session else list_ttl_ms
        consent = consent_value(
            LEVELS[state.level],
            state.expires_at,
            state.consent_at,
            state.consent_partition,
            state.consent_offset,
        )
        return ListWrite(pseudonym, state.version, consent, reason, ttl_ms, payload, model.name)

    def _features(
        self, profiles: Sequence[Profile], model: RankingModel
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Rows int32 and weights float32, both [users, RECENT_ITEMS_MAX], newest last, padded with 0 on the left.

        A weight is that of the item's kind, halved for every `recents_half_life_ms` before the user's newest event.
        Items that the model does not know leave no gap.
        """
        recents = [recent for profile in profiles for recent in profile.recents]
        row_of = model.index.get
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

    def _kept(
        self,
        profiles: Sequence[Profile],
        model: RankingModel,
        items: npt.NDArray[np.int32],
        scores: npt.NDArray[np.float32],
        rows: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.bool_]:
        """Which of `rows` pass the rules, at most `items` per user: bool[users, k]."""
        kept = np.isfinite(scores)
        if self._rules.exclude_recent:
            recent = items[:, -self._rules.exclude_recent :]
            kept &= ~(rows[:, :, None] == recent[:, None, :]).any(axis=2)
        if self._rules.exclude_bought:
            index = model.index
            for user, profile in enumerate(profiles):
                if profile.bought:
                    kept[user] &= ~np.isin(rows[user], [index.get(item, 0) for item in profile.bought])
        kept &= np.cumsum(kept, axis=1) <= self._rules.items
        return kept

    def _fill_up(self, fragments: list[bytes], numbers: list[bytes], profile: Profile, popular: PopularItems) -> None:
        """Fill up a short list with popular items, by the same rules, scored no higher than its last item."""
        skip = set(profile.bought) if self._rules.exclude_bought else set()
        if self._rules.exclude_recent:
            skip.update(item for item, _, _ in profile.recents[-self._rules.exclude_recent :])
        listed = set(fragments)
        lowest = float(numbers[-1]) if numbers else math.inf
        for item, fragment, score in zip(*popular, strict=True):
            if len(fragments) == self._rules.items:
                return
            if item not in skip and fragment not in listed:
                fragments.append(fragment)
                numbers.append(b"%.4f" % min(lowest, score))
