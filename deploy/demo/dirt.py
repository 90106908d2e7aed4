"""Adds dirty data as found in real streams: invalid records that the job must reject, and duplicates. Pure."""

import random
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import msgspec

from schemas.events import Interaction
from schemas.topics import DAY_MS

RUBBISH_SHARE: Final = 0.006
DUPLICATE_SHARE: Final = 0.01
DUPLICATES_AFTER: Final = 50
"""A duplicate is sent this many records after the original."""


class RecordToSend(NamedTuple):
    """A record to be sent at `ts`; `event` is None if the payload is not a valid interaction."""

    ts: int
    key: bytes | None
    payload: bytes
    event: Interaction | None


def dirty(
    events: Iterator[Interaction],
    seed: int,
    rubbish_share: float = RUBBISH_SHARE,
    duplicate_share: float = DUPLICATE_SHARE,
) -> Iterator[RecordToSend]:
    """All records of `events`, with some invalid records and duplicates inserted."""
    chance = random.Random(f"{seed}:dirt")  # noqa: S311 (no secret: it only makes a stream look real)
    again: deque[tuple[int, RecordToSend]] = deque()
    for number, event in enumerate(events):
        record = RecordToSend(event.ts, event.user_id.encode(), _encode(event), event)
        yield record
        drawn = chance.random()
        if drawn < rubbish_share:
            key, payload = chance.choice(RUBBISH)(event)
            yield RecordToSend(event.ts, key, payload, None)
        elif drawn < rubbish_share + duplicate_share:
            again.append((number + DUPLICATES_AFTER, record))
        while again and again[0][0] <= number:
            yield again.popleft()[1]._replace(ts=event.ts)


_encode: Final = msgspec.json.Encoder().encode


def _with(**changes: object) -> Callable[[Interaction], tuple[bytes | None, bytes]]:
    """A copy of the event with an id of its own and some fields changed; None removes a field."""

    def spoil(event: Interaction) -> tuple[bytes | None, bytes]:
        fields = {**msgspec.to_builtins(event), "event_id": f"x{event.event_id}", **changes}
        kept = {name: value for name, value in fields.items() if value is not None}
        return (event.user_id.encode() if "user_id" in kept else None), _encode(kept)

    return spoil


def _in_future(event: Interaction) -> tuple[bytes | None, bytes]:
    return _with(ts=event.ts + DAY_MS)(event)


def _cut_short(event: Interaction) -> tuple[bytes | None, bytes]:
    return event.user_id.encode(), _encode(event)[:-9]


RUBBISH: Final[tuple[Callable[[Interaction], tuple[bytes | None, bytes]], ...]] = (
    _with(user_id=None),
    _with(type="purchase", item_id=None),
    _with(type="teleport"),
    _with(quantity=-1),
    _with(item_id="tea\u0007"),
    _in_future,
    _cut_short,
)
