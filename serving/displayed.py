"""What a user does with a list that was shown to them, as interactions that count for the model that made it.

    answer = reader.recommend("ada", n=5, surface="home")
    shown = DisplayedList(answer, "ada", surface="home")
    events.record_all(shown.impressions())
    events.record(shown.clicked("tea"))

Each interaction has the `recommendation_id` of the answer as its `request_id`, and the position of its item.
"""

import time
import uuid
from typing import Final, NamedTuple

from schemas.events import EventType, Interaction
from serving.answers import Recommendation

_VISIBLE_MAX: Final = 64
"""Positions above are not counted."""


class DisplayedList(NamedTuple):
    """The list in `answer`, as shown to a user on a `surface`. Filter items when reading, not afterwards."""

    answer: Recommendation
    user_id: str
    surface: str | None = None
    session_id: str | None = None

    def impressions(self, first: int = 0, count: int = _VISIBLE_MAX, *, ts: int | None = None) -> list[Interaction]:
        """`count` items from the position `first` have become visible. Report each once."""
        items = self.answer.items[first : first + count]
        return [self._event("impression", first + place, item.id, ts) for place, item in enumerate(items)]

    def clicked(self, item_id: str, *, ts: int | None = None) -> Interaction:
        """The user clicked an item of the list; raises :class:`ValueError` if it is none."""
        return self._event("click", self.position_of(item_id), item_id, ts)

    def bought(
        self,
        item_id: str,
        *,
        quantity: int | None = None,
        value: float | None = None,
        currency: str | None = None,
        ts: int | None = None,
    ) -> Interaction:
        """The user bought an item of the list, now or later; raises :class:`ValueError` if it is none."""
        place = self.position_of(item_id)
        return self._event("purchase", place, item_id, ts, quantity=quantity, value=value, currency=currency)

    def position_of(self, item_id: str) -> int:
        """The position of an item, from 0; raises :class:`ValueError` if it is not in the list."""
        for place, item in enumerate(self.answer.items):
            if item.id == item_id:
                return place
        raise ValueError(f"the list that was shown does not have the item {item_id!r}")

    def _event(
        self,
        kind: EventType,
        position: int,
        item_id: str,
        ts: int | None,
        *,
        quantity: int | None = None,
        value: float | None = None,
        currency: str | None = None,
    ) -> Interaction:
        return Interaction(
            uuid.uuid4().hex,
            kind,
            time.time_ns() // 1_000_000 if ts is None else ts,
            self.user_id,
            session_id=self.session_id,
            item_id=item_id,
            position=position,
            value=value,
            currency=currency,
            quantity=quantity,
            surface=self.surface,
            request_id=self.answer.recommendation_id or None,
        )
