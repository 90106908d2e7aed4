"""Reads every secret, from files and environment variables; writes files for their owner only.

Errors never show secrets.
"""

import contextlib
import os
from pathlib import Path

from adapters.files.edited_files import read_edited
from schemas.errors import SettingsError


def write_secret(path: Path, content: bytes) -> None:
    """Write `content` to a new file that only its owner can read; an existing file is never overwritten.

    The folder must exist: if a misspelt one were created, nobody would look for the secret in it.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def replace_secret(path: Path, content: bytes) -> None:
    """Replace the file `path` by one with `content`, atomically: readers see the old file or the new one.

    If `path` is a symbolic link, the file that it names is replaced, which others may read under its own name.
    """
    if path.is_symlink():
        path = _target(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    write_secret(draft, content)
    draft.replace(path)


def _target(link: Path) -> Path:
    """What `link` names, which need not exist; raises :class:`OSError` for a loop of links."""
    with contextlib.suppress(FileNotFoundError):
        link.stat()
    return Path(os.path.realpath(link))


def read_secret(what: str, path: str | None, variable: str, missing: str) -> tuple[str, bytes]:
    """The source of a secret, as text, and its bytes: the file `path`, or the variable if `path` is None.

    Raises :class:`SettingsError`, with `missing` if there is neither.
    """
    if path:
        return f"{what} {path}", read_secret_file(what, path)
    if variable not in os.environ:
        raise SettingsError(missing)
    return f"environment variable {variable}", os.environ[variable].encode()


def read_secret_file(what: str, path: str) -> bytes:
    """The contents of the file `path`; raises :class:`SettingsError`, in which the file is called `what`."""
    try:
        return read_edited(Path(path))
    except OSError as error:
        raise SettingsError(f"{what} {path} cannot be read: {error.strerror}") from None


def read_optional_variable(variable: str) -> str:
    """The secret in an optional environment variable; empty if it is not set."""
    return os.environ.get(variable, "")


def read_secret_variable(variable: str | None) -> str | None:
    """The secret in the environment variable named by a setting; None if none is named."""
    if variable is None:
        return None
    try:
        return os.environ[variable]
    except KeyError:
        raise SettingsError(f"the environment variable {variable}, named by a setting, is not set") from None
