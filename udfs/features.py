"""The features of a user for models outside of the job, defined once: offline, online and for Feast alike.

They are computed from a profile (:class:`udfs.state.Profile`) that is kept by the job's own rules, so what a model is
trained on is what it is served. Names and values are those of the inputs of models inside the job
(:mod:`udfs.model_inputs`), without padding and without rounding to 32 bits. No value depends on a clock: a reader who
needs the time since the last event subtracts `newest_ts` from the time of its request.
"""

from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

from schemas.consents import Level
from schemas.events import EVENT_TYPES
from schemas.topics import SECOND_MS
from udfs.elements import EventRecord
from udfs.had_items import ENTRY, counts_of, item_hash
from udfs.profile import WEIGHT_OF_KIND, Outcome, ProfileBounds, take
from udfs.state import Profile, UserState

Kind = Literal["int", "float", "texts", "ints", "floats"]
Value: TypeAlias = int | float | list[str] | list[int] | list[float]
ENTITY: Final = "user"
VIEW: Final = "user_profile"


class UserFeature(NamedTuple):
    """A feature: `meaning` is its description in Feast, `of` its value for a profile."""

    name: str
    kind: Kind
    meaning: str
    of: Callable[[Profile, ProfileBounds], Value]


def _count_of(kind: int) -> Callable[[Profile, ProfileBounds], Value]:
    return lambda profile, bounds: profile.counts[kind] if kind < len(profile.counts) else 0.0


def _ages_ms(profile: Profile) -> list[int]:
    return [profile.newest_ts - ts for _, ts, _ in profile.recents]


def _weights(profile: Profile, bounds: ProfileBounds) -> list[float]:
    kinds = [kind for _, _, kind in profile.recents]
    return [
        WEIGHT_OF_KIND[kind] * 0.5 ** (age / bounds.recents_half_life_ms)
        for kind, age in zip(kinds, _ages_ms(profile), strict=True)
    ]


def _had_counts(profile: Profile, bounds: ProfileBounds) -> list[int]:
    counts = dict(counts_of(profile.had).tolist())
    return [counts.get(item_hash(item), 0) for item, _, _ in profile.recents]


def _session_ms(profile: Profile, bounds: ProfileBounds) -> int:
    return 0 if profile.session is None else profile.session.last - profile.session.started


FEATURES: Final[tuple[UserFeature, ...]] = (
    *(
        UserFeature(
            f"count_{name}",
            "float",
            f"Events of type {name}, each halved for every profile.counts_half_life_ms before the newest event",
            _count_of(kind),
        )
        for kind, name in enumerate(EVENT_TYPES)
    ),
    UserFeature("newest_ts", "int", "Time of the newest event, in ms since the epoch", lambda p, _: p.newest_ts),
    UserFeature(
        "session_events",
        "int",
        "Events of the last session",
        lambda p, _: 0 if p.session is None else p.session.events,
    ),
    UserFeature("session_ms", "int", "Time from the first to the last event of the last session, in ms", _session_ms),
    UserFeature("had_items", "int", "Items met, of those remembered", lambda p, _: len(p.had) // ENTRY.itemsize),
    UserFeature("items", "texts", "The items met last, newest last", lambda p, _: [item for item, _, _ in p.recents]),
    UserFeature(
        "kinds",
        "ints",
        "For each of items, its heaviest type of event: 1 + its place in EVENT_TYPES of schemas/events.py",
        lambda p, _: [kind + 1 for _, _, kind in p.recents],
    ),
    UserFeature(
        "ages_s",
        "floats",
        "For each of items, the time from its last event to newest_ts, in seconds",
        lambda p, _: [age / SECOND_MS for age in _ages_ms(p)],
    ),
    UserFeature(
        "weights",
        "floats",
        "For each of items, the weight of its kind, halved for every profile.recents_half_life_ms of its age",
        _weights,
    ),
    UserFeature("had_counts", "ints", "For each of items, how often the user met it", _had_counts),
    UserFeature("bought_items", "texts", "The items bought last, newest last", lambda p, _: list(p.bought)),
)


def values_of(profile: Profile, bounds: ProfileBounds) -> list[Value]:
    """The values of :data:`FEATURES` for `profile`."""
    return [feature.of(profile, bounds) for feature in FEATURES]


def accept(state: UserState | None, event: EventRecord, bounds: ProfileBounds, ttl_ms: int) -> Outcome:
    """Apply an event to `state`, as the job does; a profile that has been idle for `ttl_ms` by then begins anew."""
    if state is not None and state.profile is not None and ends_at(state.profile, ttl_ms) <= event.append_ts:
        state.profile = Profile()
    return take(state, event, bounds)


def ends_at(profile: Profile, ttl_ms: int) -> int:
    """When a profile without another event ends, in ms since the epoch, by append time."""
    return profile.active_at + ttl_ms


def has_features(state: UserState) -> bool:
    """Whether a user has features: what a session leaves is kept nowhere but in the job."""
    return state.level == Level.FULL and state.profile is not None and state.profile.active_at > 0


class FeatureRow(NamedTuple):
    """The features of `user` from `event_ts` on (ms since the epoch, append time): `values` are those of FEATURES."""

    user: str
    event_ts: int
    values: list[Value]


def rows_of(user: str, events: Sequence[EventRecord], bounds: ProfileBounds, ttl_ms: int) -> list[FeatureRow]:
    """A row for each moment at which an event of `user` was appended: the features after all events until then.

    `events` are those that the job accepted, in any order but for equal append times. Append time and not event time:
    features of a past moment must not know of an event that arrived later.
    """
    state, rows = UserState(level=Level.FULL), []
    ordered = sorted(events, key=lambda event: event.append_ts)
    for place, event in enumerate(ordered):
        accept(state, event, bounds, ttl_ms)
        is_last = place + 1 == len(ordered) or ordered[place + 1].append_ts > event.append_ts
        if is_last and state.profile is not None and state.profile.active_at == event.append_ts:
            rows.append(FeatureRow(user, event.append_ts, values_of(state.profile, bounds)))
    return rows
