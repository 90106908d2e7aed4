"""A user's state as versioned bytes. `users-v1` is the only keyed state with data of users.

The first byte is :data:`STATE_VERSION`; MessagePack with positional fields follows. Fields are only ever appended, with
a default, so that old bytes can still be read. Any other change is a new version with a reader for the one before,
golden bytes in tests/golden, and a "State:" line in the changelog.
"""

from typing import Any, Final

import msgspec

from schemas.consents import Level
from schemas.errors import SchemaError
from schemas.events import EVENT_TYPES
from schemas.exploration import ExploredList
from udfs.had_items import counts_of
from udfs.known_events import Day

STATE_VERSION: Final = 1

Recent = tuple[str, int, int]
"""A recent item of the user: (item id, newest event time in ms, kind)."""


class Session(msgspec.Struct, array_like=True, gc=False):
    """The last session: its keyed hash (empty if the producer sent none), first and last event time, event count."""

    id: bytes
    started: int
    last: int
    events: int


class ShownList(msgspec.Struct, array_like=True, gc=False):
    """A list that the user has seen: `made` identifies it, `seen_ts` is when it was first seen (event time in ms).

    `seen`, `clicked` and `bought` have a bit for each of its positions. See :mod:`udfs.feedback`.
    """

    made: bytes
    surface: str
    seen_ts: int
    seen: int = 0
    clicked: int = 0
    bought: int = 0


class Profile(msgspec.Struct, array_like=True, gc=False):
    """The user's recent behaviour. Everything is bounded by :class:`udfs.profile.ProfileBounds`.

    `recents` is ordered by event time, newest last, one entry per item. `counts` are decayed counts by kind as of
    `newest_ts`. `event_ids` are the last event hashes, 8 bytes each, oldest first, and `event_days` are their days, see
    :mod:`udfs.known_events`; older states have none. `active_at` is an append time.
    `had` are the items met, see :mod:`udfs.had_items`; states of before 0.1.0 have none.
    `shown` are the lists seen last, `explored` the explored lists made last; without the purpose `measure` there are
    none.
    """

    recents: list[Recent] = []
    bought: list[str] = []
    counts: list[float] = msgspec.field(default_factory=lambda: [0.0] * len(EVENT_TYPES))
    newest_ts: int = 0
    active_at: int = 0
    session: Session | None = None
    event_ids: bytes = b""
    had: bytes = b""
    shown: list[ShownList] = []
    explored: list[ExploredList] = []
    event_days: list[Day] = []


class UserState(msgspec.Struct, array_like=True, gc=False):
    """A user's consent and, while it allows one, their profile.

    `version` counts accepted changes and survives a withdrawal. `consent_at`, `consent_partition` and `consent_offset`
    are the append time and the place of the last consent. Interactions appended before `not_before` belong to a period
    without consent. `due_slot` is the user's slot in the due index (ms since the epoch), 0 for none. `withdrawn_at` is
    when the user last withdrew, by the collector's clock, 0 for never. `kept_for` are purposes that events are
    published for although nothing is personalised, 0 at any level above none; the profile then only holds what
    identifies duplicates.
    """

    level: int = Level.NONE
    purposes: int = 0
    consent_at: int = 0
    consent_partition: int = -1
    consent_offset: int = -1
    not_before: int = 0
    expires_at: int = 0
    version: int = 0
    due_slot: int = 0
    profile: Profile | None = None
    withdrawn_at: int = 0
    kept_for: int = 0


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(UserState)
_HEAD: Final = bytes([STATE_VERSION])


def encode_state(state: UserState) -> bytes:
    """Encode `state`."""
    return _HEAD + _encoder.encode(state)


def decode_state(raw: bytes) -> UserState:
    """Decode a state; raises :class:`SchemaError` for a version that this release cannot read."""
    if raw[0] != STATE_VERSION:
        raise SchemaError(f"state of version {raw[0]}, this release reads {STATE_VERSION}: upgrade step by step")
    return _decoder.decode(memoryview(raw)[1:])


def readable(state: UserState) -> dict[str, Any]:
    """`state` by field names, with hashes in hexadecimal, for the answer to an `access` command."""
    fields = msgspec.structs.asdict(state)
    if state.profile is not None:
        profile = fields["profile"] = msgspec.structs.asdict(state.profile)
        profile["event_ids"] = state.profile.event_ids.hex()
        profile["had"] = [(int(item), int(count)) for item, count in counts_of(state.profile.had)]
        profile["shown"] = [msgspec.structs.asdict(one) | {"made": one.made.hex()} for one in state.profile.shown]
        profile["explored"] = [msgspec.structs.asdict(one) | {"made": one.made.hex()} for one in state.profile.explored]
        if state.profile.session is not None:
            profile["session"] = msgspec.structs.asdict(state.profile.session) | {"id": state.profile.session.id.hex()}
    return fields
