"""The followed shopper: their actions, their list, what changed in it, and how long the update took. Pure."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple

from deploy.demo.watch import OwnList
from schemas.events import Interaction
from serving.answers import Recommendation

Mark = Literal["new", "up", ""]
ACTIONS_MAX: Final = 40
STORIES_MAX: Final = 40
NEW_STAYS_MS: Final = 4_000
_VERBS: Final = {
    "click": "clicked",
    "view": "looked at",
    "dwell": "read about",
    "search": "searched for",
    "add_to_cart": "wants",
    "purchase": "bought",
    "rating": "rated",
}


class ShopperAction(NamedTuple):
    """An action of the shopper on an item, at `at_ms`; `moves` is true if the list depends on it."""

    at_ms: int
    verb: str
    name: str
    moves: bool


class MarkedItem(NamedTuple):
    """An item of the list: its name, and its change of rank since the previous list."""

    name: str
    mark: Mark


class NamedShelf(NamedTuple):
    """Items beside the list, under a title."""

    title: str
    items: Sequence[str]


class Followed:
    """Combines the shopper's actions, the product's receipts for their list, and the list that a frontend reads."""

    def __init__(self, name: str, item_names: Mapping[str, str]) -> None:
        self.name = name
        self._item_names = item_names
        self._actions: deque[ShopperAction] = deque(maxlen=ACTIONS_MAX)
        self._stories: deque[str] = deque(maxlen=STORIES_MAX)
        self._shown: tuple[str, ...] = ()
        self._marked: dict[str, tuple[Mark, int]] = {}
        self._described_version = 0
        self.recommendation: Recommendation | None = None
        self.last_item: str | None = None
        """What the shopper clicked last."""

    def note_action(self, event: Interaction) -> None:
        """Add an interaction of the shopper that was sent; impressions are not shown."""
        verb = _VERBS.get(event.type)
        if verb is None:
            return
        if event.type == "click":
            self.last_item = event.item_id
        name = f"“{event.query}”" if event.query else self._named(event.item_id or "")
        self._actions.append(ShopperAction(event.ts, verb, name, event.item_id is not None))

    def note_own(self, own: OwnList | None) -> None:
        """Add the last list written for the shopper, and describe each update once."""
        if own is None or own.version <= self._described_version:
            return
        self._described_version = own.version
        cause = next(
            (action for action in reversed(self._actions) if action.moves and action.at_ms <= own.event_at), None
        )
        if cause is not None:
            story = f"{self.name} {cause.verb} {cause.name} → list v{own.version}, {own.latency_ms} ms later"
            self._stories.append(story)

    def note_list(self, recommendation: Recommendation, now_ms: int) -> None:
        """Add the list that a frontend reads now, and mark items that are new or have risen since its last change."""
        ids = tuple(item.id for item in recommendation.items)
        if ids != self._shown:
            places = {item: place for place, item in enumerate(self._shown)}
            self._marked = {
                item: (mark, now_ms) for place, item in enumerate(ids) if (mark := _mark(places.get(item), place))
            } | {item: marked for item, marked in self._marked.items() if now_ms - marked[1] < NEW_STAYS_MS // 4}
            if not self._shown:
                self._marked = {}
            self._shown = ids
        self.recommendation = recommendation

    def listed(self, now_ms: int) -> list[MarkedItem]:
        """The list as displayed, best first; marks remain for :data:`NEW_STAYS_MS`."""
        shown = []
        for item in self._shown:
            mark, at_ms = self._marked.get(item, ("", 0))
            shown.append(MarkedItem(self._named(item), mark if now_ms - at_ms < NEW_STAYS_MS else ""))
        return shown

    def shelves(
        self, similar: Recommendation | None, trending: Recommendation, viewed: Recommendation
    ) -> Sequence[NamedShelf]:
        """The shelves beside the list; of a kind that is not known yet, popular items are not shown under its title."""
        found = []
        if similar is not None and similar.reason == "similar":
            found.append(self._shelf(f"similar to {self._named(self.last_item or '')}", similar))
        if trending.items:
            found.append(self._shelf("trending" if trending.reason == "trending" else "popular", trending))
        if viewed.items:
            found.append(self._shelf("recently viewed", viewed))
        return found

    def _shelf(self, title: str, shown: Recommendation) -> NamedShelf:
        return NamedShelf(title, [self._named(item.id) for item in shown.items])

    def actions(self) -> list[ShopperAction]:
        """The shopper's actions, newest first."""
        return list(reversed(self._actions))

    def stories(self) -> Sequence[str]:
        """The descriptions of list updates, newest first."""
        return list(reversed(self._stories))

    def _named(self, item_id: str) -> str:
        return self._item_names.get(item_id, item_id)


def _mark(before: int | None, place: int) -> Mark:
    if before is None:
        return "new"
    return "up" if place < before else ""
