"""Interprets a record of `consents`: one rule for the job, its commands and exports.

Somebody decided something, so where it cannot be told what, it counts as a withdrawal of whoever is named:

- A record that cannot be read names the user that its value gives whole. Where its form is broken, it names the user
  of its key and those behind `user_id` in its JSON: nobody can say which of them is right, so all withdraw. Where it
  is Avro or Protobuf, the readable part of its value counts if the key names nobody: any bytes may begin like an id.
- JSON that has a field twice cannot be read: readers differ on which of the two counts. Protobuf says itself that the
  last one does.
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

UNREADABLE: Final = "unreadable_record"
FOREIGN_KEY: Final = "foreign_key"
"""How a consent change came (`method`), in the audit trail."""


class Said(NamedTuple):
    """What a record says of one user. `absent`: it has no value.

    `error`: why it could not be read, where that was unforeseen.
    """

    change: ConsentChange
    unknown_fields: bool = False
    absent: bool = False
    error: Exception | None = None


def consents_in(codec: Codec, key: bytes | None, value: bytes | None, append_ts: int) -> list[Said]:
    """What a record that was appended at `append_ts` (ms) says, of each user once, of at least one.

    More than one only withdraw. Raises :class:`BadRecord` where it names nobody.
    """
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
    """The withdrawals that a record counts as which cannot be read; none where it names nobody.

    >>> from schemas.wire.codecs import json_codec
    >>> def whom(key, value):
    ...     return [change.user_id for change in unreadable_consent(json_codec(), key, value, 1_700_000_000_000)]
    >>> whom(b"bob", b'{"user_id":"ada","level":"some"}'), whom(b"bob", b'{"user_id":"ada","lev'), whom(None, b"{")
    (['ada'], ['bob', 'ada'], [])
    """
    named = _named(codec, value or b"")
    in_value = [] if named is None else [user_id for user_id in named.users if is_user_id(user_id)]
    if named is not None and named.whole and in_value:
        return [ConsentChange(named.user_id, "none", append_ts, method=UNREADABLE, erase=named.erase)]
    users = [user_id for user_id in named_in_key(key or b"") if is_user_id(user_id)]
    if named is not None and (named.by_name or not users):
        users += in_value
    return [ConsentChange(user_id, "none", append_ts, method=UNREADABLE) for user_id in dict.fromkeys(users)]


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
