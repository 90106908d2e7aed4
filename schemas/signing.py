"""The key that signs the heads of the audit trail: Ed25519, RFC 8032. Not in the key ring, which frontends hold.

A key file holds 64 hexadecimal digits, the seed, and is readable by its owner only.
"""

import hashlib
import secrets
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schemas.errors import SettingsError
from schemas.secret_files import read_secret, write_secret

SIGNING_KEY_VARIABLE: Final = "FRESHET_SIGNING_KEY"
_SEED_BYTES: Final = 32


class SigningKey:
    """A key that signs. Never printed, never pickled."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._key.public_key().public_bytes_raw()
        self.id = key_id(self.public)

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"SigningKey({self.id})"

    def __reduce__(self) -> str:
        raise TypeError("a signing key is not pickled")


def key_id(public: bytes) -> str:
    """How a public key of 32 bytes is called: the first 16 digits of its SHA-256."""
    return hashlib.sha256(public).hexdigest()[:16]


def write_signing_key(path: Path) -> None:
    """Write a fresh key to a new file; an existing file is never overwritten."""
    write_secret(path, f"{secrets.token_hex(_SEED_BYTES)}\n".encode())


def load_signing_key(path: str | None) -> SigningKey:
    """The key in the file `path`, or in the variable FRESHET_SIGNING_KEY where `path` is None.

    Raises :class:`SettingsError`, which never shows any of what was read.
    """
    missing = (
        "no signing key for the audit trail: make one with `freshet keys new-signing-key FILE` and set "
        f"audit.signing_key to the file, or {SIGNING_KEY_VARIABLE} to its text"
    )
    source, raw = read_secret("signing key", path, SIGNING_KEY_VARIABLE, missing)
    try:
        seed = bytes.fromhex(raw.decode().strip())
    except ValueError:
        seed = b""
    if len(seed) != _SEED_BYTES:
        raise SettingsError(f"{source} is not 64 hexadecimal digits")
    return SigningKey(seed)
