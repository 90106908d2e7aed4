"""From changed users to lists: the model's input made from profiles, its output filtered by rule and put into bytes.

All changed users of an element are scored in one batch, each once, however many events they had.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from schemas.consents import Level
from schemas.lists import Reason, RecommendationList, encode_list, item_fragment
from udfs.profile import RECENT_ITEMS_MAX, AtLeastOne, ProfileBounds, recency_weights
from udfs.state import Profile, UserState


class ListRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How lists are made of what the model and popularity say."""

    items: AtLeastOne = 30
    exclude_bought: bool = True
    exclude_recent: Annotated[int, Meta(ge=0)] = RECENT_ITEMS_MAX


class Scoring(Protocol):
    """What ranking needs of a model; :class:`models.scorer.Scorer` is one.

    `items` is row → item id with row 0 for padding, `index` item id → row.
    """

    items: list[str]
    index: dict[str, int]

    def score(
        self, items: npt.NDArray[np.int32], weights: npt.NDArray[np.float32] | None
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """(scores float32[users, k], rows int[users, k]), best first, for int32[users, RECENT_ITEMS_MAX] rows."""
        ...


class PopularItems(NamedTuple):
    """A popular list opened for filling lists up: parallel ids, fragments and scores, best first."""

    ids: Sequence[str] = ()
    fragments: Sequence[bytes] = ()
    scores: Sequence[float] = ()

    @classmethod
    def of(cls, popular: RecommendationList) -> "PopularItems":
        """The items of a popular list as it stands in Redis."""
        ids = [item.id for item in popular.items]
        return cls(ids, [item_fragment(item) for item in ids], [item.score for item in popular.items])

    @classmethod
    def ranked(cls, ids: Sequence[str]) -> "PopularItems":
        """Items known only by their order: the score is the reciprocal rank."""
        return cls(ids, [item_fragment(item) for item in ids], [1.0 / rank for rank in range(1, len(ids) + 1)])


class ListWrite(NamedTuple):
    """A list to be written: made for consent `level`, at the user's `version`."""

    pseudonym: str
    version: int
    level: Level
    reason: Reason
    ttl_ms: int
    payload: bytes


class Ranker:
    """Makes lists. `epoch` is the submission time in ms that all writes of this job carry."""

    def __init__(self, model: Scoring, model_name: str, rules: ListRules, bounds: ProfileBounds, epoch: int) -> None:
        self._model = model
        self._model_json = msgspec.json.encode(model_name)
        self._fragments = [item_fragment(item) for item in model.items]
        self._rules = rules
        self._bounds = bounds
        self._epoch = epoch

    def rank(
        self, users: Mapping[str, UserState], popular: PopularItems, now_ms: int, list_ttl_ms: int
    ) -> list[ListWrite]:
        """One list for each of `users` that has a profile and something to be told from it."""
        ready = [(pseudonym, state, state.profile) for pseudonym, state in users.items() if state.profile is not None]
        if not ready:
            return []
        items, weights = self._features([profile for _, _, profile in ready])
        scores, rows = self._model.score(items, weights)
        rounded = np.round(scores.astype(np.float64), 4).tolist()
        writes = []
        for (pseudonym, state, profile), known, its_scores, its_rows in zip(
            ready, items.any(axis=1).tolist(), rounded, rows.tolist(), strict=True
        ):
            reason: Reason = "popular" if not known else "session" if state.level == Level.SESSION else "personalised"
            fragments, values = self._assemble(profile, its_rows if known else [], its_scores, popular)
            if fragments:
                payload = encode_list(state.version, self._epoch, self._model_json, now_ms, reason, fragments, values)
                ttl_ms = self._bounds.session_gap_ms if state.level == Level.SESSION else list_ttl_ms
                writes.append(ListWrite(pseudonym, state.version, Level(state.level), reason, ttl_ms, payload))
        return writes

    def _features(self, profiles: Sequence[Profile]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Rows int32 and weights float32, both [users, RECENT_ITEMS_MAX], newest last, padded with 0 on the left.

        Items that the model does not know leave no gap.
        """
        items = np.zeros((len(profiles), RECENT_ITEMS_MAX), np.int32)
        weights = np.zeros((len(profiles), RECENT_ITEMS_MAX), np.float32)
        index = self._model.index
        for user, profile in enumerate(profiles):
            weight_of = recency_weights(profile, self._bounds.recents_half_life_ms)
            known = [
                (row, weight)
                for (item, _, _), weight in zip(profile.recents, weight_of, strict=True)
                if (row := index.get(item))
            ]
            if known:
                items[user, -len(known) :], weights[user, -len(known) :] = zip(*known, strict=True)
        return items, weights

    def _assemble(
        self, profile: Profile, rows: Sequence[int], scores: Sequence[float], popular: PopularItems
    ) -> tuple[list[bytes], list[float]]:
        """The first items that the rules leave, filled up from `popular` where the model's run out."""
        skip = self._excluded(profile)
        index, size = self._model.index, self._rules.items
        skip_rows = {index[item] for item in skip if item in index}
        kept = [(row, score) for row, score in zip(rows, scores, strict=False) if row not in skip_rows][:size]
        fragments, values = [self._fragments[row] for row, _ in kept], [score for _, score in kept]
        if len(kept) < size and popular.ids:
            skip |= {self._model.items[row] for row, _ in kept}
            lowest = min(values, default=None)
            for item, fragment, score in zip(*popular, strict=True):
                if item not in skip and len(fragments) < size:
                    fragments.append(fragment)
                    values.append(score if lowest is None else min(lowest, score))
        return fragments, values

    def _excluded(self, profile: Profile) -> set[str]:
        skip = set(profile.bought) if self._rules.exclude_bought else set()
        if self._rules.exclude_recent:
            skip.update(item for item, _, _ in profile.recents[-self._rules.exclude_recent :])
        return skip
