"""Pseudonyms, and the key ring with which they are made.

A pseudonym is ``p<kid>.`` + base64url, without padding, of the first 16 bytes of
HMAC-SHA-256(key["user", kid], user id in UTF-8); HMAC is RFC 2104, base64url RFC 4648 section 5.
Sessions, events and requests are hashed the same way with separate keys, so they cannot be joined across domains.
The bucket of a user comes from a routing key that never rotates: a new pseudonym stays in its bucket.

A key ring is a JSON file::

    {"current": 1, "routing": "<64 hex digits>",
     "keys": {"user": {"1": "<64 hex digits>"}, "session": {…}, "event": {…}, "request": {…}, "export": {…}}}

Only exports need the key for exports (:class:`ExportHashes`): an older ring without it still works for everything else.

During a rotation, it has two keys for users, and the time at which the rotation started (ms since the epoch)::

    {"current": 2, "previous": 1, "rotating_since": …, "relinked_at": 0, …}

Users who are known under their previous pseudonym are moved to the current one. Only the key for users is renewed:
with new keys for sessions and events, a duplicate across the rotation would count twice.
"""

import hashlib
import hmac
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable
from typing import Final, Literal

import msgspec

from schemas.errors import SettingsError
from schemas.recommendation_ids import RecommendationIds

Domain = Literal["user", "session", "event", "request", "export"]
JOURNEY_DOMAINS: Final[tuple[Domain, ...]] = ("user", "session", "event", "request")
DOMAINS: Final[tuple[Domain, ...]] = (*JOURNEY_DOMAINS, "export")
KEY_BYTES: Final = 32
EVENT_HASH_BYTES: Final = 8
"""64 bits distinguish the events of one user's dedupe window; a longer hash would only enlarge state."""
FINGERPRINT_BYTES: Final = 8
_FINGERPRINTED: Final = b"freshet deployment"

_BLOCK_BYTES: Final = 64
_SHOWN_LENGTH: Final = 22
"""The length of 16 bytes in base64, without the padding."""
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
_STANDARD: Final = bytes.maketrans(b"-_", b"+/")


class KeyRing(msgspec.Struct, frozen=True):
    """The keys of one tenant. Never printed: its repr contains only the key ids."""

    current: int
    routing: str
    keys: dict[Domain, dict[str, str]]
    previous: int | None = None
    rotating_since: int = 0
    relinked_at: int = 0

    def __repr__(self) -> str:
        return f"KeyRing(current={self.current}, kids={sorted(self.keys.get('user', {}))})"


def encode_key_ring(ring: KeyRing) -> bytes:
    """The text of a key ring's file: it contains every key."""
    return msgspec.json.format(msgspec.json.encode(ring))


def decode_key_ring(raw: bytes, source: str) -> KeyRing:
    """The key ring in the text `raw`, read from `source`. Raises :class:`SettingsError`, which omits the text."""
    try:
        ring = msgspec.json.decode(raw, type=KeyRing)
        _check(ring)
    except (KeyError, ValueError, RecursionError):
        raise SettingsError(f"{source} is not a key ring: see schemas/pseudonyms.py for its form") from None
    return ring


def _check(ring: KeyRing) -> None:
    domains = DOMAINS if "export" in ring.keys else JOURNEY_DOMAINS
    needed = [ring.keys.get(domain, {}).get(str(ring.current), "") for domain in domains]
    if ring.previous is not None:
        needed.append(ring.keys["user"].get(str(ring.previous), ""))
    if any(len(bytes.fromhex(text)) != KEY_BYTES for text in (ring.routing, *needed)):
        raise ValueError


def keyed_hash(key: bytes) -> Callable[[bytes], bytes]:
    """HMAC-SHA-256 with `key`, as a function of the message.

    The two key blocks of RFC 2104 are hashed once and copied: this takes a third of the time of `hmac.digest`.

    >>> import hmac
    >>> keyed_hash(b"k" * 32)(b"message") == hmac.digest(b"k" * 32, b"message", "sha256")
    True
    """
    block = key.ljust(_BLOCK_BYTES, b"\0")
    begin_inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block)).copy
    begin_outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block)).copy

    def digest(message: bytes) -> bytes:
        inner = begin_inner()
        inner.update(message)
        outer = begin_outer()
        outer.update(inner.digest())
        return outer.digest()

    return digest


class Pseudonymiser:
    """Turns raw ids into keyed hashes. It contains keys: never pickle it, never log it."""

    def __init__(self, ring: KeyRing) -> None:
        kid = str(ring.current)
        hashes = {domain: keyed_hash(bytes.fromhex(ring.keys[domain][kid])) for domain in JOURNEY_DOMAINS}
        self._prefix = f"p{kid}."
        self._previous_prefix = f"p{ring.previous}."
        self._previous = None if ring.previous is None else _user_hash(ring, ring.previous)
        self._user, self._session = hashes["user"], hashes["session"]
        self._event, self._request = hashes["event"], hashes["request"]
        self._route = keyed_hash(bytes.fromhex(ring.routing))
        self.recommendations = recommendation_ids(ring)

    def user(self, user_id: str) -> str:
        """The pseudonym of `user_id` under the current key: 25 characters or so, ``p1.Zk…``."""
        return self._prefix + _shown(self._user(user_id.encode()))

    def previous(self, user_id: str) -> str | None:
        """The pseudonym of `user_id` under the previous key, or None if no rotation is in progress."""
        return None if self._previous is None else self._previous_prefix + _shown(self._previous(user_id.encode()))

    def all(self, user_id: str) -> list[str]:
        """All pseudonyms under which `user_id` may be known, the current one first."""
        previous = self.previous(user_id)
        return [self.user(user_id)] if previous is None else [self.user(user_id), previous]

    def session(self, session_id: str) -> bytes:
        """The keyed hash of `session_id`, 8 bytes."""
        return self._session(session_id.encode())[:EVENT_HASH_BYTES]

    def event(self, event_id: str) -> bytes:
        """The keyed hash of `event_id`, 8 bytes."""
        return self._event(event_id.encode())[:EVENT_HASH_BYTES]

    def request(self, request_id: str) -> bytes:
        """The keyed hash of `request_id`, 8 bytes."""
        return self._request(request_id.encode())[:EVENT_HASH_BYTES]

    def route(self, user_id: str) -> int:
        """A 32-bit number that is the same for every key id; `route % buckets` is the user's bucket."""
        return int.from_bytes(self._route(user_id.encode())[:4], "big")


class ExportHashes:
    """Names in exports for `purpose`, made with a separate key. It contains a key: never pickle or log it.

    A user's name is made from the raw id, so that a rotation changes no name and an erasure finds it in older exports.
    The purpose is part of the hashed text, so exports for different purposes cannot be joined. Raises
    :class:`SettingsError` if the ring has no key for exports.
    """

    def __init__(self, ring: KeyRing, purpose: str) -> None:
        kid = str(ring.current)
        key = ring.keys.get("export", {}).get(kid)
        if key is None:
            raise SettingsError(
                f'the key ring has no key for exports: add "export": {{"{kid}": "<64 hex digits>"}} to its "keys"; '
                "`python -c 'import secrets; print(secrets.token_hex(32))'` prints such digits"
            )
        self._hash = keyed_hash(bytes.fromhex(key))
        self.purpose = purpose

    def user(self, user_id: str) -> str:
        """The name of a user, ``x.Zk…``: 24 characters."""
        return "x." + _shown(self._digest(b"user", user_id))

    def again(self, domain: Literal["session", "request"], keyed: str) -> str:
        """The name in exports for a hash of the event stream: 16 hexadecimal digits."""
        return self._digest(domain.encode(), keyed)[:EVENT_HASH_BYTES].hex()

    def check(self) -> str:
        """Identifies this key (and purpose), and reveals nothing else."""
        return self._digest(b"check", "")[:EVENT_HASH_BYTES].hex()

    def _digest(self, domain: bytes, text: str) -> bytes:
        return self._hash(b"%b\0%b\0%b" % (self.purpose.encode(), domain, text.encode()))


def recommendation_ids(ring: KeyRing) -> RecommendationIds:
    """What makes and checks recommendation ids. A rotation does not change its key."""
    return RecommendationIds(bytes.fromhex(ring.keys["request"][str(ring.current)]))


def fingerprint(key: str) -> str:
    """16 hexadecimal digits that identify the key (hexadecimal), and reveal nothing else."""
    return hmac.digest(bytes.fromhex(key), _FINGERPRINTED, "sha256")[:FINGERPRINT_BYTES].hex()


def user_fingerprints(ring: KeyRing) -> dict[str, str]:
    """The fingerprints of the keys for users, by key id."""
    return {kid: fingerprint(key) for kid, key in ring.keys["user"].items()}


def kid_of(pseudonym: str) -> str:
    """The id of the key with which `pseudonym` was made.

    >>> kid_of("p12.Zk0")
    '12'
    """
    return pseudonym.partition(".")[0][1:]


def digest_of(pseudonym: str) -> bytes:
    """The 16 bytes of the hash that `pseudonym` shows.

    >>> digest_of("p1.AAECAwQFBgcICQoLDA0ODw").hex()
    '000102030405060708090a0b0c0d0e0f'
    """
    shown = pseudonym.partition(".")[2].encode()
    return a2b_base64(shown.translate(_STANDARD) + b"==")


def _user_hash(ring: KeyRing, kid: int) -> Callable[[bytes], bytes]:
    return keyed_hash(bytes.fromhex(ring.keys["user"][str(kid)]))


def _shown(digest: bytes) -> str:
    return b2a_base64(digest[:16], newline=False)[:_SHOWN_LENGTH].translate(_URL_SAFE).decode()
