"""A worker's copies of model versions, by digest, so that a restart needs no registry. Bounded by their size.

All workers of a user on a machine share the folder. Opening a model may end its process, if the graph or the memory it
takes are at fault. A process holds a lock on a file while it opens one, and what is left of a process that ended
meanwhile counts against the version.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from adapters.files.model_registry import ModelRegistry
from schemas.errors import ModelError
from schemas.model_versions import Version

DEATHS_MAX: Final = 2
"""How many processes may end while they open a version, before it is refused."""
DEATH_COUNTS_S: Final = 3_600.0
USED_WITHIN_S: Final = 60.0
"""A copy that was used so recently may be being opened, and stays."""


class ModelCache:
    """Copies in `folder`, by default one of this user among the temporary files, of at most `bytes_max`."""

    def __init__(self, folder: Path | None, bytes_max: int) -> None:
        self._folder = folder or Path(tempfile.gettempdir()) / f"freshet-models-{os.getuid()}"
        self._bytes_max = bytes_max

    def copy_of(self, version: Version, registry: ModelRegistry) -> Path:
        """The folder with the copy of a version, fetched if there is none."""
        try:
            self._make_folder()
            place = self._folder / version.sha256 / version.name
            if not place.is_dir():
                self._fetch(version, registry, place)
            os.utime(place)
            self._make_room(place)
        except OSError as error:
            raise ModelError(f"the cache of models {self._folder} cannot be used: {error.strerror}") from None
        return place

    def drop(self, version: Version) -> None:
        """Delete a copy that turned out to be damaged."""
        shutil.rmtree(self._folder / version.sha256 / version.name, ignore_errors=True)

    @contextlib.contextmanager
    def opening(self, version: Version) -> Iterator[None]:
        """Around opening a version; raises :class:`ModelError` if processes ended doing so lately."""
        folder = self._folder / version.sha256
        if _deaths(folder) >= DEATHS_MAX:
            raise ModelError(
                f"{version.short}: {DEATHS_MAX} processes of this worker ended while they opened it: look for "
                "its memory and at the log of the worker; it is tried again after an hour"
            )
        marker = folder / f"opening-{uuid.uuid4().hex}"
        with marker.open("wb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            try:
                yield
            finally:
                marker.unlink(missing_ok=True)

    def _make_folder(self) -> None:
        """Only for this user: what is in it is run."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._folder.stat().st_uid != os.getuid():
            raise ModelError(f"the cache of models {self._folder} belongs to another user: set model.cache")

    def _fetch(self, version: Version, registry: ModelRegistry, place: Path) -> None:
        place.parent.mkdir(exist_ok=True)
        fetched = Path(tempfile.mkdtemp(prefix=".fetching-", dir=self._folder))
        try:
            registry.fetch(version, fetched)
            with contextlib.suppress(FileExistsError, OSError):  # another worker was faster
                fetched.rename(place)
        finally:
            shutil.rmtree(fetched, ignore_errors=True)

    def _make_room(self, needed: Path) -> None:
        """Delete the copies that were not used for longest, until the rest fit."""
        copies = sorted(self._folder.glob("*/*/"), key=lambda copy: copy.stat().st_mtime)
        sizes = {copy: sum(file.stat().st_size for file in copy.iterdir()) for copy in copies}
        room, now_s = self._bytes_max - sum(sizes.values()), time.time()
        for copy in copies:
            if room < 0 and copy != needed and now_s - copy.stat().st_mtime > USED_WITHIN_S:
                shutil.rmtree(copy, ignore_errors=True)
                room += sizes[copy]


def _deaths(folder: Path) -> int:
    """How many processes ended lately while they opened a version: their files are left, and nobody locks them."""
    count = 0
    for marker in folder.glob("opening-*"):
        try:
            with marker.open("rb") as left:
                fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - marker.stat().st_mtime <= DEATH_COUNTS_S:
                    count += 1
                else:
                    marker.unlink(missing_ok=True)
        except OSError:  # it is being opened now, or has just been
            continue
    return count
