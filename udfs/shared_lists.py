"""Lists that are nobody's own, from what was learned: items similar to each item, and items that are trending.

Both follow from what the learner publishes anyway: only items, and pairs of items, that several users have met.
"""

from itertools import islice
from typing import Final

import msgspec
import numpy as np

from models.online.item_popularity import ItemPopularity
from models.online.learner import USERS_MIN
from models.online.tables import Tables
from models.online.trending import trending
from models.online.updates import Update
from schemas.lists import encode_list, encode_scores, item_fragment, join_list
from schemas.store import SimilarList
from schemas.topics import MINUTE_MS
from udfs.learning import LearnSettings
from udfs.popularity import PopularitySettings

TRENDING_AGAIN_MS: Final = MINUTE_MS
"""When a list of trending items that has not changed is published again, before it expires."""


class SharedLists:
    """Says which lists to publish each second, from what was published of the model."""

    def __init__(self, learn: LearnSettings, popularity: PopularitySettings, epoch: int, model: str) -> None:
        self._learn, self._popularity, self._epoch = learn, popularity, epoch
        self._model = model
        self._waiting: dict[int, None] = {}
        """Rows whose lists are to be published, those that changed first come first."""
        self._trending: list[str] = []
        self._trending_at_ms = 0

    @property
    def are_left(self) -> bool:
        """Whether lists are left for the next second."""
        return bool(self._waiting)

    def note(self, update: Update) -> None:
        """Remember whose lists `update` changes."""
        self._waiting.update(dict.fromkeys(update.pair_rows().tolist()))

    def similar(self, tables: Tables, at_ms: int) -> list[SimilarList]:
        """The next lists of similar items; items that are alike to none have no list."""
        taken = list(islice(self._waiting, self._learn.similar_lists_max))
        for row in taken:
            del self._waiting[row]
        rows = np.array([row for row in taken if row < len(tables.ids) and tables.ids[row]], np.int64)
        found = tables.similar(rows, self._learn.similar_items)
        sizes = np.count_nonzero(found.likeness, axis=1).tolist()
        numbers = encode_scores(np.round(found.likeness, 4).ravel().tolist())
        model = self._name(tables)
        lists = []
        for place, (row, size) in enumerate(zip(rows.tolist(), sizes, strict=True)):
            if size:
                first = place * found.likeness.shape[1]
                fragments = [item_fragment(tables.ids[other]) for other in found.rows[place, :size].tolist()]
                scores = numbers[first : first + size]
                payload = join_list(tables.sequence, self._epoch, model, at_ms, "similar", fragments, scores)
                lists.append(SimilarList(tables.ids[row], tables.sequence, payload))
        return lists

    def trending(self, popularity: ItemPopularity, tables: Tables, at_ms: int) -> bytes | None:
        """The list of trending items, or None if there is none, or it was published already."""
        # Tables name no item of fewer users.
        users_min = max(USERS_MIN, self._popularity.users_min)
        rows, scores = trending(popularity, self._popularity.list_items, users_min)
        items = [tables.ids[row] for row in rows.tolist()]
        if not items or (items == self._trending and at_ms - self._trending_at_ms < TRENDING_AGAIN_MS):
            return None
        self._trending, self._trending_at_ms = items, at_ms
        fragments = [item_fragment(item) for item in items]
        rounded = np.round(scores, 6).tolist()
        return encode_list(tables.sequence, self._epoch, self._name(tables), at_ms, "trending", fragments, rounded)

    def _name(self, tables: Tables) -> bytes:
        return msgspec.json.encode(f"{self._model}@{tables.sequence}")
