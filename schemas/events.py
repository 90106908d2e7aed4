"""Interactions: what a shopper did, as received in the `interactions` topic.

The field names are those known from CloudEvents, Snowplow, Segment and GA4. Every text and number is bounded here, so
no code after the ingest operator receives an unbounded value.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final, Literal, get_args

import msgspec
from msgspec import Meta

from schemas.decoding import CURRENCY_PATTERN, LABEL_PATTERN
from schemas.exploration import Exploration
from schemas.ids import ID_PATTERN, TEXT_PATTERN

EventType = Literal["impression", "view", "click", "scroll", "dwell", "search", "add_to_cart", "purchase", "rating"]
EVENT_TYPES: Final[tuple[str, ...]] = get_args(EventType)
"""The types in a fixed order: a type is stored as its index here, so only append."""

KIND_OF: Final[dict[str, int]] = {name: kind for kind, name in enumerate(EVENT_TYPES)}
KIND_WEIGHTS: Final[Mapping[str, float]] = MappingProxyType(
    {"view": 1.0, "click": 1.0, "dwell": 1.0, "add_to_cart": 2.0, "purchase": 3.0, "rating": 2.0}
)
"""How much a kind of event reveals of a user's taste, for profiles, popularity and training; others count 0."""
ITEM_REQUIRED: Final = frozenset(EVENT_TYPES) - {"search", "scroll"}

EVENT_TS_MIN: Final = 946_684_800_000
"""2000-01-01 in ms: an earlier event time is due to a wrong clock and is not a late event."""
EVENT_TS_MAX: Final = 253_402_300_799_999
FUTURE_SKEW_MAX_MS: Final = 5 * 60_000
"""The tolerated lead of a producer's clock."""
ID_LENGTH_MAX: Final = 64
USER_ID_LENGTH_MAX: Final = 256
QUERY_LENGTH_MAX: Final = 256
CONTEXT_ENTRIES_MAX: Final = 16
VALUE_MAX: Final = 1e9

# The allowed characters of texts are checked by the codecs (`schemas/ids.py`), and published here.
_AS_ID: Final = {"pattern": ID_PATTERN}
_AS_TEXT: Final = {"pattern": TEXT_PATTERN}
EventId = Annotated[str, Meta(min_length=1, max_length=ID_LENGTH_MAX, extra_json_schema=_AS_ID)]
UserId = Annotated[str, Meta(min_length=1, max_length=USER_ID_LENGTH_MAX, extra_json_schema=_AS_ID)]
ItemId = Annotated[str, Meta(min_length=1, max_length=ID_LENGTH_MAX, extra_json_schema=_AS_ID)]
OptionalId = Annotated[str, Meta(max_length=ID_LENGTH_MAX, extra_json_schema=_AS_ID)]
"""An id that may be empty, which is equivalent to a missing one."""
ContextValue = Annotated[str, Meta(max_length=ID_LENGTH_MAX, extra_json_schema=_AS_TEXT)]
ShortText = Annotated[str, Meta(max_length=ID_LENGTH_MAX)]
Label = Annotated[str, Meta(max_length=32, pattern=LABEL_PATTERN)]


class Interaction(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """One interaction; times in ms since the epoch (event time), `value` in units of `currency`."""

    event_id: EventId
    type: EventType
    ts: Annotated[int, Meta(ge=-(2**53), le=2**53)]
    user_id: UserId
    session_id: OptionalId | None = None
    item_id: ItemId | None = None
    position: Annotated[int, Meta(ge=0, le=100_000)] | None = None
    value: Annotated[float, Meta(ge=0, le=VALUE_MAX)] | None = None
    currency: Annotated[str, Meta(pattern=CURRENCY_PATTERN)] | None = None
    quantity: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    surface: Label | None = None
    request_id: OptionalId | None = None
    query: Annotated[str, Meta(max_length=QUERY_LENGTH_MAX, extra_json_schema=_AS_TEXT)] | None = None
    scroll_pct: Annotated[float, Meta(ge=0, le=100)] | None = None
    dwell_ms: Annotated[int, Meta(ge=0, le=86_400_000)] | None = None
    context: Annotated[dict[Label, ContextValue], Meta(max_length=CONTEXT_ENTRIES_MAX)] | None = None
    schema_v: Annotated[int, Meta(ge=0, le=1_000_000)] = 1


class LenientInteraction(Interaction, forbid_unknown_fields=False):
    """The same, for a record with unknown fields: they are dropped and counted."""


class CleanEvent(msgspec.Struct, omit_defaults=True, gc=False):
    """An accepted interaction as stored in the `events` topic: pseudonymised and consented.

    `event`, `session` and `request` are keyed hashes (hexadecimal) of the ids sent by the producer. `appended` is when
    the interaction was appended to its raw topic, in ms; 0 in records of older releases. `context` contains only the
    keys that name segments. `query` is the text of a search, `surface` and the values of `context` are names of
    segments: all have tags in place of identifiers (:mod:`udfs.masking`). `exploration` is how its item came into its
    list, if it was drawn by chance.
    """

    pseudonym: str
    event: str
    type: str
    ts: int
    item_id: str | None = None
    session: str | None = None
    position: int | None = None
    value: float | None = None
    currency: str | None = None
    quantity: int | None = None
    surface: str | None = None
    request: str | None = None
    scroll_pct: float | None = None
    dwell_ms: int | None = None
    context: dict[str, str] | None = None
    schema_v: int = 1
    query: str | None = None
    appended: int = 0
    exploration: Exploration | None = None
