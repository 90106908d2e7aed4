"""Counts the users of a bucket per key id (`kid`), incrementally, so that nothing has to read all users."""

from collections import Counter
from collections.abc import Iterable
from typing import Final

import msgspec

from schemas.pseudonyms import kid_of

_decoder: Final = msgspec.msgpack.Decoder(dict[str, int])
_HEAD: Final = b"\x01"


def count_kids(pseudonyms: Iterable[str]) -> Counter[str]:
    """Count users by key id."""
    return Counter(kid_of(pseudonym) for pseudonym in pseudonyms)


def changed_kids(kids: Counter[str], entered: Iterable[str], gone: Iterable[str]) -> Counter[str]:
    """`kids` after users have `entered` or are `gone`, without key ids that have no users."""
    changed = Counter(kids)
    changed.update(count_kids(entered))
    changed.subtract(count_kids(gone))
    return Counter({kid: users for kid, users in changed.items() if users})


def encode_kids(kids: Counter[str]) -> bytes:
    """Encode `kids` for `kids-v1`: a version byte, then MessagePack."""
    return _HEAD + msgspec.msgpack.encode(dict(sorted(kids.items())))


def decode_kids(raw: bytes | None) -> Counter[str] | None:
    """Decode counts; None if there are none yet, or for an unknown version: count again."""
    if raw is None or raw[:1] != _HEAD:
        return None
    return Counter(_decoder.decode(raw[1:]))
