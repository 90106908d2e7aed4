"""A simulated shop: shoppers with tastes, their sessions and their consents. Pure.

Seeds and clocks are arguments: the same arguments give the same shoppers and events. No part of the product is
simulated; the output consists of the records that a shop's frontend would send.
"""

import random
from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import accumulate, takewhile
from typing import Any, Final, NamedTuple

import numpy as np

from deploy.demo.names import (
    CATEGORIES,
    FIRST_NAMES,
    ITEMS_PER_SHELF,
    QUALITIES_PER_SHELF,
    THINGS_PER_SHELF,
    catalogue,
)
from models.interactions import Interactions
from schemas.consents import ConsentChange, LevelName
from schemas.events import KIND_OF, EventType, Interaction
from schemas.topics import DAY_MS, HOUR_MS, MINUTE_MS

CATALOGUE: Final = catalogue()
ITEM_IDS: Final = tuple(item.item_id for item in CATALOGUE)
COUNTRIES: Final = ("GB", "DE", "FR", "IE", "SE")
LEVELS: Final[dict[LevelName, float]] = {"full": 0.84, "session": 0.09, "none": 0.07}

SESSION_VISITS_MEAN: Final = 8
ACTIVE_SHARE: Final = 0.3
"""The share of time that shoppers spend in sessions."""

EVENTS_PER_VISIT: Final = 2.5
SEARCH_SHARE: Final = 0.15
HOME_SHARE: Final = 0.45
"""The shares of visits that begin with a search, and with a look at the home page."""
EARLIER_EVENTS: Final = 5_000
"""What shoppers did in the days before the shop opens for the demo: enough for lists that are not empty, and long ago
enough that what is liked now rises."""
EARLIER_MS: Final = 3 * DAY_MS
EARLIER_SHOPPERS_MAX: Final = 200
STRAY_SHARE: Final = 0.06
"""The share of viewed items that do not match the shopper's taste."""

FOLLOWED_TASTE_LASTS_MS: Final = 25_000
TRAINING_UNTIL_MS: Final = 1_735_689_600_000
"""2025-01-01: a fixed date, so that the same arguments train the same model."""

_QUALITY_WEIGHTS: Final = tuple(accumulate(1 / (place + 1) ** 0.6 for place in range(QUALITIES_PER_SHELF)))


class Taste(NamedTuple):
    """A shopper's preferences: the cumulated weights of categories, and the favourite thing on each shelf."""

    categories: tuple[float, ...]
    things: tuple[int, ...]


class Shopper(NamedTuple):
    """A shopper. Tastes alternate every `taste_lasts_ms`; most shoppers have one. `pace` is None for the default."""

    user_id: str
    country: str
    level: LevelName
    tastes: tuple[Taste, ...]
    taste_lasts_ms: int = DAY_MS
    pace: "Pace | None" = None


class Pace(NamedTuple):
    """Mean pauses in ms: between events, and between sessions."""

    step_ms: float
    gap_ms: float


def pace_for(events_per_s: float, shoppers: int) -> Pace:
    """The pace at which this many shoppers together produce `events_per_s` on average."""
    every_ms = 1000 * shoppers / events_per_s
    session_ms = every_ms * ACTIVE_SHARE * SESSION_VISITS_MEAN * EVENTS_PER_VISIT
    return Pace(every_ms * ACTIVE_SHARE, session_ms / ACTIVE_SHARE * (1 - ACTIVE_SHARE))


EVERYDAY_PACE: Final = Pace(15_000, 20 * HOUR_MS)
FOLLOWED_PACE: Final = Pace(650, 2_000)


def shoppers(seed: int, count: int) -> list[Shopper]:
    """`count` shoppers. The first is the one to follow: full consent and several tastes that alternate."""
    chance = _chance(seed, "shoppers")
    levels, weights = list(LEVELS), list(LEVELS.values())
    everybody = [
        Shopper(user_name(place), chance.choice(COUNTRIES), chance.choices(levels, weights)[0], (_taste(chance),))
        for place in range(count)
    ]
    everybody[0] = followed_shopper(seed)
    return everybody


def followed_shopper(seed: int) -> Shopper:
    """Ada, whose taste changes often enough for everyone to see it."""
    chance = _chance(seed, "followed")
    things = tuple(chance.randrange(THINGS_PER_SHELF) for _ in CATEGORIES)
    tastes = tuple(Taste(_cumulated([place]), things) for place in range(len(CATEGORIES)))
    return Shopper(user_name(0), "GB", "full", tastes, FOLLOWED_TASTE_LASTS_MS, FOLLOWED_PACE)


def user_name(place: int) -> str:
    """The id of the shopper at this index.

    >>> user_name(0), user_name(41)
    ('ada', 'ben-2')
    """
    rounds, name = divmod(place, len(FIRST_NAMES))
    return FIRST_NAMES[name] + (f"-{rounds + 1}" if rounds else "")


def events(everybody: Sequence[Shopper], start_ms: int, seed: int, pace: Pace) -> Iterator[Interaction]:
    """The events of `everybody` from `start_ms` on, ordered by time, endless."""
    walks = [_walk(shopper, start_ms, _chance(seed, shopper.user_id), pace) for shopper in everybody]
    return merge(*walks, key=_ts)


def earlier_events(everybody: Sequence[Shopper], until_ms: int, seed: int) -> Iterator[Interaction]:
    """About :data:`EARLIER_EVENTS` events of some shoppers in the days until `until_ms`. The first is new: has none."""
    others, start_ms = everybody[1 : 1 + EARLIER_SHOPPERS_MAX], until_ms - EARLIER_MS
    if not others:
        return iter(())
    sessions = EARLIER_EVENTS / (len(others) * SESSION_VISITS_MEAN * EVENTS_PER_VISIT)
    pace = EVERYDAY_PACE._replace(gap_ms=EARLIER_MS / (sessions - ACTIVE_SHARE))
    return takewhile(lambda event: event.ts < until_ms, events(others, start_ms, seed + 1, pace))


def consents(everybody: Sequence[Shopper], at_ms: int) -> list[ConsentChange]:
    """Everybody's initial consent."""
    return [consent(shopper, shopper.level, at_ms) for shopper in everybody]


def consent(shopper: Shopper, level: LevelName, at_ms: int) -> ConsentChange:
    """The record of a choice made in the banner."""
    return ConsentChange(
        shopper.user_id, level, at_ms, method="banner", notice_version="2025-01", jurisdiction=shopper.country
    )


def consent_changes(
    everybody: Sequence[Shopper], start_ms: int, seed: int, every_ms: float = 12_000
) -> Iterator[ConsentChange]:
    """Changes of consent, endless: a shopper withdraws or narrows, and later returns to the initial choice.

    The first shopper, who is followed, never changes.
    """
    chance, ts = _chance(seed, "second thoughts"), float(start_ms)
    away: list[Shopper] = []
    while len(everybody) > 1:
        ts += chance.expovariate(1 / every_ms)
        if away and chance.random() < 0.5:
            shopper = away.pop(0)
            yield consent(shopper, shopper.level, int(ts))
        else:
            shopper = everybody[1 + chance.randrange(len(everybody) - 1)]
            if shopper not in away and shopper.level == "full":
                away.append(shopper)
                yield consent(shopper, chance.choice(("none", "session")), int(ts))


def training_interactions(seed: int = 7, users: int = 600, days: int = 7) -> Interactions:
    """The earlier interactions of other shoppers, as columns, to train a model on."""
    start_ms = TRAINING_UNTIL_MS - days * DAY_MS
    stream = events(shoppers(seed, users + 1)[1:], start_ms, seed, EVERYDAY_PACE)
    seen = [
        (event, event.item_id)
        for event in takewhile(lambda event: event.ts < TRAINING_UNTIL_MS, stream)
        if event.item_id is not None
    ]
    code_of_item = {item: code for code, item in enumerate(ITEM_IDS)}
    code_of_user: dict[str, int] = {}
    return Interactions(
        np.array([code_of_user.setdefault(event.user_id, len(code_of_user)) for event, _ in seen], np.int64),
        np.array([code_of_item[item_id] for _, item_id in seen], np.int64),
        np.array([event.ts for event, _ in seen], np.int64),
        np.array([KIND_OF[event.type] for event, _ in seen], np.int64),
        list(ITEM_IDS),
    )


def price_of(place: int) -> float:
    """The price of the catalogue item at this index, in pounds: 3.49 to 99.49.

    >>> price_of(0), price_of(1)
    (3.49, 40.49)
    """
    return 3.49 + place * 37 % 97


def _walk(shopper: Shopper, start_ms: int, chance: random.Random, pace: Pace) -> Iterator[Interaction]:
    """One shopper's sessions in sequence; a session ends at random, or with a change of taste.

    At the start, the share of shoppers in a session is the same as later.
    """
    step_ms, gap_ms = shopper.pace or pace
    is_in_session = shopper.pace is not None or chance.random() < ACTIVE_SHARE
    ts = start_ms + (0.0 if is_in_session else chance.expovariate(1 / gap_ms))
    context = {"country": shopper.country}
    while True:
        session_id = f"s{chance.getrandbits(48):012x}"
        turn = int(ts - start_ms) // shopper.taste_lasts_ms
        taste = shopper.tastes[turn % len(shopper.tastes)]
        category = _pick(chance, taste.categories)
        while int(ts - start_ms) // shopper.taste_lasts_ms == turn:
            place = _item(chance, taste, category)
            for action in _visit(chance, place):
                ts += chance.expovariate(1 / step_ms)
                event_id = uuid7(int(ts), chance)
                yield Interaction(
                    event_id, ts=int(ts), user_id=shopper.user_id, session_id=session_id, context=context, **action
                )
            if chance.random() < 1 / SESSION_VISITS_MEAN:
                break
        ts += chance.expovariate(1 / gap_ms)


def _visit(chance: random.Random, place: int) -> Iterator[dict[str, Any]]:
    """The events for one item: found on a surface, opened, viewed, sometimes bought."""
    item_id = ITEM_IDS[place]
    found = chance.random()
    if found < SEARCH_SHARE:
        yield {"type": _SEARCH, "query": CATALOGUE[place].name.lower(), "surface": "search"}
    elif found < SEARCH_SHARE + HOME_SHARE:
        yield {"type": _IMPRESSION, "item_id": item_id, "surface": "home", "position": chance.randrange(12)}
    surface = "search" if found < SEARCH_SHARE else "home"
    yield {"type": _CLICK, "item_id": item_id, "surface": surface}
    if chance.random() < 0.4:
        dwell_ms = int(chance.lognormvariate(9, 0.8))
        yield {"type": _DWELL, "item_id": item_id, "surface": "item", "dwell_ms": min(dwell_ms, MINUTE_MS)}
    if chance.random() < 0.3:
        yield {"type": _VIEW, "item_id": item_id, "surface": "item"}
    if chance.random() < 0.16:
        yield {"type": _ADD_TO_CART, "item_id": item_id, "surface": "item", "quantity": 1}
        if chance.random() < 0.4:
            price = price_of(place)
            yield {
                "type": _PURCHASE,
                "item_id": item_id,
                "surface": "item",
                "quantity": 1,
                "value": price,
                "currency": "GBP",
            }


_SEARCH, _IMPRESSION, _CLICK, _DWELL, _VIEW, _ADD_TO_CART, _PURCHASE = (
    EventType.__args__[KIND_OF[name]]  # type: ignore[attr-defined]
    for name in ("search", "impression", "click", "dwell", "view", "add_to_cart", "purchase")
)


def _item(chance: random.Random, taste: Taste, category: int) -> int:
    """The catalogue index of an item that matches this taste; occasionally any other item."""
    if chance.random() < STRAY_SHARE:
        return chance.randrange(len(CATALOGUE))
    thing = taste.things[category] if chance.random() < 0.6 else chance.randrange(THINGS_PER_SHELF)
    return category * ITEMS_PER_SHELF + thing * QUALITIES_PER_SHELF + _pick(chance, _QUALITY_WEIGHTS)


def _taste(chance: random.Random) -> Taste:
    """Two or three categories; the first has the largest weight."""
    favourites = chance.sample(range(len(CATEGORIES)), chance.choice((1, 2, 2, 3)))
    return Taste(_cumulated(favourites), tuple(chance.randrange(THINGS_PER_SHELF) for _ in CATEGORIES))


def _cumulated(favourites: Sequence[int]) -> tuple[float, ...]:
    weights = [0.0] * len(CATEGORIES)
    for rank, place in enumerate(favourites):
        weights[place] = 1 / (rank + 1)
    return tuple(accumulate(weights))


def _pick(chance: random.Random, cumulated: Sequence[float]) -> int:
    return chance.choices(range(len(cumulated)), cum_weights=cumulated)[0]


def uuid7(ts_ms: int, chance: random.Random) -> str:
    """A UUID of version 7 (RFC 9562) for that time, with random bits from `chance`.

    >>> uuid7(1_700_000_000_000, random.Random(1))[:15]
    '018bcfe5-6800-7'
    """
    bits = ts_ms << 80 | 7 << 76 | chance.getrandbits(12) << 64 | 2 << 62 | chance.getrandbits(62)
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _chance(seed: int, name: str) -> random.Random:
    return random.Random(f"{seed}:{name}")  # noqa: S311 (no secret: it only makes a shop look alive)


def _ts(event: Interaction) -> int:
    return event.ts
