"""What is stored of a user's features (:mod:`adapters.redis.feature_rows`), and how far topics have been read."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

PROFILE_FIELD: Final = b"freshet:profile"
"""The field of a row that holds the profile."""


class Seen(NamedTuple):
    """What is stored of a user, empty if nothing is."""

    state: bytes = b""
    profile: bytes = b""


class RowWrite(NamedTuple):
    """What to store of `user` in place of `seen`. Times in ms since the epoch; `state_ends_at` 0: never.

    Without `state` it is deleted, without `fields` the row is.
    """

    user: str
    seen: Seen
    state: bytes = b""
    state_ends_at: int = 0
    row_ends_at: int = 0
    fields: Sequence[bytes] = ()


class Position(msgspec.Struct, frozen=True):
    """Topic → partition → the next offset. `kid` is the id of the key with which users are named.

    `writer` names the process that has stored it; each has a name of its own.
    """

    kid: int
    topics: dict[str, dict[str, int]]
    writer: str = ""
