"""What a model may take as input, by name: a closed set, each with its type, its shape and its meaning.

`docs/ml/contract.md` shows the same table. The job feeds :data:`FED`, and computes those that a model does not take at
no cost. :data:`DERIVED` are computed from them within the graph (:mod:`models.adapt`).
"""

from typing import Final, NamedTuple

from schemas.events import EVENT_TYPES


class Feature(NamedTuple):
    """An input: ``dtype[users, width]``. Without a `width`, one value for each of the recent items."""

    dtype: str
    meaning: str
    width: int | None = None


ITEMS: Final = "items"
WEIGHTS: Final = "weights"
BAG: Final = "bag"
BAG_ITEMS_MAX: Final = 100_000
"""The largest vocabulary for which `bag` is computed: it is a float for each user and item."""

PROFILE: Final[dict[str, Feature]] = {
    "kinds": Feature("int32", "1 + the type of the event with each item, in the order of the types; 0 is padding"),
    "ages_s": Feature("float32", "seconds from each item to the user's newest event; 0 for padding"),
    "had_counts": Feature("int32", "how often the user has met each item, as far as remembered; 0 for padding"),
    "had_items": Feature("int32", "how many different items the user has met, as far as remembered", 1),
    "kind_counts": Feature("float32", "the user's decayed count of each type of event", len(EVENT_TYPES)),
    "session_events": Feature("int32", "events in the user's last session", 1),
    "idle_s": Feature("float32", "seconds from the user's newest event to the making of the list, at least 0", 1),
    "hour": Feature("int32", "the hour of the day in which the list is made, 0 to 23, UTC", 1),
    "weekday": Feature("int32", "the day of the week on which the list is made, 0 (Monday) to 6, UTC", 1),
}
"""Inputs from the user's profile, and the time of the list."""

FED: Final[dict[str, Feature]] = {
    ITEMS: Feature("int32", "rows of the user's last items in the vocabulary, newest last; 0 is padding"),
    WEIGHTS: Feature("float32", "a weight for each item, by the type of its event and its age; 0 for padding"),
    **PROFILE,
}

DERIVED: Final[dict[str, Feature]] = {
    "mask": Feature("float32", "1 for each item, 0 for padding"),
    "history_length": Feature("int32", "how many of `items` are no padding", 1),
    "items_padded_right": Feature("int32", "`items` with the padding behind the newest item"),
    BAG: Feature("float32", "for each row of the vocabulary, the sum of its `weights`; with or without row 0", 0),
}

INPUTS: Final = {**FED, **DERIVED}
