"""Exploration: slots of a list that were drawn from a pool of items, and how likely each draw was.

A list names its explored slots (:class:`ExploredSlot`). What users do there is published with the pool and the
propensity (:class:`Exploration`), so that the click rate of another model can be estimated from it.
"""

import msgspec


class ExploredSlot(msgspec.Struct, frozen=True, gc=False):
    """An explored place of a list: `position` from 0, and the probability with which its item was drawn."""

    position: int
    propensity: float


class Exploration(msgspec.Struct, frozen=True, gc=False):
    """How the item of an event came into its list.

    It was drawn for the position `slot` with probability `propensity` from the items `pool`, given what was drawn for
    the slots before. `pool` is in the order of the model that made the list, `at` is when it was made (ms).
    """

    slot: int
    propensity: float
    pool: tuple[str, ...]
    at: int


class ExploredList(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An explored list, as remembered of a user until its events come.

    `made` identifies it among the user's lists, as in recommendation ids. `slots` are (position, place in `pool`,
    propensity), in the order in which they were drawn.
    """

    made: bytes
    at: int
    pool: tuple[str, ...]
    slots: tuple[tuple[int, int, float], ...]

    def exploration(self, item: str) -> Exploration | None:
        """How `item` came into the list; None if it was not drawn.

        >>> ExploredList(b"", 7, ("tea", "cup", "pot"), ((4, 2, 0.5), (5, 0, 0.25))).exploration("tea")
        Exploration(slot=5, propensity=0.25, pool=('tea', 'cup'), at=7)
        """
        gone: set[int] = set()
        for position, place, propensity in self.slots:
            if self.pool[place] == item:
                left = tuple(one for number, one in enumerate(self.pool) if number not in gone)
                return Exploration(position, propensity, left, self.at)
            gone.add(place)
        return None
