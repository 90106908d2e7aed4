"""Features for offline use, computed from the events of an export and kept beside them (`freshet features export`).

They contain nothing that the export does not, under the same names of users: consent, rewriting and retention are those
of the export. A rewrite computes them again from the remaining events.
"""

import hashlib
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec

from adapters.files.export_parts import part_events, read_manifest
from adapters.files.feature_parts import write_feature_rows
from jobs.clock import clock_ms, day
from jobs.settings import Settings
from privacy.export_folder import (
    Derive,
    create,
    is_past_retention,
    locked,
    part_name,
    remove_unnamed_parts,
    write_manifest,
)
from schemas.errors import ExportError
from schemas.exports import FEATURES, ExportedEvent, ExportManifest, ExportPart
from udfs.elements import EventRecord
from udfs.exported_events import record_of
from udfs.features import FEATURES as ALL_FEATURES
from udfs.features import FeatureRow, rows_of

EVENTS_PER_SHARE: Final = 100_000
"""Events of a share of the users, all of which are in memory at once: about 150 MB."""
SHARES_MAX: Final = 256
Say = Callable[[str], None]
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(ExportedEvent).decode
_COLUMNS: Final = [(feature.name, feature.kind) for feature in ALL_FEATURES]


def export_features(settings: Settings, folder: Path, say: Say) -> ExportManifest:
    """Compute the features from the export in `folder`, and keep them in its subfolder `features`."""
    with locked(folder):
        before = read_manifest(folder)
        if is_past_retention(settings.export.retention_days, before, clock_ms()):
            raise ExportError(f"{folder} is past its retention: `freshet export rewrite` deletes it; make a new one")
        remove_unnamed_parts(folder, before)
        manifest = msgspec.structs.replace(before, revision=before.revision + 1)
        try:
            after = msgspec.structs.replace(manifest, features=deriving(settings, folder)(manifest))
        except BaseException:
            remove_unnamed_parts(folder, before)
            raise
        write_manifest(folder, after)
        remove_unnamed_parts(folder, after)
    rows = sum(part.events for part in after.features)
    say(f"{rows} rows of features from {after.events} events, in {folder / FEATURES}")
    say(f"to be deleted with the export, after {day(after.delete_after)}")
    return after


def deriving(settings: Settings, folder: Path) -> Derive:
    """What computes features from the parts of an export in `folder`, under names of its revision.

    Users are divided into shares by a checksum of their names. Events are written to a file for each share first, so
    memory is bounded by a share and not by the export.
    """

    def derive(manifest: ExportManifest) -> list[ExportPart]:
        place = folder / FEATURES
        place.mkdir(mode=0o700, exist_ok=True)
        shares = min(SHARES_MAX, manifest.events // EVENTS_PER_SHARE + 1)
        spilt = [place / f".share-{number}" for number in range(shares)]
        _divide(folder, manifest, spilt)
        parts = []
        for number, share in enumerate(spilt):
            rows = list(_rows(settings, share))
            share.unlink()
            if rows:
                parts.append(_write(place / part_name(number, manifest.revision), manifest.created_at, rows))
        return parts

    return derive


def _divide(folder: Path, manifest: ExportManifest, spilt: Sequence[Path]) -> None:
    with ExitStack() as files:
        shares = [files.enter_context(create(path)) for path in spilt]
        for part in manifest.parts:
            for event in part_events(folder, part):
                raw = _encode(event)
                file = shares[zlib.crc32(event.pseudonym.encode()) % len(shares)]
                file.write(len(raw).to_bytes(4, "little") + raw)


def _rows(settings: Settings, share: Path) -> Iterator[FeatureRow]:
    users: dict[str, list[EventRecord]] = {}
    for number, event in enumerate(_events(share)):
        users.setdefault(event.pseudonym, []).append(record_of(event, number))
    for user, events in users.items():
        yield from rows_of(user, events, settings.profile, settings.features.ttl_ms)


def _events(share: Path) -> Iterator[ExportedEvent]:
    with share.open("rb") as file:
        while size := file.read(4):
            yield _decode(file.read(int.from_bytes(size, "little")))


def _write(path: Path, created_ms: int, rows: Sequence[FeatureRow]) -> ExportPart:
    with create(path) as file:
        count = write_feature_rows(file, _COLUMNS, created_ms, rows)
        file.flush()
        os.fsync(file.fileno())
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    times = [row.event_ts for row in rows]
    return ExportPart(path.name, sha256, path.stat().st_size, count, min(times), max(times))
