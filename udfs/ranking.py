"""Ranking: builds the model's input from profiles, filters its output, and encodes lists.

All changed users of an element are scored in one batch, once each, however many events they had.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Final, NamedTuple, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from schemas.consents import Level
from schemas.lists import (
    NO_HISTORY,
    ListForm,
    RecommendationList,
    UserReason,
    encode_scores,
    history_endings,
    item_fragment,
)
from schemas.recommendation_ids import RecommendationIds
from schemas.store import ListWrite, consent_value
from udfs.arranging import Arranged, Candidates, Items, arrange, items_of
from udfs.assortment import SIMILAR, Assortment, ShelfRules
from udfs.exploring import NO_EXPLORATION, Explored, Explorer, ExploreSettings
from udfs.fault_log import FaultLog
from udfs.had_items import counts_of, item_hash
from udfs.profile import RECENT_ITEMS_MAX, AtLeastOne, ProfileBounds
from udfs.state import Profile, UserState

LEVELS: Final = tuple(Level)
POPULARITY: Final = "popularity"
"""The model of popular lists."""
OWN: Final = "own"
"""The kind of a user's own list, as in :data:`schemas.shop_rules.LISTS`."""
MODELS_MAX: Final = 4
"""Of so many models, the codes of items are cached."""
CANDIDATES_MAX: Final = 1 << 20
"""More than any model returns: the rules of the shop choose among all its candidates."""


class ListRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What goes into a list."""

    items: AtLeastOne = 30
    """Items in a list. The online model ranks up to 128; popular items follow."""
    exclude_bought: bool = True
    """Leave out what the user has bought."""
    exclude_recent: Annotated[int, Meta(ge=0)] = RECENT_ITEMS_MAX
    """Leave out this many of the user's most recent items."""
    exclude_had: bool = True
    """Leave out all items that the user has met, as far as they are remembered (`profile.had_items_max`). Switch this
    and `exclude_recent` off where people buy the same things again.
    """
    viewed_items: Annotated[int, Meta(ge=0, le=RECENT_ITEMS_MAX)] = RECENT_ITEMS_MAX
    """How many of the items that the user has met last are kept beside their list, for shelves such as "recently
    viewed"; 0 for none.
    """
    bought_items: Annotated[int, Meta(ge=0, le=64)] = 20
    """The same for items that the user has bought, for shelves such as "buy again"."""


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

    def followed_by(self, others: "PopularItems") -> "PopularItems":
        """These items, then those of `others` that are not among them, scored no higher than the last of these.

        >>> first = PopularItems(["tea"], [b"tea"], [9.0])
        >>> first.followed_by(PopularItems.ranked(["cup", "tea", "pot"])).ids
        ['tea', 'cup', 'pot']
        """
        known, lowest = set(self.ids), min(self.scores, default=math.inf)
        more = [place for place, item in enumerate(others.ids) if item not in known]
        return PopularItems(
            [*self.ids, *(others.ids[place] for place in more)],
            [*self.fragments, *(others.fragments[place] for place in more)],
            [*self.scores, *(min(lowest, others.scores[place]) for place in more)],
        )

    @classmethod
    def ranked(cls, ids: Sequence[str]) -> "PopularItems":
        """Items of which only the order is known: the score is the reciprocal rank."""
        return cls(ids, [item_fragment(item) for item in ids], [1.0 / rank for rank in range(1, len(ids) + 1)])


class Ranked(NamedTuple):
    """What a model recommends to users: scores float32[users, k] and rows int[users, k], best first, and which of them
    the rules keep: bool[users, k]. A user of whom nothing is kept gets what is popular. Scores may be `log_odds`."""

    scores: npt.NDArray[np.float32]
    rows: npt.NDArray[np.int64]
    kept: npt.NDArray[np.bool_]
    log_odds: bool = False


class ListModel(Protocol):
    """A model that makes lists. Its `name` is in each; `fragments[row]` is an item as lists have it."""

    report_failure: FaultLog

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def name_json(self) -> bytes: ...  # noqa: D102
    @property
    def fragments(self) -> npt.NDArray[np.object_]: ...  # noqa: D102
    @property
    def failed(self) -> int:
        """For how many users the model, or ranking with it, has failed since the worker started."""
        ...

    @property
    def failing(self) -> bool:
        """Whether it should be replaced: it was too slow, failed for whole batches, or for most users."""
        ...

    def knows(self, item: str) -> bool:
        """Whether it can rank, and rank by, `item`."""
        ...

    def ranked(self, profiles: Sequence[Profile], rules: ListRules, now_ms: int) -> Ranked:
        """At most `rules.items` items for each of `profiles`."""
        ...


_Chosen = tuple[str, UserState, Profile, bool, list[bytes], list[bytes]]
"""A user's pseudonym, state and profile, whether the model has scored items for them, fragments and numbers."""


NONE_EXPLORED: Final[Mapping[str, Explored]] = MappingProxyType({})


class Ranker:
    """Computes lists with a given model. `epoch` is the submission time in ms that all its writes carry.

    Without `ids`, lists have no recommendation id.

    The hot path works on columns, not on users: one step for all users of an element wherever numpy has one.
    """

    def __init__(
        self,
        rules: ListRules,
        bounds: ProfileBounds,
        epoch: int,
        ids: RecommendationIds | None = None,
        assortment: Assortment | None = None,
        explore: ExploreSettings = NO_EXPLORATION,
    ) -> None:
        self.rules = rules
        self._ids = ids
        self.assortment = assortment or Assortment()
        self._explorer = Explorer(explore, self.assortment) if explore.slots else None
        self._items: dict[int, tuple[tuple[ListModel, str, int], Items]] = {}
        self._bounds = bounds
        self._epoch = epoch

    def rank(
        self,
        users: Mapping[str, UserState],
        popular: PopularItems,
        model: ListModel,
        now_ms: int,
        list_ttl_ms: int,
        arm: str = "",
    ) -> list[ListWrite]:
        """One list by `model` for each of `users` that has a profile, and items to recommend; `arm` is theirs, if any.

        If ranking fails for one user, for whatever reason, the others still get theirs.
        """
        try:
            return self._rank(users, popular, model, now_ms, list_ttl_ms, arm)
        except Exception as error:  # no list may stop the job: consents and withdrawals would wait
            if len(users) == 1:
                model.report_failure(error)
                return []
        alone = [{pseudonym: state} for pseudonym, state in users.items()]
        return [write for one in alone for write in self.rank(one, popular, model, now_ms, list_ttl_ms, arm)]

    def _rank(
        self,
        users: Mapping[str, UserState],
        popular: PopularItems,
        model: ListModel,
        now_ms: int,
        list_ttl_ms: int,
        arm: str,
    ) -> list[ListWrite]:
        ready = [(pseudonym, state, state.profile) for pseudonym, state in users.items() if state.profile is not None]
        if not ready:
            return []
        profiles = [profile for _, _, profile in ready]
        if self._explorer is not None or self.assortment.shelf(OWN, now_ms) is not None:
            return self._arranged(ready, popular, model, now_ms, list_ttl_ms, arm)
        scores, rows, kept, _ = model.ranked(profiles, self.rules, now_ms)
        fragments = model.fragments[rows[kept]].tolist()
        numbers = encode_scores(np.round(scores[kept].astype(np.float64), 4).tolist())
        chosen: list[_Chosen] = []
        start = 0
        for (pseudonym, state, profile), size in zip(ready, kept.sum(axis=1).tolist(), strict=True):
            end = start + size
            mine, its_numbers = fragments[start:end], numbers[start:end]
            if size < self.rules.items:
                self._fill_up(mine, its_numbers, profile, popular)
            if mine:
                chosen.append((pseudonym, state, profile, size > 0, mine, its_numbers))
            start = end
        return self._writes(chosen, model, now_ms, list_ttl_ms, arm)

    def _arranged(
        self,
        ready: list[tuple[str, UserState, Profile]],
        popular: PopularItems,
        model: ListModel,
        now_ms: int,
        list_ttl_ms: int,
        arm: str,
    ) -> list[ListWrite]:
        """As :meth:`_rank`, by the rules of the shop, and with explored slots."""
        profiles = [profile for _, _, profile in ready]
        every, size = msgspec.structs.replace(self.rules, items=CANDIDATES_MAX), self.rules.items
        items = self._items_of(model)
        shelf = self.assortment.shelf(OWN, now_ms) or self.assortment.without_rules()
        if self._explorer is not None:
            shelf = shelf._replace(pins=tuple(pin for pin in shelf.pins if pin.place < size))
            size += self._explorer.settings.pool
        scores, rows, kept, log_odds = model.ranked(profiles, every, now_ms)
        found = Candidates(rows, scores.astype(np.float64), kept, log_odds)
        lists = arrange(found, lambda user: self._popular_for(profiles[user], popular), shelf, items, size)
        explored = {} if self._explorer is None else self._explore(self._explorer, ready, lists, model, shelf, now_ms)
        chosen: list[_Chosen] = []
        for user, scored, one in zip(ready, kept.any(axis=1).tolist(), lists, strict=True):
            if one.fragments:
                made = explored.get(user[0]) or one
                numbers = encode_scores(np.round(made.scores, 4).tolist())
                chosen.append((*user, scored, made.fragments, numbers))
        return self._writes(chosen, model, now_ms, list_ttl_ms, arm, explored)

    def _explore(
        self,
        explorer: Explorer,
        ready: list[tuple[str, UserState, Profile]],
        lists: list[Arranged],
        model: ListModel,
        shelf: ShelfRules,
        now_ms: int,
    ) -> dict[str, Explored]:
        """The lists of those whose list is explored, by pseudonym; in `lists`, all are cut to their size."""
        size, unknown, found = self.rules.items, explorer.unknown(id(model), model.fragments, now_ms), {}
        for place, ((pseudonym, state, profile), one) in enumerate(zip(ready, lists, strict=True)):
            lists[place] = Arranged(one.fragments[:size], one.scores[:size])
            if (numbers := explorer.numbers(pseudonym, state)) is not None:
                made = explorer.explored(one, numbers, self._allows(profile), unknown, shelf, size)
                if made is not None:
                    found[pseudonym] = made
        return found

    def _items_of(self, model: ListModel) -> Items:
        """The model's items with their codes; looked up again when the model or what is said of items has changed."""
        now = model, model.name, self.assortment.changes
        known = self._items.get(id(model))
        if known is None or known[0] != now:
            if len(self._items) >= MODELS_MAX:
                self._items.clear()
            known = self._items[id(model)] = now, items_of(model.fragments.tolist(), self.assortment.code_of)
        return known[1]

    def _writes(
        self,
        chosen: Sequence[_Chosen],
        model: ListModel,
        now_ms: int,
        list_ttl_ms: int,
        arm: str,
        explored: Mapping[str, Explored] = NONE_EXPLORED,
    ) -> list[ListWrite]:
        """The lists of users. What can be encoded for all of them at once is."""
        form, name = ListForm(self._epoch, model.name_json, now_ms, arm), model.name
        writes = []
        for (pseudonym, state, _, scored, fragments, numbers), made, ending in zip(
            chosen, self._ids_of(chosen, model, now_ms, arm), self._endings(chosen, now_ms), strict=True
        ):
            session = state.level == Level.SESSION
            reason: UserReason = "popular" if not scored else "session" if session else "personalised"
            drawn = explored.get(pseudonym) if explored else None
            slots = () if drawn is None else drawn.listed_slots()
            payload = form.join(state.version, reason, fragments, numbers, made, ending, slots)
            ttl_ms = self._bounds.session_gap_ms if session else list_ttl_ms
            consent = consent_value(
                LEVELS[state.level],
                state.expires_at,
                state.consent_at,
                state.consent_partition,
                state.consent_offset,
            )
            kept = None if drawn is None or not made else drawn.to_remember(state.version, now_ms)
            writes.append(ListWrite(pseudonym, state.version, consent, reason, ttl_ms, payload, name, arm, kept))
        return writes

    def _ids_of(self, chosen: Sequence[_Chosen], model: ListModel, now_ms: int, arm: str) -> list[bytes]:
        """The recommendation ids of lists, empty for none."""
        if self._ids is None:
            return [b""] * len(chosen)
        # Feedback on a list is counted for its model, or for what is popular if the model knew nothing.
        by, scored_by = POPULARITY, model.name
        lists = [
            (pseudonym, scored_by if scored else by, state.version) for pseudonym, state, _, scored, _, _ in chosen
        ]
        return self._ids.of_each(lists, arm, now_ms)

    def _endings(self, chosen: Sequence[_Chosen], now_ms: int) -> list[bytes]:
        """How lists end: with what their users met, and bought, newest first; without what no list may have."""
        viewed_max, bought_max = self.rules.viewed_items, self.rules.bought_items
        if not viewed_max and not bought_max:
            return [NO_HISTORY] * len(chosen)
        met = [
            ([item for item, _, _ in reversed(profile.recents)], profile.bought[::-1])
            for _, _, profile, _, _, _ in chosen
        ]
        if (shelf := self.assortment.shelf(SIMILAR, now_ms)) is not None:
            met = [(self._allowed(viewed, shelf), self._allowed(bought, shelf)) for viewed, bought in met]
        return history_endings([(viewed[:viewed_max], bought[:bought_max]) for viewed, bought in met])

    def _allowed(self, items: Sequence[str], shelf: ShelfRules) -> list[str]:
        code_of = self.assortment.code_of
        return [item for item in items if not shelf.excluded[code_of.get(item_fragment(item), 0)]]

    def _fill_up(self, fragments: list[bytes], numbers: list[bytes], profile: Profile, popular: PopularItems) -> None:
        """Fill up a short list with popular items, by the same rules, scored no higher than its last item."""
        listed = set(fragments)
        lowest = float(numbers[-1]) if numbers else math.inf
        for fragment, score in self._popular_for(profile, popular):
            if len(fragments) == self.rules.items:
                return
            if fragment not in listed:
                fragments.append(fragment)
                numbers.append(b"%.4f" % min(lowest, score))

    def _popular_for(self, profile: Profile, popular: PopularItems) -> Iterator[tuple[bytes, float]]:
        """Popular items that the rules do not leave out for a user."""
        allows = self._allows(profile)
        for item, fragment, score in zip(*popular, strict=True):
            if allows(item):
                yield fragment, score

    def _allows(self, profile: Profile) -> Callable[[str], bool]:
        """Whether the rules allow an item in the list of a user."""
        skip = set(profile.bought) if self.rules.exclude_bought else set()
        if self.rules.exclude_recent:
            skip.update(item for item, _, _ in profile.recents[-self.rules.exclude_recent :])
        had = set(counts_of(profile.had)["item"].tolist()) if self.rules.exclude_had else set()
        return lambda item: item not in skip and item_hash(item) not in had
