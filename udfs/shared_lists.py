"""Lists that are nobody's own, from what was learned: items similar to each item, and items that are trending.

Both follow from what the learner publishes anyway: only items, and pairs of items, that several users have met.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Final

import msgspec
import numpy as np

from models.online.dimensions import NEIGHBOURS
from models.online.item_popularity import ItemPopularity
from models.online.learner import USERS_MIN
from models.online.tables import Tables
from models.online.trending import trending
from models.online.updates import Update
from schemas.lists import encode_list, encode_scores, item_fragment, join_list
from schemas.store import SimilarList
from schemas.topics import MINUTE_MS
from udfs.arranging import arrange_one
from udfs.assortment import SIMILAR, Assortment, ShelfRules
from udfs.learning import LearnSettings
from udfs.popularity import PopularitySettings

TRENDING_AGAIN_MS: Final = MINUTE_MS
"""When a list of trending items that has not changed is published again, before it expires."""


class SharedLists:
    """Says which lists to publish each second, from what was published of the model."""

    def __init__(
        self, learn: LearnSettings, popularity: PopularitySettings, epoch: int, model: str, assortment: Assortment
    ) -> None:
        self._assortment = assortment
        self._learn, self._popularity, self._epoch = learn, popularity, epoch
        self._model = model
        self._waiting: dict[int, None] = {}
        """Rows whose lists are to be published, those that changed first come first."""
        self._listed = set[int]()
        """Rows whose lists were published since the start, and are not empty."""
        self._trending: list[bytes] | None = []
        """What was published last; None if that is not known."""
        self._trending_at_ms = 0

    @property
    def are_left(self) -> bool:
        """Whether lists are left for the next second."""
        return bool(self._waiting)

    def note(self, update: Update) -> None:
        """Remember whose lists `update` changes."""
        self._waiting.update(dict.fromkeys(update.pair_rows().tolist()))

    def begin_anew(self, whole: Update) -> None:
        """Publish all lists of a model that replaces another one."""
        self._waiting.clear()
        self._listed.clear()
        self._trending = None
        self.note(whole)

    def ended(self, items: Iterable[str], tables: Tables, at_ms: int) -> list[SimilarList]:
        """Empty lists for items that had one: readers then answer with popular items."""
        payload = join_list(tables.sequence, self._epoch, self._name(tables), at_ms, "similar", [], [])
        return [SimilarList(item, tables.sequence, payload) for item in items]

    def similar(self, tables: Tables, at_ms: int) -> list[SimilarList]:
        """The next lists of similar items; one that has become empty is written, too."""
        taken = list(islice(self._waiting, self._learn.similar_lists_max))
        for row in taken:
            del self._waiting[row]
        rows = np.array([row for row in taken if row < len(tables.ids) and tables.ids[row]], np.int64)
        shelf = self._assortment.shelf(SIMILAR, at_ms)
        # With rules, all neighbours are asked for: those that are left out make room for others.
        found = tables.similar(rows, self._learn.similar_items if shelf is None else NEIGHBOURS)
        sizes = np.count_nonzero(found.likeness, axis=1).tolist()
        numbers = encode_scores(np.round(found.likeness, 4).ravel().tolist())
        model = self._name(tables)
        lists, ended = [], []
        for place, (row, size) in enumerate(zip(rows.tolist(), sizes, strict=True)):
            first = place * found.likeness.shape[1]
            fragments = [item_fragment(tables.ids[other]) for other in found.rows[place, :size].tolist()]
            scores = numbers[first : first + size]
            if shelf is not None:
                fragments, scores = self._shown(fragments, scores, shelf)
            if fragments:
                payload = join_list(tables.sequence, self._epoch, model, at_ms, "similar", fragments, scores)
                lists.append(SimilarList(tables.ids[row], tables.sequence, payload))
                self._listed.add(row)
            elif row in self._listed:
                self._listed.remove(row)
                ended.append(tables.ids[row])
        return lists + self.ended(ended, tables, at_ms)

    def trending(self, popularity: ItemPopularity, tables: Tables, at_ms: int) -> bytes | None:
        """The list of trending items, also when it has become empty; None if it was published already."""
        # Tables name no item of fewer users.
        users_min = max(USERS_MIN, self._popularity.users_min)
        rows, scores = trending(popularity, self._popularity.list_items, users_min)
        fragments, shown = [item_fragment(tables.ids[row]) for row in rows.tolist()], scores.tolist()
        if (shelf := self._assortment.shelf("trending", at_ms)) is not None and fragments:
            fragments, shown = arrange_one(
                fragments, shown, shelf, self._assortment.code_of, self._popularity.list_items
            )
        if fragments == self._trending and (not fragments or at_ms - self._trending_at_ms < TRENDING_AGAIN_MS):
            return None
        self._trending, self._trending_at_ms = fragments, at_ms
        rounded = np.round(shown, 6).tolist()
        return encode_list(tables.sequence, self._epoch, self._name(tables), at_ms, "trending", fragments, rounded)

    def _shown(
        self, fragments: list[bytes], numbers: list[bytes], shelf: ShelfRules
    ) -> tuple[list[bytes], list[bytes]]:
        """Those that may be listed, as many as a list has."""
        code_of = self._assortment.code_of
        kept = [place for place, one in enumerate(fragments) if not shelf.excluded[code_of.get(one, 0)]]
        kept = kept[: self._learn.similar_items]
        return [fragments[place] for place in kept], [numbers[place] for place in kept]

    def _name(self, tables: Tables) -> bytes:
        return msgspec.json.encode(f"{self._model}@{tables.sequence}")
