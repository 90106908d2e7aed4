"""The online model in a job: follows what the learner publishes, ranks profiles, and says what is to be learned."""

import logging
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from models.online.blend import Blend, Histories, empty_histories
from models.online.dimensions import CANDIDATES, OWN_ITEMS
from models.online.score_weights import Gradients
from models.online.tables import Tables
from models.online.updates import Update, decode_update
from schemas.errors import ModelError, SchemaError
from schemas.lists import item_fragment
from schemas.store import PublishedUpdate
from udfs.fault_log import FaultLog
from udfs.had_items import ENTRY, counts_of, item_hash
from udfs.learning import Example, profile_of
from udfs.ranking import ListRules, Ranked
from udfs.state import Profile

ONLINE: Final = "online"
UPDATES_AT_ONCE: Final = 64
"""A scorer that is further behind goes on in the next second."""
logger = logging.getLogger(__name__)


class Published(Protocol):
    """Where the learner publishes; :class:`udfs.operators.list_store.ListStore` is one."""

    def update_after(self, sequence: int) -> PublishedUpdate: ...  # noqa: D102
    def whole_model(self) -> bytes | None: ...  # noqa: D102


class OnlineModel:
    """A :class:`udfs.ranking.ListModel` that is empty until the learner has published something.

    A list names the sequence of the tables that made it.
    """

    def __init__(self) -> None:
        self._blend = Blend()
        self.report_failure = FaultLog(logger, "a list cannot be computed: its user has none")
        self._report_update = FaultLog(logger, "an update of the online model cannot be applied: the whole is read")
        self.use(Tables())

    def use(self, tables: Tables) -> None:
        """Rank with these tables."""
        self.tables = tables
        self.fragments = np.array([item_fragment(item) for item in tables.ids], object)
        self._named = list(tables.ids)
        self._row_of_hash = {item_hash(item): row for item, row in tables.index.items()}
        self._rename()

    def _rename(self) -> None:
        self.name = f"{ONLINE}@{self.tables.sequence}"
        self.name_json = msgspec.json.encode(self.name)

    def knows(self, item: str) -> bool:
        """See :class:`udfs.ranking.ListModel`."""
        return item in self.tables.index

    @property
    def failed(self) -> int:
        """See :class:`udfs.ranking.ListModel`."""
        return self.report_failure.count

    @property
    def failing(self) -> bool:
        """Never: it has no code of others, and its tables are followed anew when they are broken."""
        return False

    def forget(self) -> None:
        """Start with empty tables again."""
        self.use(Tables())

    def follow(self, published: Published) -> None:
        """Apply what the learner has published since. Tables that cannot be brought up to date are read as a whole."""
        try:
            if self.tables.sequence == 0 or not self._followed(published):
                self._read_whole(published)
        except (SchemaError, ModelError, ValueError, IndexError) as error:  # bytes of another release, or broken ones
            self._report_update(error)
            self.forget()

    def _followed(self, published: Published) -> bool:
        """Apply updates one after the other; False if one is missing."""
        for _ in range(UPDATES_AT_ONCE):
            found = published.update_after(self.tables.sequence)
            if found.update is None:
                return found.head in (self.tables.sequence, 0)
            if not self.apply([decode_update(found.update)]):
                return False
        return True

    def _read_whole(self, published: Published) -> None:
        raw = published.whole_model()
        if raw is None:
            return
        tables = Tables()
        tables.apply(decode_update(raw))
        tables.refresh()
        self.use(tables)
        self._followed(published)

    def apply(self, updates: Sequence[Update]) -> bool:
        """Apply updates in their order; False, at the first that does not follow what is here."""
        for update in updates:
            if update.after != self.tables.sequence:
                return False
            self.tables.apply(update)
            self._name_items([row for row, _, _ in update.names])
        if updates:
            self.tables.refresh()
            self._rename()
        return True

    def _name_items(self, rows: Sequence[int]) -> None:
        ids = self.tables.ids
        if len(ids) > len(self._named):
            more = len(ids) - len(self._named)
            self._named += [""] * more
            self.fragments = np.concatenate([self.fragments, np.full(more, b"", object)])
        for row in rows:
            if self._named[row]:
                self._row_of_hash.pop(item_hash(self._named[row]), None)
            self._named[row], self.fragments[row] = ids[row], item_fragment(ids[row])
            if ids[row]:
                self._row_of_hash[item_hash(ids[row])] = row

    def ranked(self, profiles: Sequence[Profile], rules: ListRules, now_ms: int) -> Ranked:
        """See :class:`udfs.ranking.ListModel`. Of users whose items are all unknown, nothing is kept."""
        if self.tables.is_empty:
            nothing = np.zeros((len(profiles), 1))
            return Ranked(nothing.astype(np.float32), nothing.astype(np.int64), nothing.astype(bool))
        histories = self.histories(profiles, rules)
        scores, rows = self._blend.rank(histories, self.tables, min(rules.items, CANDIDATES))
        broken = ~(scores < np.inf).all(axis=1)  # inf or NaN
        for _ in range(int(broken.sum())):
            self.report_failure(ModelError("scores that are no numbers"))
        kept = np.isfinite(scores) & histories.items.any(axis=1)[:, None] & ~broken[:, None]
        kept &= np.cumsum(kept, axis=1) <= rules.items
        return Ranked(scores, rows.astype(np.int64), kept, log_odds=True)

    def histories(self, profiles: Sequence[Profile], rules: ListRules) -> Histories:
        """The inputs of the graph; what `rules` leave out is excluded in it, so that candidates are not wasted."""
        row_of = self.tables.index.get
        left_out = [self._left_out(profile, rules) for profile in profiles]
        found = empty_histories(len(profiles), max(1, *(len(rows) for rows in left_out)))
        for user, profile in enumerate(profiles):
            rows = [row for item, _, _ in profile.recents if (row := row_of(item, 0))]
            found.sizes[user] = len(profile.recents)
            if rows:
                found.items[user, -len(rows) :] = rows
            found.excluded[user, : len(left_out[user])] = left_out[user]
            if not rules.exclude_had:
                self._fill_own(found, user, profile)
        return found

    def _left_out(self, profile: Profile, rules: ListRules) -> list[int]:
        row_of = self.tables.index.get
        rows = self._rows_of(profile.had) if rules.exclude_had else []
        if rules.exclude_bought:
            rows += [row_of(item, 0) for item in profile.bought]
        if rules.exclude_recent:
            rows += [row_of(item, 0) for item, _, _ in profile.recents[-rules.exclude_recent :]]
        return rows

    def _rows_of(self, had: bytes) -> list[int]:
        row_of = self._row_of_hash.get
        return [row_of(item, 0) for item in counts_of(had)["item"].tolist()]

    def _fill_own(self, found: Histories, user: int, profile: Profile) -> None:
        """The items met last, and how often, as candidates to be recommended again."""
        had = profile.had[-OWN_ITEMS * ENTRY.itemsize :]
        rows, counts = np.array(self._rows_of(had), np.int32), counts_of(had)["count"]
        known = np.flatnonzero(rows)
        found.own[user, : len(known)] = rows[known]
        found.own_counts[user, : len(known)] = np.log1p(counts[known].astype(np.float64)) * 0.5

    def parts(self, profile: Profile, rules: ListRules) -> tuple[list[str], npt.NDArray[np.float64]]:
        """The candidates for a profile, and what each feature adds to their scores: float64[candidates, features]."""
        rows, parts = self._blend.parts(self.histories([profile], rules), self.tables)
        return [self.tables.ids[row] for row in rows.tolist()], parts

    def gradients(self, examples: Sequence[Example], rules: ListRules) -> Gradients:
        """What the score's weights learn from `examples`: items that the rules leave out teach nothing."""
        if self.tables.is_empty or not examples:
            return Gradients()
        try:
            row_of = self.tables.index.get
            histories = self.histories([profile_of(example.before) for example in examples], rules)
            followed = [np.array([row_of(item, 0) for item in one.followed], np.int32) for one in examples]
            return self._blend.gradients(histories, self.tables, followed)
        except Exception as error:  # learning may not stop the job
            self.report_failure(error)
            return Gradients()
