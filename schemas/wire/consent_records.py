"""Interprets a record of `consents`: one rule for the job, its commands and exports.

Somebody made a decision, so if it cannot be determined, it counts as a withdrawal of every user it names:

- A record that cannot be read withdraws all users it names: the user of its value and that of its key. Key and value
  come from the same program, and if they differ, nobody can tell which is right. In syntactically invalid JSON, the
  values of `user_id` count; in invalid Avro or Protobuf, the readable part of the value counts only if the key names
  nobody, because any bytes may look like an id. Only the user of its value is erased.
- A record that readers may interpret differently cannot be read: JSON or Protobuf with a repeated field, Protobuf in
  which a known field has another wire type, and any with a field that equals a known one except for case, spaces and
  punctuation.
- If a record names more than :data:`NAMED_MAX` users, only that many are withdrawn, and the record is reported.
- A record under a key that is not its user's id grants nothing. It is in another partition than the user's other
  records, so their order is undefined, and compaction deletes it with the next record of that key: a withdrawal might
  be lost while a grant survives. If the key is that of another user, it withdraws that one, too: it may be their
  decision, and compaction deletes their own earlier records in favour of it.
- A record without a value revokes the consent of its key. A key in the form written by serialisers
  (:func:`named_in_key`) may belong to two users: the one whose id it is, and the one whose id it contains.
"""

from typing import Final, NamedTuple

import msgspec

from schemas.consents import ConsentChange
from schemas.errors import FreshetError
from schemas.events import USER_ID_LENGTH_MAX
from schemas.ids import is_id
from schemas.rejects import RejectReason
from schemas.wire.codecs import BadRecord, Codec
from schemas.wire.naming import Named, named_in_key

NAMED_MAX: Final = 100
"""The maximum number of users that one record can withdraw: each of them becomes a separate record."""
UNREADABLE: Final = "unreadable_record"
FOREIGN_KEY: Final = "foreign_key"
"""The `method` of such a consent change in the audit trail."""


class UserDecision(NamedTuple):
    """What a record says about one user. `absent`: it has no value.

    `error`: why it could not be read, if that was unexpected. `more`: the record names more users than
    :data:`NAMED_MAX`, and the others are ignored.
    """

    change: ConsentChange
    unknown_fields: bool = False
    absent: bool = False
    error: Exception | None = None
    more: bool = False


def consents_in(codec: Codec, key: bytes | None, value: bytes | None, append_ts: int) -> list[UserDecision]:
    """The decisions of a record appended at `append_ts` (ms): one per user, at least one.

    If there are several, all are withdrawals, with the user of the key first. Raises :class:`BadRecord` if it names
    nobody.
    """
    said = _decisions_in(codec, key, value, append_ts)
    return said if len(said) <= NAMED_MAX else [one._replace(more=True) for one in said[:NAMED_MAX]]


def _decisions_in(codec: Codec, key: bytes | None, value: bytes | None, append_ts: int) -> list[UserDecision]:
    if value is None and key:
        return [_absent(user_id, key, append_ts) for user_id in _users_of(key)]
    try:
        change, unknown_fields = codec.consent(value)  # type: ignore[arg-type]
    except FreshetError:  # a schema that could not be fetched: the record may be valid
        raise
    except Exception as error:  # a BadRecord, or an unexpected error of a codec
        withdrawals = unreadable_consent(codec, key, value, append_ts)
        if not withdrawals:
            raise
        unforeseen = None if isinstance(error, BadRecord) else error
        return [UserDecision(change, error=unforeseen) for change in withdrawals]
    if key is None or key == change.user_id.encode():
        return [UserDecision(change, unknown_fields)]
    users = named_in_key(key)
    others = [] if change.user_id in users else [user_id for user_id in users if is_user_id(user_id)]
    return [
        UserDecision(_under_a_foreign_key(change, append_ts), unknown_fields),
        *(UserDecision(ConsentChange(user_id, "none", append_ts, method=FOREIGN_KEY)) for user_id in others),
    ]


def unreadable_consent(codec: Codec, key: bytes | None, value: bytes | None, append_ts: int) -> list[ConsentChange]:
    """The withdrawals for a record that cannot be read, without a limit; none if it names nobody.

    >>> from schemas.wire.codecs import json_codec
    >>> def whom(key, value):
    ...     return [change.user_id for change in unreadable_consent(json_codec(), key, value, 1_700_000_000_000)]
    >>> whom(b"ada", b'{"user_id":"ada","level":"some"}'), whom(b"bob", b'{"user_id":"ada","lev'), whom(None, b"{")
    (['ada'], ['bob', 'ada'], [])
    """
    named = _named(codec, value or b"")
    in_key = [user_id for user_id in named_in_key(key or b"") if is_user_id(user_id)]
    if named is None:
        users = in_key
    elif (
        named.whole and named.user_id in in_key
    ):  # keys in the form written by serialisers, which may also be read as another id
        users = list(named.users)
    elif named.whole or named.by_name or not in_key:
        users = [*in_key, *named.users]
    else:
        users = in_key
    erased = named.user_id if named is not None and named.whole and named.erase else None
    return [
        ConsentChange(user_id, "none", append_ts, method=UNREADABLE, erase=user_id == erased)
        for user_id in dict.fromkeys(users)
        if is_user_id(user_id)
    ]


def _named(codec: Codec, value: bytes) -> Named | None:
    try:
        return codec.named(value)
    except FreshetError:
        raise
    except Exception:  # an unexpected error: the value names nobody, but the key may
        return None


def is_user_id(text: str) -> bool:
    """Whether `text` is valid as a user id."""
    return 0 < len(text) <= USER_ID_LENGTH_MAX and is_id(text)


def _under_a_foreign_key(change: ConsentChange, append_ts: int) -> ConsentChange:
    if change.erase or change.level == "none":
        return msgspec.structs.replace(change, method=FOREIGN_KEY)
    return ConsentChange(change.user_id, "none", append_ts, method=FOREIGN_KEY)


def _absent(user_id: str, key: bytes, append_ts: int) -> UserDecision:
    """A record without a value. It revokes the consent under its key, so only that of the user with that id."""
    if user_id.encode() == key:
        return UserDecision(ConsentChange(user_id, "none", append_ts), absent=True)
    return UserDecision(ConsentChange(user_id, "none", append_ts, method=FOREIGN_KEY))


def _users_of(key: bytes) -> list[str]:
    """The user ids in a key, limited in length like one in a value, because they are kept in memory."""
    texts = named_in_key(key)
    users = [text for text in texts if is_user_id(text)]
    if users:
        return users
    if not texts:
        raise BadRecord(RejectReason.BAD_ENCODING)
    too_long = any(len(text) > USER_ID_LENGTH_MAX for text in texts)
    raise BadRecord(RejectReason.OUT_OF_RANGE if too_long else RejectReason.CONTROL_CHARACTER)
