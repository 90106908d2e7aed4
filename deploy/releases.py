"""Keeps what was submitted last from this machine, by the ids of the jobs: what an upgrade is rolled back to."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

FOLDER: Final = "releases"
KEPT: Final = 8
"""How many submissions are kept; several deployments may be submitted from one machine."""
_PACKAGE: Final = "freshet.zip"
_SETTINGS: Final = "freshet.toml"
_OPTIONS: Final = "options.json"


class Release(NamedTuple):
    """What a job was submitted with: its code, its settings file, and the options of `freshet submit` that it needs."""

    package: Path
    settings: Path
    parallelism: int | None = None
    python: str | None = None
    mode: str | None = None


class _Options(msgspec.Struct):
    parallelism: int | None = None
    python: str | None = None
    mode: str | None = None


def keep(folder: Path, job: str, release: Release) -> None:
    """Keep copies of the files of `release`, which `job` runs, below `folder`. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".", dir=folder))
    try:
        shutil.copyfile(release.package, draft / _PACKAGE)
        shutil.copyfile(release.settings, draft / _SETTINGS)
        options = _Options(release.parallelism, release.python, release.mode)
        (draft / _OPTIONS).write_bytes(msgspec.json.encode(options))
        draft.rename(folder / job)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    others = [path for path in folder.iterdir() if not path.name.startswith(".")]
    for path in sorted(others, key=lambda path: path.stat().st_mtime_ns)[:-KEPT]:
        shutil.rmtree(path, ignore_errors=True)


def kept(folder: Path, job: str) -> Release | None:
    """What `job` was submitted with; None if it was submitted from elsewhere, or long ago."""
    place = folder / job
    if not (place / _OPTIONS).is_file():
        return None
    options = msgspec.json.decode((place / _OPTIONS).read_bytes(), type=_Options)
    return Release(place / _PACKAGE, place / _SETTINGS, options.parallelism, options.python, options.mode)
