"""Pseudonyms and the key ring they are made with.

A pseudonym is ``p<kid>.`` + base64url, without padding, of the first 16 bytes of
HMAC-SHA-256(key["user", kid], user id in UTF-8); HMAC is RFC 2104, base64url RFC 4648 section 5.
Sessions, events and requests are hashed the same way under keys of their own, so nothing joins across domains.
The bucket of a user comes from a routing key that never rotates: a new pseudonym stays in its bucket.

A key ring is a JSON file::

    {"current": 1, "routing": "<64 hex digits>",
     "keys": {"user": {"1": "<64 hex digits>"}, "session": {…}, "event": {…}, "request": {…}}}
"""

import hashlib
import os
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import msgspec

from schemas.errors import SettingsError

Domain = Literal["user", "session", "event", "request"]
DOMAINS: Final[tuple[Domain, ...]] = ("user", "session", "event", "request")
KEY_BYTES: Final = 32
EVENT_HASH_BYTES: Final = 8
"""64 bits tell the events of one user's dedupe window apart; a longer hash would only cost state."""

KEY_RING_VARIABLE: Final = "FRESHET_KEY_RING"
_BLOCK_BYTES: Final = 64


class KeyRing(msgspec.Struct, frozen=True):
    """The keys of one tenant. Never printed: its repr shows the key ids only."""

    current: int
    routing: str
    keys: dict[Domain, dict[str, str]]

    def __repr__(self) -> str:
        return f"KeyRing(current={self.current}, kids={sorted(self.keys.get('user', {}))})"


def new_key_ring() -> KeyRing:
    """A key ring with fresh random keys and one key id, 1."""
    keys: dict[Domain, dict[str, str]] = {domain: {"1": secrets.token_hex(KEY_BYTES)} for domain in DOMAINS}
    return KeyRing(current=1, routing=secrets.token_hex(KEY_BYTES), keys=keys)


def write_key_ring(ring: KeyRing, path: Path) -> None:
    """Write `ring` to a new file that only its owner can read; an existing file is never overwritten."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(ring)))


def load_key_ring(path: str | None) -> KeyRing:
    """The key ring in the file `path`, or in the variable FRESHET_KEY_RING where `path` is None.

    Raises :class:`SettingsError`, which never shows any of what was read.
    """
    source = f"key ring {path}" if path else f"environment variable {KEY_RING_VARIABLE}"
    try:
        raw = Path(path).read_bytes() if path else os.environ[KEY_RING_VARIABLE].encode()
        ring = msgspec.json.decode(raw, type=KeyRing)
        _check(ring)
    except KeyError:
        raise SettingsError(
            f"no key ring: set privacy.key_ring to a file, or {KEY_RING_VARIABLE} to its text"
        ) from None
    except OSError as error:
        raise SettingsError(f"{source} cannot be read: {error.strerror}") from None
    except ValueError:
        raise SettingsError(f"{source} is not a key ring: see schemas/pseudonyms.py for its form") from None
    return ring


def _check(ring: KeyRing) -> None:
    current = [ring.keys.get(domain, {}).get(str(ring.current), "") for domain in DOMAINS]
    if any(len(bytes.fromhex(text)) != KEY_BYTES for text in (ring.routing, *current)):
        raise ValueError


def keyed_hash(key: bytes) -> Callable[[bytes], bytes]:
    """HMAC-SHA-256 under `key` as a function of the message.

    The two key blocks of RFC 2104 are hashed once and copied: a third of the cost of `hmac.digest`.

    >>> import hmac
    >>> keyed_hash(b"k" * 32)(b"message") == hmac.digest(b"k" * 32, b"message", "sha256")
    True
    """
    block = key.ljust(_BLOCK_BYTES, b"\0")
    inner_start = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
    outer_start = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def digest(message: bytes) -> bytes:
        inner = inner_start.copy()
        inner.update(message)
        outer = outer_start.copy()
        outer.update(inner.digest())
        return outer.digest()

    return digest


class Pseudonymiser:
    """Turns raw ids into keyed hashes. Holds keys: never pickle it, never log it."""

    def __init__(self, ring: KeyRing) -> None:
        kid = str(ring.current)
        hashes = {domain: keyed_hash(bytes.fromhex(ring.keys[domain][kid])) for domain in DOMAINS}
        self._prefix = f"p{kid}."
        self._user, self._session = hashes["user"], hashes["session"]
        self._event, self._request = hashes["event"], hashes["request"]
        self._route = keyed_hash(bytes.fromhex(ring.routing))

    def user(self, user_id: str) -> str:
        """The pseudonym of `user_id` under the current key: 25 characters or so, ``p1.Zk…``."""
        return self._prefix + urlsafe_b64encode(self._user(user_id.encode())[:16])[:22].decode()

    def session(self, session_id: str) -> bytes:
        """8 bytes that stand for `session_id`."""
        return self._session(session_id.encode())[:EVENT_HASH_BYTES]

    def event(self, event_id: str) -> bytes:
        """8 bytes that stand for `event_id`."""
        return self._event(event_id.encode())[:EVENT_HASH_BYTES]

    def request(self, request_id: str) -> bytes:
        """8 bytes that stand for `request_id`."""
        return self._request(request_id.encode())[:EVENT_HASH_BYTES]

    def route(self, user_id: str) -> int:
        """A 32-bit number that stays the same for every key id; `route % buckets` is the user's bucket."""
        return int.from_bytes(self._route(user_id.encode())[:4], "big")
