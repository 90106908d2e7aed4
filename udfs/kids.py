"""Counts the users of a bucket per key id, incrementally, so that nothing has to read all users."""

from collections import Counter
from collections.abc import Iterable
from typing import Final

import msgspec

from schemas.pseudonyms import kid_of

_decoder: Final = msgspec.msgpack.Decoder(dict[str, int])
_HEAD: Final = b"\x01"


def count_kids(pseudonyms: Iterable[str]) -> Counter[str]:
    """Users by key id, by reading all of them."""
    return Counter(kid_of(pseudonym) for pseudonym in pseudonyms)


def changed_kids(kids: Counter[str], entered: Iterable[str], gone: Iterable[str]) -> Counter[str]:
    """`kids` after users have `entered` and others are `gone`. No key id stands there with no users."""
    changed = Counter(kids)
    changed.update(count_kids(entered))
    changed.subtract(count_kids(gone))
    return Counter({kid: users for kid, users in changed.items() if users})


def encode_kids(kids: Counter[str]) -> bytes:
    """The bytes of `kids` for `kids-v1`: a version, then MessagePack."""
    return _HEAD + msgspec.msgpack.encode(dict(sorted(kids.items())))


def decode_kids(raw: bytes | None) -> Counter[str] | None:
    """The counts behind `raw`; None where nothing is counted yet, or by a version not known here: count anew."""
    if raw is None or raw[:1] != _HEAD:
        return None
    return Counter(_decoder.decode(raw[1:]))
