"""Every secret is read here: files and environment variables, written for their owner only, never shown in errors."""

import os
from pathlib import Path

from adapters.files.edited_files import read_edited
from schemas.errors import SettingsError


def write_secret(path: Path, content: bytes) -> None:
    """Write `content` to a new file that only its owner can read; an existing file is never overwritten.

    The folder must be there: made silently for a typo, it would hold a secret that nobody looks for.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def replace_secret(path: Path, content: bytes) -> None:
    """Put a file of `content` in the place of `path` at once: a reader sees the old file or the new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    write_secret(draft, content)
    draft.replace(path)


def read_secret(what: str, path: str | None, variable: str, missing: str) -> tuple[str, bytes]:
    """Where a secret came from, in words, and its bytes: the file `path`, or the variable where `path` is None.

    Raises :class:`SettingsError`, with `missing` where there is neither.
    """
    if path:
        return f"{what} {path}", read_secret_file(what, path)
    if variable not in os.environ:
        raise SettingsError(missing)
    return f"environment variable {variable}", os.environ[variable].encode()


def read_secret_file(what: str, path: str) -> bytes:
    """What the file `path` holds; raises :class:`SettingsError`, which calls the file `what`."""
    try:
        return read_edited(Path(path))
    except OSError as error:
        raise SettingsError(f"{what} {path} cannot be read: {error.strerror}") from None


def read_optional_variable(variable: str) -> str:
    """The secret in an environment variable that need not be set; empty where it is not."""
    return os.environ.get(variable, "")


def read_secret_variable(variable: str | None) -> str | None:
    """The secret in the environment variable that a setting names; None where none is named."""
    if variable is None:
        return None
    try:
        return os.environ[variable]
    except KeyError:
        raise SettingsError(f"the environment variable {variable}, named by a setting, is not set") from None
