"""What a record of `consents` says: one rule for the job, its commands and exports.

Somebody decided something, so where it cannot be told what, it counts as a withdrawal of whoever is named:

- A record that cannot be read names the user that its value gives whole; else the one of its key; else the one that the
  readable part of its value gives.
- A record under a key that is not its user's id grants nothing. It stands in another partition than the user's other
  records, so nothing orders it among them, and compaction drops it with the next record of that key: a withdrawal
  might be forgotten, and a grant outlive it.
- A record without a value takes the consent of its key away.
"""

from typing import Final, NamedTuple

import msgspec

from schemas.codecs import BadRecord, Codec, Named
from schemas.consents import ConsentChange
from schemas.errors import FreshetError
from schemas.events import USER_ID_LENGTH_MAX
from schemas.ids import is_id
from schemas.rejects import RejectReason

UNREADABLE: Final = "unreadable_record"
FOREIGN_KEY: Final = "foreign_key"
"""How a consent change came (`method`), in the audit trail."""


class Said(NamedTuple):
    """What a record says. `absent`: it has no value. `error`: why it could not be read, where that was unforeseen."""

    change: ConsentChange
    unknown_fields: bool = False
    absent: bool = False
    error: Exception | None = None


def said_in(codec: Codec, key: bytes | None, value: bytes | None, append_ts: int) -> Said:
    """What a record that was appended at `append_ts` (ms) says; :class:`BadRecord` where it names nobody."""
    if value is None and key:
        return Said(ConsentChange(_user_of(key), "none", append_ts), absent=True)
    try:
        change, unknown_fields = codec.consent(value)  # type: ignore[arg-type]
    except FreshetError:  # a schema that could not be asked for: the record may be good
        raise
    except Exception as error:  # a BadRecord, or what a codec did not foresee
        change_instead = unreadable_consent(codec, key, value, append_ts)
        if change_instead is None:
            raise
        return Said(change_instead, error=None if isinstance(error, BadRecord) else error)
    if key is None or key == change.user_id.encode():
        return Said(change, unknown_fields)
    return Said(_under_a_foreign_key(change, append_ts), unknown_fields)


def unreadable_consent(codec: Codec, key: bytes | None, value: bytes | None, append_ts: int) -> ConsentChange | None:
    """The withdrawal that a record counts as which cannot be read, or None where it names nobody.

    >>> from schemas.codecs import json_codec
    >>> unreadable_consent(json_codec(), b"ada", b'{"user_id":"ada","level":"some"}', 1_700_000_000_000).level
    'none'
    >>> unreadable_consent(json_codec(), None, b"nonsense", 1_700_000_000_000) is None
    True
    """
    named = _named(codec, value or b"")
    if named is not None and named.whole and is_user_id(named.user_id):
        return ConsentChange(named.user_id, "none", append_ts, method=UNREADABLE, erase=named.erase)
    try:
        of_key = (key or b"").decode()
    except UnicodeDecodeError:
        of_key = ""
    for user_id in (of_key, named.user_id if named is not None else ""):
        if is_user_id(user_id):
            return ConsentChange(user_id, "none", append_ts, method=UNREADABLE)
    return None


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


def _user_of(key: bytes) -> str:
    """The user id in a key, bounded as one in a value is: it is held in memory."""
    try:
        user_id = key.decode()
    except UnicodeDecodeError:
        raise BadRecord(RejectReason.BAD_ENCODING) from None
    if len(user_id) > USER_ID_LENGTH_MAX:
        raise BadRecord(RejectReason.OUT_OF_RANGE)
    if not is_id(user_id):
        raise BadRecord(RejectReason.CONTROL_CHARACTER)
    return user_id
