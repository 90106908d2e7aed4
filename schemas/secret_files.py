"""Files and environment variables that hold secrets: written for their owner only, and never shown in errors."""

import os
from pathlib import Path

from schemas.edited_files import read_edited
from schemas.errors import SettingsError


def write_secret(path: Path, content: bytes) -> None:
    """Write `content` to a new file that only its owner can read; an existing file is never overwritten.

    The folder must be there: made silently for a typo, it would hold a secret that nobody looks for.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def read_secret(what: str, path: str | None, variable: str, missing: str) -> tuple[str, bytes]:
    """Where a secret came from, in words, and its bytes: the file `path`, or the variable where `path` is None.

    Raises :class:`SettingsError`, with `missing` where there is neither.
    """
    source = f"{what} {path}" if path else f"environment variable {variable}"
    try:
        return source, read_edited(Path(path)) if path else os.environ[variable].encode()
    except KeyError:
        raise SettingsError(missing) from None
    except OSError as error:
        raise SettingsError(f"{source} cannot be read: {error.strerror}") from None


def secret(variable: str | None) -> str | None:
    """The secret in the environment variable that a setting names; None where none is named."""
    if variable is None:
        return None
    try:
        return os.environ[variable]
    except KeyError:
        raise SettingsError(f"the environment variable {variable}, named by a setting, is not set") from None
