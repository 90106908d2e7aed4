"""Which release runs: a digest of the sources, made where the job is submitted and where it runs, and compared.

In thread mode a TaskManager has one interpreter for all of its jobs, and an interpreter imports a module once: a new
release on old TaskManagers would run the old code without a word, on state and records that it does not know.
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
    """16 hexadecimal digits of SHA-256 over the names and the bytes of all sources, as they lie there now."""
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
"""Of what this interpreter has imported: this module is imported with the others, and once."""


def opened(release: str, open_part: Callable[[], T]) -> T:
    """What `open_part()` makes, in a worker; raises :class:`SettingsError` where it would be by another `release`."""
    if release != RELEASE:
        raise SettingsError(
            f"this TaskManager's interpreter has imported release {RELEASE}, and release {release} was submitted: "
            "replace the TaskManagers, with no other release on their PYTHONPATH, and the job continues by itself"
        )
    return open_part()
