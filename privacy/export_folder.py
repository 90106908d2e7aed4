"""The files of an export: parts of bounded size, a manifest, and folders that appear atomically.

Nothing here knows Kafka. Only the owner can read the files. Rewritten parts get new names and the manifest is replaced
atomically, so a reader during a rewrite sees either the old export or the new one.
"""

import fcntl
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from adapters.files.export_parts import PartRows, part_events
from schemas.errors import ExportError
from schemas.exports import FEATURES, MANIFEST, PARTS, ExportedEvent, ExportManifest, ExportPart, LeftOut
from schemas.topics import DAY_MS

_encode: Final = msgspec.json.Encoder().encode
Judge = Callable[[ExportedEvent], LeftOut | None]
Derive = Callable[[ExportManifest], list[ExportPart]]
"""Writes the features that follow from the parts of a manifest, under names of its revision."""


class PartFile:
    """A part being written. The same events give the same bytes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = create(path)
        self._rows = PartRows(self._file)
        self._events, self._first_ts, self._last_ts = 0, 0, 0

    def write(self, event: ExportedEvent) -> None:
        """Append an event."""
        self._rows.write(event)
        self._first_ts = min(self._first_ts, event.ts) if self._events else event.ts
        self._last_ts = max(self._last_ts, event.ts) if self._events else event.ts
        self._events += 1

    def close(self) -> ExportPart:
        """Write everything to disk, and return the part's entry for the manifest."""
        self._rows.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        with self._path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size = self._path.stat().st_size
        return ExportPart(self._path.name, sha256, size, self._events, self._first_ts, self._last_ts)


class PartWriter:
    """Writes events to parts of at most `part_bytes_max` bytes each.

    Sizes are counted as JSON, which is more than Parquet takes. A longer event gets its own part.
    """

    def __init__(self, folder: Path, part_bytes_max: int) -> None:
        self._folder, self._part_bytes_max = folder, part_bytes_max
        self._current: PartFile | None = None
        self._current_bytes = 0
        self._parts: list[ExportPart] = []

    def write(self, event: ExportedEvent) -> None:
        """Append an event."""
        size = len(_encode(event)) + 1
        if self._current_bytes + size > self._part_bytes_max:
            self._end_part()
        if self._current is None:
            self._current = PartFile(self._folder / part_name(len(self._parts), revision=0))
        self._current.write(event)
        self._current_bytes += size

    def close(self) -> list[ExportPart]:
        """Finish, and return all parts."""
        self._end_part()
        return self._parts

    def _end_part(self) -> None:
        if self._current is not None:
            self._parts.append(self._current.close())
            self._current, self._current_bytes = None, 0


def part_name(number: int, revision: int) -> str:
    """The name of a part; a rewritten part keeps its number.

    >>> part_name(3, revision=1)
    'part-00003-r1.parquet'
    """
    return f"part-{number:05d}-r{revision}.parquet"


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder that becomes `out` at the end; any failure before that, including Ctrl-C, leaves nothing.

    What a killed export left behind is removed by the next export to the same place.
    """
    if out.exists():
        raise ExportError(f"{out} already exists: choose another folder, or delete it first")
    partial = out.with_name(f".{out.name}.partial")
    partial.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(partial):
        try:
            for leftover in partial.iterdir():
                leftover.unlink()
            yield partial
            _sync(partial)
            partial.rename(out)
            _sync(out.parent)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock `folder` against other writers; the system releases the lock when the process ends, however it ends."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ExportError(f"{folder} cannot be opened: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ExportError(f"{folder} is being written by another process: wait until it ends") from None
        yield
    finally:
        os.close(descriptor)


def write_manifest(folder: Path, manifest: ExportManifest) -> None:
    """Write the manifest atomically."""
    draft = folder / f".{MANIFEST}"
    draft.unlink(missing_ok=True)
    with create(draft) as file:
        file.write(msgspec.json.format(_encode(manifest)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(folder / MANIFEST)
    _sync(folder)


def remove_disallowed(
    folder: Path, manifest: ExportManifest, judge: Judge, now_ms: int, derive: Derive
) -> ExportManifest:
    """Remove from the export all events for which `judge` returns a reason; returns the new manifest.

    If the export has features, `derive` computes them again from what remains: they may depend on a removed event. If
    interrupted anywhere, the export is either the old or the new one, and another run finishes the work. Raises
    :class:`ExportError` if the export is damaged.
    """
    removed: Counter[LeftOut] = Counter(manifest.removed)
    revision = manifest.revision + 1
    remove_unnamed_parts(folder, manifest)
    try:
        parts = [kept for part in manifest.parts if (kept := _rewritten(folder, part, judge, revision, removed))]
        changed = parts != manifest.parts
        after = msgspec.structs.replace(
            manifest,
            parts=parts,
            removed=dict(removed),
            consents_as_of=now_ms,
            revision=revision if changed else manifest.revision,
            **totals(parts),
        )
        if changed and manifest.features:
            after = msgspec.structs.replace(after, features=derive(after))
    except BaseException:
        remove_unnamed_parts(folder, manifest)
        raise
    write_manifest(folder, after)
    remove_unnamed_parts(folder, after)
    return after


def totals(parts: list[ExportPart]) -> dict[str, int | None]:
    """The manifest's totals over all parts."""
    return {
        "events": sum(part.events for part in parts),
        "first_ts": min((part.first_ts for part in parts), default=None),
        "last_ts": max((part.last_ts for part in parts), default=None),
    }


def is_past_retention(retention_days: int, manifest: ExportManifest, now_ms: int) -> bool:
    """Whether the export is past its retention: by its manifest, or by a retention that was shortened since."""
    return now_ms >= min(manifest.delete_after, manifest.created_at + retention_days * DAY_MS)


def delete_export(folder: Path) -> None:
    """Delete the files of the export, the manifest last, and the folder unless it contains something else."""
    for path in _files(folder):
        path.unlink()
    with suppress(OSError):
        (folder / FEATURES).rmdir()
    (folder / f".{MANIFEST}").unlink(missing_ok=True)
    (folder / MANIFEST).unlink()
    with suppress(OSError):
        folder.rmdir()


def _rewritten(
    folder: Path, part: ExportPart, judge: Judge, revision: int, removed: Counter[LeftOut]
) -> ExportPart | None:
    """`part` if nothing is to be removed, else a new part with what remains; None if nothing remains."""
    reasons = Counter(reason for event in part_events(folder, part) if (reason := judge(event)) is not None)
    if not reasons:
        return part
    removed.update(reasons)
    if reasons.total() == part.events:
        return None
    file = PartFile(folder / part_name(int(part.name[5:10]), revision))
    for event in part_events(folder, part):
        if judge(event) is None:
            file.write(event)
    return file.close()


def remove_unnamed_parts(folder: Path, manifest: ExportManifest) -> None:
    """Remove parts that the manifest does not name: leftovers of an interrupted rewrite, or replaced ones."""
    named = {folder / part.name for part in manifest.parts}
    named |= {folder / FEATURES / part.name for part in manifest.features}
    for path in _files(folder):
        if path not in named:
            path.unlink()


def _files(folder: Path) -> list[Path]:
    """The parts, and everything in the folder of features: also what an interrupted run has left there."""
    return [*folder.glob(PARTS), *(folder / FEATURES).glob("*")]


def create(path: Path) -> BinaryIO:
    """Open a new file that only its owner can read, for writing."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
