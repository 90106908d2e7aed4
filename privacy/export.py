"""Exports of clean events, for training or for measurement, that honour consent as it stands (`freshet export`).

:func:`export` writes what is in `events` now and may be used for the purpose
(:mod:`privacy.rules.export_eligibility`), as Parquet with a manifest (:mod:`schemas.exports`), under names of
exports: they join with nothing that the job keeps. :func:`rewrite` takes out again what may not be in it any more,
because somebody withdrew or was erased, and deletes an export that is past its retention (`[export] retention_days`).
Ended by Ctrl-C or SIGTERM, both leave nothing half-written.

Not kept apart: somebody who holds both an export and the `events` topic may match them by item and time.
"""

import hashlib
import shlex
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from adapters.files.export_parts import read_manifest
from adapters.kafka.reading import TopicAsOfNow
from adapters.secrets.key_rings import load_key_ring
from jobs.clock import clock_ms, day
from jobs.settings import Settings, load_policy
from privacy.export_folder import PartWriter, delete_export, locked, new_folder, totals, without, write_manifest
from privacy.history import permitted
from privacy.rules.export_eligibility import Standings, exported
from privacy.standings import read_standings
from schemas import topics
from schemas.consents import Purpose
from schemas.errors import ExportError
from schemas.exports import ExportManifest, LeftOut
from schemas.pseudonyms import ExportHashes, Pseudonymiser
from schemas.topics import DAY_MS

Say = Callable[[str], None]
T = TypeVar("T")


def export(settings: Settings, out: Path, purpose: Purpose, say: Say = lambda line: None) -> ExportManifest:
    """Write an export to the folder `out`, which must not be there yet.

    Consents are read after it is known where `events` ends: every event that is read finds the consent it came under.
    """
    ring = load_key_ring(settings.privacy.key_ring)
    hashes = ExportHashes(ring, purpose)
    with new_folder(out) as folder:
        events = TopicAsOfNow(settings.kafka, topics.EVENTS)
        try:
            say("reading consents")
            standings = read_standings(settings, purpose, Pseudonymiser(ring).all, hashes.user)
            manifest = write(settings, folder, events, standings, hashes, clock_ms())
        finally:
            events.close()
    say(f"{manifest.events} of {manifest.read} events for {purpose}, in {out}")
    _say_each(manifest.left_out, "left out", say)
    daily = shlex.join(["freshet", "export", "rewrite", str(out)])
    say(f"to be deleted after {day(manifest.delete_after)}; until then: `{daily}`, daily")
    return manifest


def write(
    settings: Settings, folder: Path, stream: Iterable[Any], standings: Standings, hashes: ExportHashes, now_ms: int
) -> ExportManifest:
    """Write what may be used of `stream`, records of `events`, into `folder`; consents as of `now_ms`."""
    left_out: Counter[LeftOut] = Counter()
    parts = PartWriter(folder, settings.export.part_bytes_max)
    for one in permitted(stream, standings, now_ms, left_out):
        parts.write(exported(one.event, one.appended, one.standing.export_name, hashes))
    written = parts.close()
    manifest = ExportManifest(
        purpose=standings.purpose,
        created_at=now_ms,
        delete_after=now_ms + settings.export.retention_days * DAY_MS,
        consents_as_of=now_ms,
        **totals(written),  # type: ignore[arg-type]
        read=sum(part.events for part in written) + left_out.total(),
        left_out=dict(left_out),
        removed={},
        revision=0,
        key_check=hashes.check(),
        settings=_told(settings),
        parts=written,
    )
    write_manifest(folder, manifest)
    return manifest


def rewrite(settings: Settings, folder: Path, say: Say = lambda line: None) -> ExportManifest | None:
    """Take out of the export in `folder` what may not be in it any more; None where it was past its retention."""
    with locked(folder):
        manifest = read_manifest(folder)
        if is_past(settings, manifest, clock_ms()):
            delete_export(folder)
            say(f"{folder} was past its retention and has been deleted")
            return None
        hashes = hashes_of(settings, folder, manifest)
        say("reading consents")
        standings = read_standings(settings, manifest.purpose, lambda user_id: [hashes.user(user_id)])
        after = honour(folder, manifest, standings, clock_ms())
    say(f"{manifest.events - after.events} of {manifest.events} events removed from {folder}")
    _say_each(after.removed, "removed so far", say)
    return after


def hashes_of(settings: Settings, folder: Path, manifest: ExportManifest) -> ExportHashes:
    """The hashes that the export in `folder` was made with; raises :class:`ExportError` if the key ring has others."""
    hashes = ExportHashes(load_key_ring(settings.privacy.key_ring), manifest.purpose)
    if hashes.check() != manifest.key_check:
        raise ExportError(
            f"{folder} was written with an export key that is not in the key ring: users cannot be found in it; "
            "use the settings that it was written with, or delete it"
        )
    return hashes


def honour(folder: Path, manifest: ExportManifest, standings: Standings, now_ms: int) -> ExportManifest:
    """Take out of the export what consents, as of `now_ms` and by the names of exports, do not allow any more."""
    return without(
        folder,
        manifest,
        lambda event: standings.why_left_out(standings.get(event.pseudonym), event.appended, now_ms),
        now_ms,
    )


def is_past(settings: Settings, manifest: ExportManifest, now_ms: int) -> bool:
    """Whether the export should not be there any more: by its manifest, or by a retention that was shortened since."""
    return now_ms >= min(manifest.delete_after, manifest.created_at + settings.export.retention_days * DAY_MS)


def _told(settings: Settings) -> dict[str, str | int | list[str] | None]:
    policy = msgspec.json.encode(load_policy(settings.privacy.policy))
    return {
        "topic": settings.kafka.topic(topics.EVENTS),
        "segments": list(settings.popularity.segments),
        "policy_sha256": hashlib.sha256(policy).hexdigest() if settings.privacy.policy else None,
        "retention_days": settings.export.retention_days,
        "part_bytes_max": settings.export.part_bytes_max,
    }


def _say_each(counts: dict[LeftOut, int], what: str, say: Say) -> None:
    for reason, count in sorted(counts.items()):
        say(f"  {what}: {count} {reason.value}")
