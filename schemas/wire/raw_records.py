"""Determines to whom a raw record belongs: one rule for verifying an erasure and for the right of access.

A record concerns the user named by its value, in every format that the job reads, and those named by its key, in the
forms written by clients and serialisers. Of invalid JSON, the readable part counts, and if that names nobody, any text
that equals the user's id. An invalid record in another format is found only by its key.
"""

from collections.abc import Callable
from typing import Any, Final

from schemas.errors import FreshetError
from schemas.marks import MARK_KEY, MOVE_ON_KEY
from schemas.wire.codecs import Codec
from schemas.wire.consent_records import unreadable_consent
from schemas.wire.naming import named_in_json, named_in_key

Users = Callable[[bytes], set[str]]
"""The ids of the users named by a value; empty if it names nobody."""
_NOBODYS_KEYS: Final = (MARK_KEY, MOVE_ON_KEY)
_ESCAPES: Final = (b"\\", b"\0")
"""Each value that names a user in bytes other than their id's contains one of these: JSON escapes, UTF-16 or -32."""


class RecordMatcher:
    """Finds the records of the user `user_id` in a raw topic whose values are parsed by `users`.

    Raises :class:`schemas.errors.SchemaError` if a schema is needed and its source does not respond.
    """

    def __init__(self, user_id: str, users: Users) -> None:
        self._user_id, self._users = user_id, users
        self._raw, self._quoted = user_id.encode(), f'"{user_id}"'.encode()

    def concerns(self, record: Any) -> bool:
        """Whether the record contains the user's id as an id; its value may nevertheless belong to somebody else."""
        if record.key in _NOBODYS_KEYS:
            return False
        value = record.value or b""
        if self._user_id in named_in_key(record.key or b""):
            return True
        if self._raw not in value and not any(hiding in value for hiding in _ESCAPES):
            return False
        named = self._users(value)
        return self._user_id in named if named else self._quoted in value

    def may_see(self, record: Any) -> bool:
        """Whether the value of a record that concerns the user may be shown to them: it is about nobody else."""
        named = self._users(record.value or b"")
        return named == {self._user_id} if named else self._user_id in named_in_key(record.key or b"")


def in_interactions(codec: Codec) -> Users:
    """Parses the values of `interactions`; `codec` is the job's."""

    def users(value: bytes) -> set[str]:
        try:
            if codec.mapped is not None:
                return {event.user_id for event in codec.mapped(value).events} or in_json(value)
            return {codec.interaction(value)[0].user_id}
        except FreshetError:
            raise
        except Exception:  # a BadRecord, or an unexpected error of a codec
            return in_json(value)

    return users


def in_consents(codec: Codec) -> Users:
    """Parses the values of `consents`; `codec` is the job's."""

    def users(value: bytes) -> set[str]:
        try:
            return {codec.consent(value)[0].user_id}
        except FreshetError:
            raise
        except Exception:  # as above
            return {change.user_id for change in unreadable_consent(codec, None, value, 0)}

    return users


def in_json(value: bytes) -> set[str]:
    """Parses JSON, valid or not: the values of `control`.

    >>> in_json(b'{"user_id":"ada","kind":"relink"}'), in_json(b'{"user_id":"ada","ki'), in_json(b'{"kind":"kids"}')
    ({'ada'}, {'ada'}, set())
    """
    named = named_in_json(value)
    return set() if named is None else set(named.users)
