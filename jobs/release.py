"""The release of the code, as a digest of the sources, compared between the submitting client and the workers.

In thread mode a TaskManager has one interpreter for all its jobs, and an interpreter imports a module once. Without
this check, a new release on old TaskManagers would silently run the old code, on state and records that it does not
know.
"""

import hashlib
from collections.abc import Callable, Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final, TypeVar

from schemas.errors import SettingsError

T = TypeVar("T")
PACKAGES: Final = ("adapters", "schemas", "models", "udfs", "jobs")
SUFFIXES: Final = (".py", ".java", ".lua")


def digest(packages: tuple[str, ...] = PACKAGES, suffixes: tuple[str, ...] = SUFFIXES) -> str:
    """16 hexadecimal digits of SHA-256 over the names and the bytes of all sources on disk."""
    found = hashlib.sha256()
    for package in packages:
        for name, source in sorted(_sources(package, files(package), suffixes)):
            found.update(f"{name}\n{len(source)}\n".encode())
            found.update(source)
    return found.hexdigest()[:16]


def _sources(name: str, folder: Traversable, suffixes: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        path = f"{name}/{entry.name}"
        if entry.is_dir():
            yield from _sources(path, entry, suffixes)
        elif path.endswith(suffixes):
            yield path, entry.read_bytes()


RELEASE: Final = digest()
"""The release that this interpreter has imported: computed once, when this module is imported with the others."""


def open_checked(release: str, open_part: Callable[[], T]) -> T:
    """Call `open_part()` in a worker; raises :class:`SettingsError` if the worker runs another release."""
    if release != RELEASE:
        raise SettingsError(
            f"this TaskManager's interpreter has imported release {RELEASE}, and release {release} was submitted: "
            "replace the TaskManagers, with no other release on their PYTHONPATH, and the job continues by itself"
        )
    return open_part()
