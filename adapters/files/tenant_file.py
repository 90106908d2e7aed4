"""Reads a tenant's file: the settings that its job, gateways and producers must share."""

from pathlib import Path
from typing import Final

import msgspec

from adapters.files.edited_files import read_edited
from schemas.decoding import described
from schemas.errors import SettingsError
from schemas.wire.tenant_settings import TenantSettings

EXAMPLE: Final = "deploy/tenant.toml"


def load_tenant(path: Path | str) -> TenantSettings:
    """The settings in the TOML file `path`; raises :class:`SettingsError`, which names the setting.

    A relative `key_ring` is resolved against the folder of the file, because its readers have different working
    directories.
    """
    path = Path(path).absolute()
    try:
        tenant = msgspec.toml.decode(read_edited(path), type=TenantSettings)
    except OSError as error:
        raise SettingsError(f"tenant file {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"tenant file {path}: {described(error, EXAMPLE)}") from None
    if complaint := tenant.complaint():
        raise SettingsError(f"tenant file {path}: {complaint}")
    ring = None if tenant.key_ring is None else str(path.parent / tenant.key_ring)
    return msgspec.structs.replace(tenant, key_ring=ring)
