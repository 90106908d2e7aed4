"""The key that signs the heads of the audit trail: Ed25519, RFC 8032. Not in the key ring, which frontends hold.

A key file holds 64 hexadecimal digits, the seed, and is readable by its owner only.
"""

import hashlib
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schemas.errors import SettingsError

SEED_BYTES: Final = 32


class SigningKey:
    """A signing key. Never printed, never pickled."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._key.public_key().public_bytes_raw()
        self.id = key_id(self.public)

    def sign(self, message: bytes) -> bytes:
        """The signature of `message`, 64 bytes."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"SigningKey({self.id})"

    def __reduce__(self) -> str:
        raise TypeError("a signing key is not pickled")


def key_id(public: bytes) -> str:
    """The id of a public key of 32 bytes: the first 16 digits of its SHA-256."""
    return hashlib.sha256(public).hexdigest()[:16]


def decode_signing_key(raw: bytes, source: str) -> SigningKey:
    """The key in the text `raw`, read from `source`; raises :class:`SettingsError`, which never contains the text."""
    try:
        seed = bytes.fromhex(raw.decode().strip())
    except ValueError:
        seed = b""
    if len(seed) != SEED_BYTES:
        raise SettingsError(f"{source} is not 64 hexadecimal digits")
    return SigningKey(seed)
