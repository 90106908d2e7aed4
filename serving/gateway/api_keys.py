"""The file of API keys: adds a key, and stores only its hash (`freshet gateway new-api-key`)."""

import time
from pathlib import Path
from typing import Any, Final

import msgspec

from adapters.secrets.secret_files import replace_secret
from schemas.errors import SettingsError
from serving.gateway.security import new_api_key, read_api_keys

DAY_S: Final = 86_400


def add_api_key(path: Path, id: str, roles: tuple[Any, ...], tenant: str, days: float | None) -> str:
    """Add a key to the file, creating the file if needed. Returns the key, which is stored nowhere."""
    known = list(read_api_keys(str(path)).values()) if path.exists() else []
    if any(one.id == id for one in known):
        raise SettingsError(f"{path} already has an API key with this id: choose another id, or remove that key")
    key, entry = new_api_key(id, roles, tenant, None if days is None else time.time() + days * DAY_S)
    replace_secret(path, msgspec.json.format(msgspec.json.encode([*known, entry])) + b"\n")
    return key
