"""What the simulated shoppers see of their lists, and what they click there instead of searching for it.

A visit that begins on the home page shows the first items of the shopper's list. If one of them is the kind of thing
that they came for, they click that, and go on with it; otherwise they find their item elsewhere in the shop. So the
click-through rate says how well lists meet tastes. What was seen and clicked in a list names it, as a real frontend
does (:class:`serving.displayed.DisplayedList`).
"""

from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from deploy.demo import shop
from deploy.demo.names import things
from schemas.events import Interaction
from serving.answers import Recommendation
from serving.displayed import DisplayedList

SEEN_ITEMS: Final = 4
HOME: Final = "home"
_THING_OF: Final = things()


class Storefront:
    """Rewrites the events of shoppers. `recommend` returns the list that a shopper sees, of :data:`SEEN_ITEMS`."""

    def __init__(self, recommend: Callable[[str], Recommendation]) -> None:
        self._recommend = recommend
        self._visits: dict[str, tuple[DisplayedList, str, str]] = {}
        """By shopper: the list last seen, the item they came for, and the one that they clicked, or ""."""

    def events(self, wanted: Iterator[Interaction]) -> Iterator[Interaction]:
        """`wanted`, where shoppers get what they came for, with what they see in lists, and take from there."""
        for event in wanted:
            if event.type == "impression":
                yield from self._saw(event)
            else:
                yield self._did(event)

    def _saw(self, event: Interaction) -> Iterator[Interaction]:
        shown = DisplayedList(self._recommend(event.user_id), event.user_id, HOME, event.session_id)
        self._visits[event.user_id] = shown, event.item_id or "", ""
        for place, seen in enumerate(shown.impressions(count=SEEN_ITEMS, ts=event.ts)):
            yield msgspec.structs.replace(seen, event_id=f"{event.event_id}-{place}", context=event.context)

    def _did(self, event: Interaction) -> Interaction:
        shown, came_for, clicked = self._visits.get(event.user_id, (None, "", ""))
        if shown is None or event.item_id != came_for:
            self._visits.pop(event.user_id, None)
            return event
        if event.type == "click" and event.surface == HOME and not clicked:
            clicked = next(
                (item.id for item in shown.answer.items if _THING_OF.get(item.id) == _THING_OF[came_for]), ""
            )
            self._visits[event.user_id] = shown, came_for, clicked
        if not clicked:
            return event
        if event.type not in ("click", "purchase"):
            return msgspec.structs.replace(event, item_id=clicked)
        position, request_id = shown.position_of(clicked), shown.answer.recommendation_id or None
        return msgspec.structs.replace(event, item_id=clicked, position=position, request_id=request_id)


def pace_for(events_per_s: float, shoppers: int) -> shop.Pace:
    """The pace at which this many shoppers, with what they see, produce `events_per_s` on average."""
    with_seen = shop.EVENTS_PER_VISIT + shop.HOME_SHARE * (SEEN_ITEMS - 1)
    return shop.pace_for(events_per_s * shop.EVENTS_PER_VISIT / with_seen, shoppers)
