"""A user's state as versioned bytes. `users-v1` is the only keyed state with data of users.

The first byte is :data:`STATE_VERSION`; behind it stands MessagePack with fields by place.
Fields are only ever appended, with a default: old bytes then still read. Anything else is a new version
with a reader for the one before, golden bytes in tests/golden and a "State:" line in the changelog.
"""

from typing import Any, Final

import msgspec

from schemas.consents import Level
from schemas.errors import SchemaError
from schemas.events import EVENT_TYPES

STATE_VERSION: Final = 1

Recent = tuple[str, int, int]
"""Of an item that the user met: (item id, newest event time in ms, kind)."""


class Session(msgspec.Struct, array_like=True, gc=False):
    """The last session: its keyed hash (empty where the producer named none), first and last event time, events."""

    id: bytes
    started: int
    last: int
    events: int


class Profile(msgspec.Struct, array_like=True, gc=False):
    """What a user did lately. Everything is bounded by :class:`udfs.profile.ProfileBounds`.

    `recents` is ordered by event time, newest last, one entry an item. `counts` are decayed counts by kind as of
    `newest_ts`. `event_ids` are the last event hashes, 8 bytes each, oldest first. `active_at` is append time.
    """

    recents: list[Recent] = []
    bought: list[str] = []
    counts: list[float] = msgspec.field(default_factory=lambda: [0.0] * len(EVENT_TYPES))
    newest_ts: int = 0
    active_at: int = 0
    session: Session | None = None
    event_ids: bytes = b""


class UserState(msgspec.Struct, array_like=True, gc=False):
    """A user's consent and, while it allows one, their profile.

    `version` counts accepted changes and survives a withdrawal. `consent_at`, `consent_partition`, `consent_offset` are
    the append time and the place of the last consent. Interactions appended before `not_before` fall into a denied
    period. `due_slot` is the slot of the due index (ms since the epoch) in which the user stands, 0 for none.
    `withdrawn_at` is when the user last said no, by the clock of the collector, 0 for never. `kept_for` are purposes
    that events are published for though nothing is personalised, 0 at any level above none; the profile then holds what
    knows duplicates, no more.
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
    """The bytes of `state`."""
    return _HEAD + _encoder.encode(state)


def decode_state(raw: bytes) -> UserState:
    """The state behind `raw`; raises :class:`SchemaError` for bytes of a version that this release cannot read."""
    if raw[0] != STATE_VERSION:
        raise SchemaError(f"state of version {raw[0]}, this release reads {STATE_VERSION}: upgrade step by step")
    return _decoder.decode(memoryview(raw)[1:])


def readable(state: UserState) -> dict[str, Any]:
    """`state` by field names, hashes in hexadecimal: what an `access` command answers with."""
    fields = msgspec.structs.asdict(state)
    if state.profile is not None:
        profile = fields["profile"] = msgspec.structs.asdict(state.profile)
        profile["event_ids"] = state.profile.event_ids.hex()
        if state.profile.session is not None:
            profile["session"] = msgspec.structs.asdict(state.profile.session) | {"id": state.profile.session.id.hex()}
    return fields
