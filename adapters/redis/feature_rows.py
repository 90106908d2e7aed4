"""Rows of users in Feast's online store, with the state that they are computed from (:mod:`schemas.wire.feast_layout`).

``<row>`` is Feast's key of a user; its field ``freshet:profile`` holds the profile, so that it ends with the row.
``freshet-features:{<row>}`` is the user's consent, in the same slot of a Cluster. ``freshet-features:<project>`` says
how far topics have been read: it is in the same Redis as the rows, so a Redis that has lost them begins anew.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Final

from adapters.redis.client import Keyed, RedisClient, always
from adapters.redis.scripts import WRITE_FEATURES
from schemas.errors import StoreUnavailable
from schemas.stored_features import PROFILE_FIELD, RowWrite, Seen
from schemas.wire.feast_layout import row_key

_HEAD: Final = b"freshet-features:"
_DELETED_AT_ONCE: Final = 1_000


def keys_of(project: str, entity: str, user: str) -> tuple[bytes, bytes]:
    """The keys of the row and of the state of a user."""
    row = row_key(project, entity, user)
    return row, b"%b{%b}" % (_HEAD, row)


class FeatureRows:
    """The rows of `project` for the entity `entity`. Methods raise as :class:`adapters.redis.client.RedisClient`."""

    def __init__(self, client: RedisClient, project: str, entity: str) -> None:
        self._client, self._project, self._entity = client, project, entity
        self._position_key = _HEAD + project.encode()

    def seen(self, users: Sequence[str]) -> dict[str, Seen]:
        """What is stored of each of `users`. One round trip."""
        commands: list[Keyed] = []
        for user in users:
            row, state = keys_of(self._project, self._entity, user)
            commands += [(state, ("GET", state)), (row, ("HGET", row, PROFILE_FIELD))]
        found = [part or b"" for part in self._client.run(always(commands))]
        return {user: Seen(*found[2 * place : 2 * place + 2]) for place, user in enumerate(users)}

    def write(self, writes: Sequence[RowWrite]) -> None:
        """Store `writes`. Raises :class:`StoreUnavailable` if something else has written since they were read."""
        commands: list[Keyed] = []
        for one in writes:
            keys = keys_of(self._project, self._entity, one.user)
            ends = one.state_ends_at, one.row_ends_at
            commands.append((keys[0], WRITE_FEATURES(keys, *one.seen, one.state, *ends, *one.fields)))
        if 0 in self._client.run(always(commands)):
            raise StoreUnavailable(
                f"another process writes features of the project {self._project}, too. One `freshet features push` may "
                "run for a project, and nothing else may write its rows of users: end the other process, or give this "
                "job another features.project"
            )

    def position(self) -> bytes | None:
        """What :meth:`keep_position` has stored."""
        [found] = self._client.run(always([(self._position_key, ("GET", self._position_key))]))
        return found if found is None or isinstance(found, bytes) else None

    def keep_position(self, position: bytes) -> None:
        """Store how far topics have been read."""
        self._client.run(always([(self._position_key, ("SET", self._position_key, position))]))

    def clear(self) -> int:
        """Delete all rows of the project with their states, and the position first; returns how many keys."""
        self._client.run(always([(self._position_key, ("DEL", self._position_key))]))
        pattern = row_key(self._project, self._entity, "")
        tail, head = self._project.encode(), pattern[: -len(self._project) - 4]
        found = (key for key in self._client.all_keys() if _is_of(key, head, tail))
        count = 0
        for chunk in _chunked(found):
            self._client.run(always([(key, ("DEL", key)) for key in chunk]))
            count += len(chunk)
        return count


def _is_of(key: bytes, head: bytes, tail: bytes) -> bool:
    """Whether `key` is a row, or the state of one: its length field says where the user's name ends."""
    row = key[len(_HEAD) + 1 : -1] if key.startswith(_HEAD + b"{") else key
    length = int.from_bytes(row[len(head) : len(head) + 4], "little")
    return row.startswith(head) and row[len(head) + 4 + length :] == tail


def _chunked(keys: Iterator[bytes]) -> Iterator[list[bytes]]:
    while chunk := list(itertools.islice(keys, _DELETED_AT_ONCE)):
        yield chunk
