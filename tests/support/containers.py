"""A container's memory limit around a supervised process, where this machine lets us set one."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

MEMORY: Final = Path("/sys/fs/cgroup/memory")
"""The controller of cgroup v1. With v2 alone, its tree is the init system's, and nothing is limited."""


class Container:
    """A memory control group."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def kills(self) -> int:
        """How many processes the kernel has killed because the limit was reached."""
        lines = (self._folder / "memory.oom_control").read_text().splitlines()
        return int(dict(line.split() for line in lines)["oom_kill"])

    def highest(self) -> int:
        """The most memory that was in use, in bytes, page cache included."""
        return int((self._folder / "memory.max_usage_in_bytes").read_text())


@contextlib.contextmanager
def container(supervisor: int, limit: int) -> Iterator[Container | None]:
    """Limit the memory, in bytes, of what `supervisor` starts from now on. None if that cannot be done here."""
    folder = MEMORY / f"freshet-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        print(f"without a container's limit: {folder} cannot be made ({error.strerror})")
        yield None
        return
    try:
        (folder / "memory.limit_in_bytes").write_text(str(limit))
        (folder / "cgroup.procs").write_text(str(supervisor))
        yield Container(folder)
    finally:
        for pid in (folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (MEMORY / "cgroup.procs").write_text(pid)
        folder.rmdir()
