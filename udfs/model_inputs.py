"""The inputs of a model from profiles: rows and weights, and what else it takes (:data:`models.contract.PROFILE`)."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.events import EVENT_TYPES
from schemas.topics import DAY_MS, HOUR_MS, SECOND_MS
from udfs.had_items import ENTRY, counts_of, item_hash
from udfs.profile import RECENT_ITEMS_MAX, WEIGHT_OF_KIND, ProfileBounds
from udfs.state import Profile

WEIGHTS: Final = np.array(WEIGHT_OF_KIND)
EPOCH_WEEKDAY: Final = 3
"""1970-01-01 was a Thursday; Monday is 0."""


class Inputs(NamedTuple):
    """Rows int32 and weights float32, both [users, RECENT_ITEMS_MAX], newest last, padded with 0 on the left.

    `features` are the other inputs that the model takes, by name.
    """

    items: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]
    features: dict[str, npt.NDArray[Any]]


class _Known(NamedTuple):
    """Where the recent items that the model knows go, in one column each: users, columns, and the items themselves."""

    users: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int32]
    ages_ms: npt.NDArray[np.int64]
    kinds: npt.NDArray[np.int64]
    ids: Sequence[str]


class ModelInputs:
    """Makes the inputs of a model with the rows in `index`; `wanted` are those beside rows and weights."""

    def __init__(self, index: Mapping[str, int], wanted: Sequence[str], bounds: ProfileBounds) -> None:
        self._index = index
        self._wanted = wanted
        self._half_life_ms = bounds.recents_half_life_ms

    def of(self, profiles: Sequence[Profile], now_ms: int) -> Inputs:
        """The inputs for `profiles`, and for lists made at `now_ms`.

        A weight is that of the item's kind, halved for every `recents_half_life_ms` before the user's newest event.
        Items that the model does not know leave no gap.
        """
        known, users = self._known(profiles), len(profiles)
        items = _spread(known, known.rows, users, np.int32)
        decayed = WEIGHTS[known.kinds] * np.exp2(-known.ages_ms / self._half_life_ms)
        features = {name: _feature(name, known, profiles, now_ms) for name in self._wanted}
        return Inputs(items, _spread(known, decayed, users, np.float32), features)

    def _known(self, profiles: Sequence[Profile]) -> _Known:
        recents = [recent for profile in profiles for recent in profile.recents]
        row_of = self._index.get
        rows = np.array([row_of(item, 0) for item, _, _ in recents], np.int32)
        known = np.flatnonzero(rows)
        users = np.repeat(np.arange(len(profiles)), [len(profile.recents) for profile in profiles])[known]
        sizes = np.bincount(users, minlength=len(profiles))
        columns = np.arange(len(known)) + np.repeat(RECENT_ITEMS_MAX - np.cumsum(sizes), sizes)
        newest = np.array([profile.newest_ts for profile in profiles])[users]
        ages_ms = newest - np.array([ts for _, ts, _ in recents], np.int64)[known]
        kinds = np.array([kind for _, _, kind in recents], np.int64)[known]
        return _Known(users, columns, rows[known], ages_ms, kinds, [recents[place][0] for place in known.tolist()])


def _spread(known: _Known, values: npt.NDArray[Any], users: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """`values` in the places of their items; 0 for padding."""
    spread = np.zeros((users, RECENT_ITEMS_MAX), dtype)
    spread[known.users, known.columns] = values
    return spread


def _feature(name: str, known: _Known, profiles: Sequence[Profile], now_ms: int) -> npt.NDArray[Any]:
    """One input of :data:`models.contract.PROFILE`; the scorer casts it."""
    users = len(profiles)
    match name:
        case "kinds":
            return _spread(known, known.kinds + 1, users, np.int32)
        case "ages_s":
            return _spread(known, known.ages_ms / SECOND_MS, users, np.float32)
        case "had_counts":
            return _spread(known, _had_counts(known, profiles), users, np.int32)
        case "had_items":
            return _column([len(profile.had) // ENTRY.itemsize for profile in profiles])
        case "kind_counts":
            return _kind_counts(profiles)
        case "session_events":
            return _column([0 if profile.session is None else profile.session.events for profile in profiles])
        case "idle_s":
            return _column([max(0, now_ms - profile.newest_ts) / SECOND_MS for profile in profiles])
        case "hour":
            return _column([now_ms // HOUR_MS % 24] * users)
        case "weekday":
            return _column([(now_ms // DAY_MS + EPOCH_WEEKDAY) % 7] * users)
    raise ValueError(f"no feature {name}")


def _column(values: Sequence[float]) -> npt.NDArray[Any]:
    return np.array(values)[:, None]


def _kind_counts(profiles: Sequence[Profile]) -> npt.NDArray[np.float32]:
    """The counts as they were at each user's newest event; of types that a stored profile is older than, 0."""
    found = np.zeros((len(profiles), len(EVENT_TYPES)), np.float32)
    for user, profile in enumerate(profiles):
        found[user, : len(profile.counts)] = profile.counts
    return found


def _had_counts(known: _Known, profiles: Sequence[Profile]) -> npt.NDArray[np.int64]:
    counts: list[dict[int, int]] = []
    for profile in profiles:
        had = counts_of(profile.had)
        counts.append(dict(zip(had["item"].tolist(), had["count"].tolist(), strict=True)))
    places = zip(known.users.tolist(), map(item_hash, known.ids), strict=True)
    return np.array([counts[user].get(item, 0) for user, item in places], np.int64)
