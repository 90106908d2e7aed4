"""Packs the code of the jobs into one zip, for `flink run -pyfs` (`freshet submit`).

Builds are reproducible: the same sources give the same bytes, so a deployment can detect changes by a checksum.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from jobs.operators_jar import operators_jar
from jobs.release import PACKAGES, SUFFIXES

ROOT = Path(__file__).resolve().parents[1]
DEFAULT_OUT = ROOT / ".local" / "freshet.zip"
_EPOCH = (1980, 1, 1, 0, 0, 0)


def build(out: Path = DEFAULT_OUT) -> Path:
    """Write the zip and return its path. Raises :class:`SettingsError` if the jar was not built from these sources."""
    sources = (path for package in PACKAGES for path in (ROOT / package).rglob("*.*") if path.suffix in SUFFIXES)
    return write_zip(out, [*sources, operators_jar()])


def write_zip(out: Path, sources: Iterable[Path]) -> Path:
    """Write a zip of `sources`, which lie below the root of the repository, and return its path."""
    return write_archive(out, {source.relative_to(ROOT).as_posix(): source.read_bytes() for source in sources})


def write_archive(out: Path, files: Mapping[str, bytes]) -> Path:
    """Write a zip of `files`, name → bytes, and return its path."""
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_suffix(".part")
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)
    unfinished.replace(out)
    return out
