"""Exploration: the last slots of some lists are drawn from a pool of items with known probabilities. Pure.

What is drawn is always also allowed: the pool holds only what the rules of the shop, and of the user, allow beside each
other. Only lists of users who grant the purpose `measure` at level `full` are explored, because nothing is learned from
others. Draws depend on the user's pseudonym and the version of the list alone, so that a list can be made again.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from hashlib import shake_128
from itertools import accumulate
from typing import Annotated, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from schemas.consents import Level
from schemas.exploration import ExploredList, ExploredSlot
from schemas.lists import id_of_fragment
from schemas.recommendation_ids import made_of
from schemas.topics import SECOND_MS
from udfs.arranging import Arranged, fill_up, room_beside
from udfs.assortment import Assortment, ShelfRules
from udfs.elements import EventRecord
from udfs.feedback import JOINED, MEASURE
from udfs.state import UserState

EXPLORED_MAX: Final = 8
"""Explored lists remembered of a user."""
SLOTS_MAX: Final = 8
MODELS_MAX: Final = 4
"""Of so many models, the items that they do not know are cached."""
NEW_ITEMS_EVERY_MS: Final = 10 * SECOND_MS
"""How often to look for items that a model does not know."""
_TRIED: Final = 4
"""Of so many new items for each that is wanted, some may be left out by rules."""


class ExploreSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Exploration: the last slots of lists show items by chance, so that other models can be estimated from it."""

    slots: Annotated[int, Meta(ge=0, le=SLOTS_MAX)] = 0
    """The last so many places of a list are drawn by chance; 0 switches exploration off."""
    share: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """The share of lists that are explored, of users who grant the purpose `measure`."""
    pool: Annotated[int, Meta(ge=1, le=50)] = 10
    """Candidates besides the items that would have these places: those that the model ranks next."""
    new_items: Annotated[int, Meta(ge=0, le=20)] = 0
    """More candidates: items of the catalogue, with a category, that the model does not know yet."""
    focus: Annotated[float, Meta(ge=0, le=2)] = 0.0
    """The weight of candidate n in a draw is n to the power of −`focus`: 0 draws all alike, 1 prefers the best ones.
    Estimates need the more lists, the higher it is.
    """


NO_EXPLORATION: Final = ExploreSettings()


class Explored(NamedTuple):
    """A list with explored slots: `pool` and `slots` as in :class:`schemas.exploration.ExploredList`."""

    fragments: list[bytes]
    scores: list[float]
    pool: list[bytes]
    slots: tuple[tuple[int, int, float], ...]

    def listed_slots(self) -> list[ExploredSlot]:
        """What the list says of its slots."""
        return [ExploredSlot(position, propensity) for position, _, propensity in self.slots]

    def to_remember(self, version: int, at_ms: int) -> ExploredList:
        """What is remembered until the events of this list come, which is the user's `version`, made at `at_ms`."""
        return ExploredList(made_of(version, at_ms), at_ms, tuple(map(id_of_fragment, self.pool)), self.slots)


def draw(weights: Sequence[float], numbers: Iterable[float]) -> list[tuple[int, float]]:
    """Draw one place of `weights` for each of `numbers` (uniform in [0, 1)), without replacement.

    Returns places with their propensities: the weight over the sum of the weights that were left, which is the
    probability of the draw given those before it (successive sampling; Plackett: "The analysis of permutations",
    Applied Statistics 1975).

    >>> draw([2.0, 1.0, 1.0], [0.6, 0.6])
    [(1, 0.25), (0, 0.6666666666666666)]
    """
    left, found = list(range(len(weights))), []
    for number in numbers:
        total = sum(weights[place] for place in left)
        at, chosen = number * total, len(left) - 1
        for index, place in enumerate(left):
            at -= weights[place]
            if at < 0:
                chosen = index
                break
        place = left.pop(chosen)
        found.append((place, weights[place] / total))
    return found


def chances(pseudonym: str, version: int, count: int) -> list[float]:
    """So many numbers in [0, 1) for a list: like random ones, and always the same for this list."""
    raw = shake_128(b"freshet explore1 %d %b" % (version, pseudonym.encode())).digest(8 * count)
    return [(int.from_bytes(raw[at : at + 8]) >> 11) / (1 << 53) for at in range(0, 8 * count, 8)]


def explore(
    one: Arranged,
    pinned: Collection[bytes],
    extra: Sequence[bytes],
    size: int,
    settings: ExploreSettings,
    numbers: Sequence[float],
) -> Explored | None:
    """Draw the last slots of a list of up to `size` items; None if there is nothing to choose from.

    `one` goes on beyond `size` with those that come next. Places of `pinned` items stay. `extra` are items to end the
    pool with. Scores never increase, so a drawn item may have a lower one than its own.
    """
    length = min(size, len(one.fragments))
    may_move = [
        at for at in range(max(0, length - settings.slots), len(one.fragments)) if one.fragments[at] not in pinned
    ]
    free = [at for at in may_move if at < length]
    candidates = may_move[: len(free) + settings.pool]
    pool = [*(one.fragments[at] for at in candidates), *extra]
    if not free or len(pool) <= len(free):
        return None
    own = [*(one.scores[at] for at in candidates), *[one.scores[candidates[-1]]] * len(extra)]
    weights = [number**-settings.focus for number in range(1, len(pool) + 1)]
    fragments, scores, slots = one.fragments[:length], one.scores[:length], []
    for at, (place, propensity) in zip(free, draw(weights, numbers[: len(free)]), strict=True):
        fragments[at], scores[at] = pool[place], own[place]
        slots.append((at, place, propensity))
    return Explored(fragments, [*accumulate(scores, min)], pool, tuple(slots))


def may_explore(state: UserState) -> bool:
    """Whether the user's consent allows that their lists are explored, and what they do there is measured."""
    return state.level == Level.FULL and bool(state.purposes & MEASURE)


class Explorer:
    """Explores lists by `settings`; `assortment` names the items that a model may not know yet."""

    def __init__(self, settings: ExploreSettings, assortment: Assortment) -> None:
        self.settings, self._assortment = settings, assortment
        self._unknown: dict[int, tuple[int, list[bytes]]] = {}

    def numbers(self, pseudonym: str, state: UserState) -> list[float] | None:
        """What the draws of the user's next list depend on; None if it is not explored."""
        if not may_explore(state):
            return None
        numbers = chances(pseudonym, state.version, 2 + self.settings.slots)
        return numbers if numbers[0] < self.settings.share else None

    def explored(
        self,
        one: Arranged,
        numbers: Sequence[float],
        allows: Callable[[str], bool],
        unknown: Sequence[bytes],
        shelf: ShelfRules,
        size: int,
    ) -> Explored | None:
        """A list with explored slots; `allows` says of an id whether the user's list may have it."""
        extra = self._extra(one, numbers[1], allows, unknown, shelf)
        return explore(one, {pin.fragment for pin in shelf.pins}, extra, size, self.settings, numbers[2:])

    def _extra(
        self,
        one: Arranged,
        number: float,
        allows: Callable[[str], bool],
        unknown: Sequence[bytes],
        shelf: ShelfRules,
    ) -> list[bytes]:
        """New items that may be beside all others of `one`: a window of `unknown` that begins by chance."""
        wanted = self.settings.new_items
        if not wanted or not unknown:
            return []
        start = int(number * len(unknown))
        window = (*unknown[start:], *unknown[:start])[: wanted * _TRIED]
        new = [(fragment, 0.0) for fragment in window if allows(id_of_fragment(fragment))]
        fragments = [*one.fragments]
        fill_up(fragments, [*one.scores], new, room_beside(shelf, self._assortment.code_of, len(fragments) + wanted))
        return fragments[len(one.fragments) :]

    def unknown(self, model: int, fragments: npt.NDArray[np.object_], now_ms: int) -> list[bytes]:
        """Items of the catalogue that are not among the `fragments` of a `model`, as of the last ten seconds."""
        if not self.settings.new_items:
            return []
        window = now_ms // NEW_ITEMS_EVERY_MS
        found = self._unknown.get(model)
        if found is None or found[0] != window:
            if len(self._unknown) >= MODELS_MAX:
                self._unknown.clear()
            known = set(fragments.tolist())
            new = [fragment for fragment in list(self._assortment.code_of) if fragment not in known]
            found = self._unknown[model] = window, new
        return found[1]


def remember(state: UserState, explored: ExploredList | None) -> None:
    """Remember what was made for a user until its events come: explored lists, the last :data:`EXPLORED_MAX`.

    Without the purpose `measure`, none stays.
    """
    if state.profile is None:
        return
    if not may_explore(state):
        state.profile.explored = []
    elif explored is not None:
        others = [one for one in state.profile.explored if one.made != explored.made]
        state.profile.explored = [*others, explored][-EXPLORED_MAX:]


def with_exploration(event: EventRecord, state: UserState | None) -> EventRecord:
    """`event` with how its item came into its list, if it was drawn, and the user grants `measure`.

    The item counts, not the position: a gateway may have left out items before it.
    """
    shown, item = event.shown, event.item
    if shown is None or item is None or not event.clean or event.kind not in JOINED:
        return event
    if state is None or state.profile is None or not may_explore(state):
        return event
    listed = next((one for one in state.profile.explored if one.made == shown[2]), None)
    drawn = None if listed is None else listed.exploration(item)
    if drawn is None:
        return event
    clean = b'{"exploration":%b,%b' % (msgspec.json.encode(drawn), event.clean[1:])
    return msgspec.structs.replace(event, clean=clean)
