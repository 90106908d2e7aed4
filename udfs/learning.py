"""What an element's events teach the online model, and which of them train the weights of its score.

Only events of users who allow training at level `full` teach anything. A lesson holds items and one of 64 bits of the
user; it is made before its event is applied, because it needs the history before it.
"""

from collections.abc import Collection, Hashable, Sequence
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta

from models.online.dimensions import LAGS, NEIGHBOURS
from models.online.lessons import Lesson
from schemas.consents import PURPOSES, Level
from schemas.topics import DAY_MS, SECOND_MS
from udfs.elements import EventRecord
from udfs.profile import WEIGHT_OF_KIND, AtLeastOne
from udfs.state import Profile, UserState

TRAIN: Final = 1 << PURPOSES.index("train")
EXAMPLES_MAX: Final = 4
"""Examples an element gives at most: each costs a run of the graph."""
EXAMPLES_PER_SECOND: Final = 16
"""Of a bucket: the learner takes one step a second, which more examples hardly improve."""


class LearnSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the online model learns. Only events of users who grant the purpose `train` are used."""

    items_max: Annotated[int, Meta(ge=100, le=2_000_000)] = 200_000
    """Items that are known at a time. When there are more, the least popular tenth is forgotten. 3 KB each."""
    pair_rows_max: Annotated[int, Meta(ge=100)] = 2_000
    """Items whose neighbours are published in one second, at most; others follow in the next. 450 bytes each."""
    similar_items: Annotated[int, Meta(ge=1, le=NEIGHBOURS)] = 20
    """Items in the list of those similar to an item."""
    similar_lists_max: Annotated[int, Meta(ge=1, le=5_000)] = 500
    """Lists of similar items that are published in one second, at most; others follow in the next."""
    similar_ttl_ms: AtLeastOne = 7 * DAY_MS
    """How long a list of similar items stays in Redis after it was last published."""
    trending_ttl_ms: AtLeastOne = DAY_MS
    """How long the list of trending items stays in Redis after it was last published."""


class Before(NamedTuple):
    """A user's history before an event, as far as lists depend on it."""

    recents: tuple[str, ...]
    had: bytes


class Example(NamedTuple):
    """A history, and what followed it at one moment."""

    pseudonym: str
    before: Before
    ts: int
    followed: list[str]


class Teaching:
    """Collects what one element teaches. Call `before` with an event, apply the event, then call `accepted`."""

    def __init__(self) -> None:
        self._lessons: list[tuple[str, Lesson]] = []
        self._examples: dict[str, Example] = {}
        self._trained: set[str] = set()

    def before(self, state: UserState | None, event: EventRecord) -> Before | None:
        """What must be known of the user before `event` is applied; None if the event teaches nothing."""
        if state is None or state.level != Level.FULL or not state.purposes & TRAIN:
            return None
        if event.item is None or WEIGHT_OF_KIND[event.kind] == 0.0:
            return None
        profile = state.profile
        if profile is None:
            return Before((), b"")
        return Before(tuple(item for item, ts, _ in profile.recents if ts <= event.ts), profile.had)

    def accepted(self, event: EventRecord, before: Before) -> None:
        """`event` was accepted, and moves lists."""
        assert event.item is not None
        newest_first = before.recents[: -LAGS - 1 : -1]
        # Never later than the broker's clock: one producer's clock must not age what all others have taught.
        ts = min(event.ts, event.append_ts)
        self._lessons.append((event.pseudonym, Lesson(event.item, ts, event.user_bit, newest_first)))
        example = self._examples.get(event.pseudonym)
        if example is not None:
            if example.ts == event.ts:
                example.followed.append(event.item)
        elif event.pseudonym not in self._trained:
            self._trained.add(event.pseudonym)
            if before.recents and len(self._examples) < EXAMPLES_MAX:
                self._examples[event.pseudonym] = Example(event.pseudonym, before, event.ts, [event.item])

    def lessons(self, users: Collection[str]) -> list[Lesson]:
        """The lessons of `users`."""
        return [lesson for pseudonym, lesson in self._lessons if pseudonym in users]

    def examples(self, users: Collection[str]) -> list[Example]:
        """The examples of `users`."""
        return [example for example in self._examples.values() if example.pseudonym in users]


class ExampleBudget:
    """How many examples each bucket may still give in the current second."""

    def __init__(self) -> None:
        self._given: dict[Hashable, tuple[int, int]] = {}

    def left(self, bucket: Hashable, now_ms: int) -> int:
        """How many examples `bucket` may give at `now_ms`."""
        return max(0, EXAMPLES_PER_SECOND - self._given_in(bucket, now_ms // SECOND_MS))

    def spend(self, bucket: Hashable, now_ms: int, examples: int) -> None:
        """`bucket` gave `examples` at `now_ms`."""
        second = now_ms // SECOND_MS
        self._given[bucket] = second, self._given_in(bucket, second) + examples

    def _given_in(self, bucket: Hashable, second: int) -> int:
        latest, given = self._given.get(bucket, (second, 0))
        return given if latest == second else 0


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(list[Lesson])


def encode_lessons(lessons: Sequence[Lesson]) -> bytes:
    """Bytes for `lessons-v1`, where lessons stay until the second ends."""
    return _encoder.encode(lessons)


def decode_lessons(raw: bytes) -> list[Lesson]:
    """The lessons behind `raw`."""
    return _decoder.decode(raw)


def profile_of(before: Before) -> Profile:
    """A profile with this history, for ranking."""
    return Profile(recents=[(item, 0, 0) for item in before.recents], had=before.had)
