"""Creates, rotates, writes and reads key rings (:class:`schemas.pseudonyms.KeyRing`), from files or the environment."""

import secrets
from pathlib import Path
from typing import Final

import msgspec

from adapters.secrets.secret_files import read_secret, replace_secret, write_secret
from schemas.errors import SettingsError
from schemas.pseudonyms import DOMAINS, KEY_BYTES, Domain, KeyRing, decode_key_ring, encode_key_ring

KEY_RING_VARIABLE: Final = "FRESHET_KEY_RING"


def new_key_ring() -> KeyRing:
    """A key ring with fresh random keys and one key id, 1."""
    keys: dict[Domain, dict[str, str]] = {domain: {"1": secrets.token_hex(KEY_BYTES)} for domain in DOMAINS}
    return KeyRing(current=1, routing=secrets.token_hex(KEY_BYTES), keys=keys)


def begin_rotation(ring: KeyRing, now_ms: int) -> KeyRing:
    """`ring` with a new key for users under a new key id; the previous key is kept until the rotation ends."""
    if ring.previous is not None:
        raise SettingsError(f"a rotation from key {ring.previous} to key {ring.current} is under way: end it first")
    kid = 1 + max(int(known) for known in ring.keys["user"])
    keys = {name: {**kids, str(kid): kids[str(ring.current)]} for name, kids in ring.keys.items()}
    keys["user"][str(kid)] = secrets.token_hex(KEY_BYTES)
    changed = {"keys": keys, "current": kid, "previous": ring.current, "rotating_since": now_ms, "relinked_at": 0}
    return msgspec.structs.replace(ring, **changed)


def end_rotation(ring: KeyRing) -> KeyRing:
    """`ring` without the previous key: what was made with it can no longer be linked to anybody."""
    gone = str(ring.previous)
    keys = {name: {kid: key for kid, key in kids.items() if kid != gone} for name, kids in ring.keys.items()}
    return msgspec.structs.replace(ring, keys=keys, previous=None, rotating_since=0, relinked_at=0)


def write_key_ring(ring: KeyRing, path: Path) -> None:
    """Write `ring` to a new file that only its owner can read; an existing file is never overwritten."""
    write_secret(path, encode_key_ring(ring))


def replace_key_ring(ring: KeyRing, path: Path) -> None:
    """Replace the file `path` atomically: readers see the old ring or the new one."""
    replace_secret(path, encode_key_ring(ring))


def load_key_ring(path: str | None) -> KeyRing:
    """The key ring in the file `path`, or in the variable FRESHET_KEY_RING if `path` is None.

    Raises :class:`SettingsError`, which never contains any of the text.
    """
    missing = (
        "no key ring: make one with `freshet keys new-key-ring FILE` and set key_ring in the tenant file (without one, "
        f"privacy.key_ring) to the file, or {KEY_RING_VARIABLE} to its text"
    )
    source, raw = read_secret("key ring", path, KEY_RING_VARIABLE, missing)
    return decode_key_ring(raw, source)
