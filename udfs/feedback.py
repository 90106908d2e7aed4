"""Feedback: impressions, clicks and purchases joined with the list that they name, and counted. Pure.

An event joins a list by its recommendation id, which ingest has checked, and by its position. Only events of users who
grant the purpose `measure` count. Of a user, the last few lists are remembered, as the positions that were seen,
clicked and bought: no items. Counts are by model, arm and surface, and hold no user.

Beside them, what models rank from is counted, so that a change of it can be noticed (:mod:`udfs.drift_watch`).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import zip_longest
from types import MappingProxyType
from typing import Annotated, Final, NamedTuple, Protocol

import msgspec
from msgspec import Meta

from schemas.consents import PURPOSES, Level
from schemas.events import EVENT_TYPES, KIND_OF
from schemas.recommendation_ids import MODEL_LENGTH_MAX, made_at_ms, short_name
from schemas.topics import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from udfs.elements import EventRecord
from udfs.profile import RECENT_ITEMS_MAX, WEIGHT_OF_KIND
from udfs.state import ShownList, UserState

MEASURE: Final = 1 << PURPOSES.index("measure")
SHOWN_MAX: Final = 8
"""Lists remembered of a user."""
POSITIONS_MAX: Final = 64
CUTS: Final = (5, 10)
"""The k of precision@k and recall@k."""
IMPRESSION: Final = KIND_OF["impression"]
CLICK: Final = KIND_OF["click"]
PURCHASE: Final = KIND_OF["purchase"]
JOINED: Final = frozenset({IMPRESSION, CLICK, PURCHASE})
OTHER: Final = "other"
LENGTHS: Final = RECENT_ITEMS_MAX.bit_length() + 1
"""Classes of lengths of histories: 0, 1, 2 to 3, 4 to 7, and so on."""


class FeedbackSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What users do with lists, counted by model, arm and surface. Only with the purpose `measure`."""

    window_ms: Annotated[int, Meta(ge=SECOND_MS, le=DAY_MS)] = 30 * MINUTE_MS
    """How long after a list was first seen clicks and purchases count for it."""
    publish_every_ms: Annotated[int, Meta(ge=SECOND_MS, le=HOUR_MS)] = 10 * SECOND_MS
    """How often the counts are written to the topic `metrics`."""
    series_max: Annotated[int, Meta(ge=1, le=1_000)] = 100
    """Combinations of model, arm and surface that are counted apart; others share the surface `other`."""


class Series(NamedTuple):
    """What counts are kept apart for."""

    model: str
    arm: str
    surface: str


class Counts(msgspec.Struct, array_like=True):
    """`lists` seen; positions seen (`impressions`), clicked and bought, each once a list; `hits` are clicked or bought.

    `seen_at` and `hits_at` count only the first k positions, for each k of :data:`CUTS`.
    """

    lists: int = 0
    impressions: int = 0
    clicks: int = 0
    purchases: int = 0
    hits: int = 0
    seen_at: list[int] = msgspec.field(default_factory=lambda: [0] * len(CUTS))
    hits_at: list[int] = msgspec.field(default_factory=lambda: [0] * len(CUTS))

    def add(self, other: "Counts") -> None:
        """Add `other`."""
        self.lists += other.lists
        self.impressions += other.impressions
        self.clicks += other.clicks
        self.purchases += other.purchases
        self.hits += other.hits
        self.seen_at = [mine + more for mine, more in zip(self.seen_at, other.seen_at, strict=True)]
        self.hits_at = [mine + more for mine, more in zip(self.hits_at, other.hits_at, strict=True)]


class CountedInput(NamedTuple):
    """What is counted of what models rank from.

    `history`: events by the length of the user's history, of :data:`LENGTHS` classes. `unknown`: events of items that
    `model` knows, and of others.
    """

    what: str
    model: str = ""


class Knowing(Protocol):
    """The part of a :class:`udfs.ranking.ListModel` that says what it knows."""

    @property
    def name(self) -> str: ...  # noqa: D102
    def knows(self, item: str) -> bool: ...  # noqa: D102


class FeedbackSums(NamedTuple):
    """Counts by series, and the number of events of each kind, whether they name a list or not.

    `inputs` has the counts of events that lists are made from.
    """

    series: dict[Series, Counts]
    kinds: list[int]
    inputs: Mapping[CountedInput, list[int]] = MappingProxyType({})


class Measuring:
    """Collects what one element measures: call `accepted` with each accepted event, then `sums`.

    `longest` is the number of items in the longest list that the job makes: nobody saw a position beyond it.
    """

    def __init__(self, settings: FeedbackSettings, longest: int = POSITIONS_MAX) -> None:
        self._window_ms = settings.window_ms
        self._longest = min(longest, POSITIONS_MAX)
        self._found: list[tuple[str, Series, Counts]] = []
        self._measured: list[EventRecord] = []
        self._histories: list[tuple[str, str, int]] = []

    def accepted(self, state: UserState, event: EventRecord) -> None:
        """Join an event that was accepted, and now is part of `state`, with its list."""
        if not (state.purposes if state.level == Level.FULL else state.kept_for) & MEASURE:
            return
        self._measured.append(event)
        profile = state.profile
        if event.item is not None and WEIGHT_OF_KIND[event.kind] and profile is not None and not state.kept_for:
            self._histories.append((event.pseudonym, event.item, len(profile.recents)))
        if event.shown is None:
            return
        shown = event.shown
        if profile is None or event.kind not in JOINED:
            return
        model, arm, made, position, surface = shown
        if not 0 <= position < self._longest or made_at_ms(made) <= state.withdrawn_at:
            return
        profile.shown = unexpired(profile.shown, profile.newest_ts, self._window_ms)
        joined = next((each for each in profile.shown if each.made == made), None)
        counts = Counts()
        if joined is None:
            joined = ShownList(made, surface, event.ts)
            profile.shown = [*profile.shown, joined][-SHOWN_MAX:]
            counts.lists = 1
        _count(joined, event.kind, position, counts)
        self._found.append((event.pseudonym, Series(model, arm, joined.surface), counts))

    def sums(self, users: Collection[str], model: Knowing | None = None) -> "FeedbackSums":
        """The counts of `users`, whose events were accepted in the end. `model` makes most lists."""
        found = summed((series, counts) for pseudonym, series, counts in self._found if pseudonym in users)
        kinds = [0] * len(EVENT_TYPES)
        for event in self._measured:
            if event.pseudonym in users:
                kinds[event.kind] += 1
        return FeedbackSums(found, kinds, self._inputs(users, model))

    def _inputs(self, users: Collection[str], model: Knowing | None) -> dict[CountedInput, list[int]]:
        histories = [(item, length) for pseudonym, item, length in self._histories if pseudonym in users]
        if not histories:
            return {}
        lengths = [0] * LENGTHS
        for _, length in histories:
            lengths[min(length.bit_length(), LENGTHS - 1)] += 1
        inputs = {CountedInput("history"): lengths}
        if model is not None:
            known = sum(model.knows(item) for item, _ in histories)
            inputs[CountedInput("unknown", short_name(model.name, MODEL_LENGTH_MAX))] = [known, len(histories) - known]
        return inputs


def unexpired(shown: Sequence[ShownList], now_ms: int, window_ms: int) -> list[ShownList]:
    """Those lists that events may still join."""
    return [each for each in shown if each.seen_ts > now_ms - window_ms]


def _count(joined: ShownList, kind: int, position: int, counts: Counts) -> None:
    """Count what is new at this position. What was clicked or bought was seen, even if no impression says so."""
    bit = 1 << position
    hit = joined.clicked | joined.bought
    if not joined.seen & bit:
        joined.seen |= bit
        counts.impressions = 1
        counts.seen_at = [int(position < cut) for cut in CUTS]
    if kind == CLICK and not joined.clicked & bit:
        joined.clicked |= bit
        counts.clicks = 1
    if kind == PURCHASE and not joined.bought & bit:
        joined.bought |= bit
        counts.purchases = 1
    if kind != IMPRESSION and not hit & bit:
        counts.hits = 1
        counts.hits_at = [int(position < cut) for cut in CUTS]


def summed(found: Iterable[tuple[Series, Counts]]) -> dict[Series, Counts]:
    """The sums by series."""
    sums: dict[Series, Counts] = {}
    for series, counts in found:
        sums.setdefault(series, Counts()).add(counts)
    return sums


class _Packed(msgspec.Struct, array_like=True):
    """Sums as bytes; those of before have no `inputs`."""

    series: list[tuple[Series, Counts]]
    kinds: list[int]
    inputs: list[tuple[CountedInput, list[int]]] = []


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(_Packed)


def added(parts: Sequence[FeedbackSums]) -> FeedbackSums:
    """The sums of all."""
    inputs: dict[CountedInput, list[int]] = {}
    for part in parts:
        for name, counts in part.inputs.items():
            inputs[name] = sum_classes(inputs.get(name, ()), counts)
    series = summed(entry for part in parts for entry in part.series.items())
    return FeedbackSums(series, sum_classes(*(part.kinds for part in parts)), inputs)


def sum_classes(*counts: Sequence[int]) -> list[int]:
    """The sums by class. Counts of an earlier release may have fewer classes.

    >>> sum_classes([1, 2], [1, 1, 1])
    [2, 3, 1]
    """
    return [sum(column) for column in zip_longest(*counts, fillvalue=0)]


def encode_sums(sums: FeedbackSums) -> bytes:
    """Bytes for state, and between operators."""
    return _encoder.encode(_Packed(list(sums.series.items()), sums.kinds, list(sums.inputs.items())))


def decode_sums(raw: bytes) -> FeedbackSums:
    """The sums behind `raw`."""
    packed = _decoder.decode(raw)
    return FeedbackSums(dict(packed.series), packed.kinds, dict(packed.inputs))
