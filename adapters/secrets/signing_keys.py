"""Writes and reads signing keys of the audit trail (:mod:`schemas.signing`), from files or the environment."""

import secrets
from pathlib import Path
from typing import Final

from adapters.secrets.secret_files import read_secret, write_secret
from schemas.signing import SEED_BYTES, SigningKey, decode_signing_key

SIGNING_KEY_VARIABLE: Final = "FRESHET_SIGNING_KEY"


def write_signing_key(path: Path) -> None:
    """Write a new key to a new file; an existing file is never overwritten."""
    write_secret(path, f"{secrets.token_hex(SEED_BYTES)}\n".encode())


def load_signing_key(path: str | None) -> SigningKey:
    """The key in the file `path`, or in the variable FRESHET_SIGNING_KEY if `path` is None.

    Raises :class:`SettingsError`, which never contains any of the text.
    """
    missing = (
        "no signing key for the audit trail: make one with `freshet keys new-signing-key FILE` and set "
        f"audit.signing_key to the file, or {SIGNING_KEY_VARIABLE} to its text"
    )
    source, raw = read_secret("signing key", path, SIGNING_KEY_VARIABLE, missing)
    return decode_signing_key(raw, source)
