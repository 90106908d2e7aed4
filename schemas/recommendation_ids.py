"""Recommendation ids: a list carries one, and frontends send it back as `request_id` of impressions and clicks.

``r1.<model>.<arm>.<20 characters>``, at most 63 characters. The last part is base64url of the list's version (4 bytes,
big-endian), when it was made (seconds, 4 bytes), and the first 7 bytes of keyed BLAKE2b (RFC 7693) over all of that and
the pseudonym of the list's user. So an id names what was served without a lookup, and only the job can make one that
counts, for this user alone. It says nothing of the user that the list does not. Ids of lists that are nobody's own are
made for the pseudonym "".
"""

import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any, Final, NamedTuple

MODEL_LENGTH_MAX: Final = 24
ARM_LENGTH_MAX: Final = 12
_SIGNED_BYTES: Final = 7
_LENGTH: Final = 20
_PERSON: Final = b"freshet list id1"
_FORM: Final = re.compile(r"(r1\.([\w-]{1,24})\.([\w-]{0,12})\.)([\w-]{20})", re.ASCII)
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]+")
_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")


class Served(NamedTuple):
    """What an id says of its list: model and arm as short names, and 8 bytes that identify it among its user's."""

    model: str
    arm: str
    list: bytes


class _IdHead(NamedTuple):
    """What ids of a model and an arm begin with, and a copy of its hash."""

    text: bytes
    signed: Callable[[], Any]


def short_name(name: str, length_max: int) -> str:
    """A name of a model or an arm as ids have it; of the online model without its sequence.

    Of a long name, the middle is left out: the end has the digits that tell versions apart.

    >>> short_name("online@1764489600000", 24), short_name("mine/1.2 beta", 24)
    ('online', 'mine-1-2-beta')
    >>> short_name("recommender-of-fashion/0123456789ab", 24)
    'recommender-0123456789ab'
    """
    short, kept = _NOT_IN_NAMES.sub("-", name.partition("@")[0]), length_max // 2 + 1
    return short if len(short) <= length_max else short[: length_max - kept] + short[-kept:]


def made_of(version: int, at_ms: int) -> bytes:
    """The 8 bytes that identify a list among its user's."""
    return (version & 0xFFFF_FFFF).to_bytes(4) + (at_ms // 1000 & 0xFFFF_FFFF).to_bytes(4)


def made_at_ms(made: bytes) -> int:
    """When a list was made, from the 8 bytes that identify it, in ms since the epoch, rounded down to seconds.

    >>> made_at_ms(made_of(7, 1_764_489_600_999))
    1764489600000
    """
    return int.from_bytes(made[4:]) * 1000


class RecommendationIds:
    """Makes and checks ids with `key`. It contains a key: never pickle it, never log it."""

    def __init__(self, key: bytes) -> None:
        self._begin = blake2b(digest_size=_SIGNED_BYTES, key=key, person=_PERSON).copy
        self._heads: dict[tuple[str, str], _IdHead] = {}

    def of(self, pseudonym: str, model: str, arm: str, version: int, at_ms: int) -> bytes:
        """The id of a list."""
        [made] = self.of_each([(pseudonym, model, version)], arm, at_ms)
        return made

    def of_each(self, lists: Iterable[tuple[str, str, int]], arm: str, at_ms: int) -> list[bytes]:
        """The ids of lists that are made at one moment in one arm, given as pseudonym, model and version.

        Writing lists is the most frequent operation: the hash of what their ids begin with is copied, not repeated, and
        base64 is applied once to all, whose bytes are a multiple of three each.
        """
        at, heads = (at_ms // 1000 & 0xFFFF_FFFF).to_bytes(4), self._heads
        begins: list[bytes] = []
        raw: list[bytes] = []
        for pseudonym, model, version in lists:
            head = heads.get((model, arm)) or self._head(model, arm)
            made = (version & 0xFFFF_FFFF).to_bytes(4) + at
            signed = head.signed()
            signed.update(made + pseudonym.encode())
            begins.append(head.text)
            raw += made, signed.digest()
        text = b2a_base64(b"".join(raw), newline=False).translate(_URL_SAFE)
        return [
            begin + text[first : first + _LENGTH]
            for begin, first in zip(begins, range(0, len(text), _LENGTH), strict=True)
        ]

    def read(self, text: str, pseudonyms: Iterable[str]) -> Served | None:
        """What an id says that was made for one of `pseudonyms`; None for any other text."""
        found = _FORM.fullmatch(text)
        if found is None:
            return None
        head, model, arm, rest = found.groups()
        raw = a2b_base64(rest.encode().translate(_STANDARD))
        made, signature = raw[:8], raw[8:]
        for pseudonym in pseudonyms:
            if self._signature(head.encode(), made, pseudonym) == signature:
                return Served(model, arm, made)
        return None

    def _head(self, model: str, arm: str) -> "_IdHead":
        text = f"r1.{short_name(model, MODEL_LENGTH_MAX) or '-'}.{short_name(arm, ARM_LENGTH_MAX)}.".encode()
        signed = self._begin()
        signed.update(text)
        if len(self._heads) >= _HEADS_MAX:
            self._heads.clear()
        head = self._heads[model, arm] = _IdHead(text, signed.copy)
        return head

    def _signature(self, head: bytes, made: bytes, pseudonym: str) -> bytes:
        signed = self._begin()
        signed.update(head + made + pseudonym.encode())
        return signed.digest()


_HEADS_MAX: Final = 64
