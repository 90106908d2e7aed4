"""Consent changes: a full record each time, never a delta.

The `consents` topic is the source of truth; Redis is a view of it. The fields map to the consent record of ISO/IEC TS
27560:2023. TCF and GPP strings are passed through unchanged: nothing here parses them, only a decision by policy file
does (`udfs/policy.py`).
"""

from enum import IntEnum
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from schemas.events import EVENT_TS_MAX, EVENT_TS_MIN, Label, ShortText, UserId

LevelName = Literal["none", "session", "full"]
Purpose = Literal["personalise", "measure", "train"]
PURPOSES: Final[tuple[Purpose, ...]] = ("personalise", "measure", "train")
"""In a fixed order: sets of purposes are stored as bits in this order, so only append."""


class Level(IntEnum):
    """What may be kept and served: only popular lists; the events of the current session; everything."""

    NONE = 0
    SESSION = 1
    FULL = 2


LEVEL_OF: Final[dict[str, Level]] = {"none": Level.NONE, "session": Level.SESSION, "full": Level.FULL}
LEVEL_NAME: Final[dict[Level, LevelName]] = {Level.NONE: "none", Level.SESSION: "session", Level.FULL: "full"}

OpaqueText = Annotated[str, Meta(max_length=65_536)]
"""TCF does not limit the length of its strings; real ones have more than 4,096 characters."""
Time = Annotated[int, Meta(ge=EVENT_TS_MIN, le=EVENT_TS_MAX)]


class ConsentChange(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """Who consents to what from now on; `ts` and `expires_at` in ms since the epoch.

    `granted` and `denied` name purposes; without `granted`, `session` and `full` grant all of them. Each purpose is
    granted and denied separately: without `personalise`, nothing is personalised, and at level `full` events are still
    published for the other purposes. `gpc` is the `Sec-GPC` header of the request (:func:`gpc_of`), left out if it was
    not evaluated. Fields are only ever appended.
    """

    user_id: UserId
    level: LevelName
    ts: Time
    granted: list[Purpose] | None = None
    denied: list[Purpose] | None = None
    method: ShortText | None = None
    notice_version: ShortText | None = None
    jurisdiction: Label | None = None
    expires_at: Time | None = None
    erase: bool = False
    tcf: OpaqueText | None = None
    gpp: OpaqueText | None = None
    schema_v: Annotated[int, Meta(ge=0, le=1_000_000)] = 1
    gpc: bool | None = None


class LenientConsentChange(ConsentChange, forbid_unknown_fields=False):
    """The same, for a record with unknown fields: they are dropped and counted."""


def purposes_bits(change: ConsentChange) -> int:
    """The purposes in force after `change`, as bits in the order of :data:`PURPOSES`.

    >>> purposes_bits(ConsentChange("u", "full", 1_700_000_000_000, denied=["train"]))
    3
    """
    if change.level == "none":
        return 0
    granted = set(PURPOSES if change.granted is None else change.granted) - set(change.denied or ())
    return sum(1 << place for place, purpose in enumerate(PURPOSES) if purpose in granted)


def gpc_of(header: str | None) -> bool:
    """Whether the `Sec-GPC` header of a request (None: it had none) requests not to sell or share data.

    Only exactly "1" does, according to the W3C's Global Privacy Control specification.

    >>> gpc_of("1"), gpc_of("0"), gpc_of("true"), gpc_of(None)
    (True, False, False, False)
    """
    return header == "1"


def purposes_of(bits: int) -> list[Purpose]:
    """The purposes encoded by bits in the order of :data:`PURPOSES`.

    >>> purposes_of(3)
    ['personalise', 'measure']
    """
    return [purpose for place, purpose in enumerate(PURPOSES) if bits >> place & 1]
