"""Interprets a record of `consents`: one rule for the job, its commands and exports.

Somebody decided something, so where it cannot be told what, it counts as a withdrawal of whoever is named:

- A record that cannot be read withdraws everybody whom it names: the user of its value, and that of its key, for key
  and value come from one program, and where they differ nobody can say which is right. Where the form of JSON is
  broken, those behind `user_id` in it count; where it is Avro or Protobuf, the readable part of its value counts only
  if the key names nobody: any bytes may begin like an id. It erases the user of its value alone.
- A record that readers may differ on cannot be read: JSON or Protobuf that has a field twice, Protobuf in which a
  known field has another wire type, and any with a field that is a known one but for case, spaces and signs.
- Of a record that names more than :data:`NAMED_MAX` users, only so many are withdrawn, and the record is reported.
- A record under a key that is not its user's id grants nothing. It is in another partition than the user's other
  records, so nothing orders it among them, and compaction drops it with the next record of that key: a withdrawal
  might be forgotten, and a grant outlive it. Where the key is that of another user, it withdraws that one, too: it may
  be their decision, and compaction drops their own records for it.
- A record without a value takes the consent of its key away. A key as serialisers write one (:func:`named_in_key`) may
  be that of two users: the one whose id it is, and the one whose id it holds.
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
"""How many users one record can withdraw: each of them becomes a record of its own."""
UNREADABLE: Final = "unreadable_record"
FOREIGN_KEY: Final = "foreign_key"
"""How a consent change came (`method`), in the audit trail."""


class Said(NamedTuple):
    """What a record says of one user. `absent`: it has no value.

    `error`: why it could not be read, where that was unforeseen. `more`: the record names more users than
    :data:`NAMED_MAX`, and of the rest nothing is said.
    """

    change: ConsentChange
    unknown_fields: bool = False
    absent: bool = False
    error: Exception | None = None
    more: bool = False


def consents_in(codec: Codec, key: bytes | None, value: bytes | None, append_ts: int) -> list[Said]:
    """What a record that was appended at `append_ts` (ms) says, of each user once, of at least one.

    More than one only withdraw, the user of the key first. Raises :class:`BadRecord` where it names nobody.
    """
    said = _all_said(codec, key, value, append_ts)
    return said if len(said) <= NAMED_MAX else [one._replace(more=True) for one in said[:NAMED_MAX]]


def _all_said(codec: Codec, key: bytes | None, value: bytes | None, append_ts: int) -> list[Said]:
    if value is None and key:
        return [_absent(user_id, key, append_ts) for user_id in _users_of(key)]
    try:
        change, unknown_fields = codec.consent(value)  # type: ignore[arg-type]
    except FreshetError:  # a schema that could not be asked for: the record may be good
        raise
    except Exception as error:  # a BadRecord, or what a codec did not foresee
        withdrawals = unreadable_consent(codec, key, value, append_ts)
        if not withdrawals:
            raise
        unforeseen = None if isinstance(error, BadRecord) else error
        return [Said(change, error=unforeseen) for change in withdrawals]
    if key is None or key == change.user_id.encode():
        return [Said(change, unknown_fields)]
    users = named_in_key(key)
    others = [] if change.user_id in users else [user_id for user_id in users if is_user_id(user_id)]
    return [
        Said(_under_a_foreign_key(change, append_ts), unknown_fields),
        *(Said(ConsentChange(user_id, "none", append_ts, method=FOREIGN_KEY)) for user_id in others),
    ]


def unreadable_consent(codec: Codec, key: bytes | None, value: bytes | None, append_ts: int) -> list[ConsentChange]:
    """The withdrawals that a record counts as which cannot be read, however many; none where it names nobody.

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
    elif named.whole and named.user_id in in_key:  # as serializers write keys, which may be read as another id, too
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
    except Exception:  # what no codec foresaw names nobody; the key may
        return None


def is_user_id(text: str) -> bool:
    """Whether `text` may be a user's id."""
    return 0 < len(text) <= USER_ID_LENGTH_MAX and is_id(text)


def _under_a_foreign_key(change: ConsentChange, append_ts: int) -> ConsentChange:
    if change.erase or change.level == "none":
        return msgspec.structs.replace(change, method=FOREIGN_KEY)
    return ConsentChange(change.user_id, "none", append_ts, method=FOREIGN_KEY)


def _absent(user_id: str, key: bytes, append_ts: int) -> Said:
    """A record without a value. It takes away what stands under its key, so only of the user whose id that is."""
    if user_id.encode() == key:
        return Said(ConsentChange(user_id, "none", append_ts), absent=True)
    return Said(ConsentChange(user_id, "none", append_ts, method=FOREIGN_KEY))


def _users_of(key: bytes) -> list[str]:
    """The user ids in a key, bounded as one in a value is: they are held in memory."""
    texts = named_in_key(key)
    users = [text for text in texts if is_user_id(text)]
    if users:
        return users
    if not texts:
        raise BadRecord(RejectReason.BAD_ENCODING)
    too_long = any(len(text) > USER_ID_LENGTH_MAX for text in texts)
    raise BadRecord(RejectReason.OUT_OF_RANGE if too_long else RejectReason.CONTROL_CHARACTER)
