"""Exports of clean events, for training or measurement, that honour current consent (`freshet export`).

:func:`export` writes the current content of `events` that may be used for the purpose
(:mod:`privacy.rules.export_eligibility`), as Parquet with a manifest (:mod:`schemas.exports`), under export pseudonyms,
which cannot be joined with anything that the job keeps. :func:`rewrite` removes what may no longer be in it, because
somebody withdrew or was erased, and deletes an export that is past its retention (`[export] retention_days`). If ended
by Ctrl-C or SIGTERM, both leave nothing half-written.

Not prevented: somebody who holds both an export and the `events` topic may match them by item and time.
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
from privacy.export_folder import (
    Derive,
    PartWriter,
    delete_export,
    is_past_retention,
    locked,
    new_folder,
    remove_disallowed,
    totals,
    write_manifest,
)
from privacy.feature_export import deriving
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
    """Write an export to the folder `out`, which must not exist yet.

    The end of `events` is determined before consents are read, so that every event finds the consent that it was
    accepted under.
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
    """Write the usable records of `stream`, from `events`, into `folder`, by consents as of `now_ms`."""
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
        settings=_settings_used(settings),
        parts=written,
    )
    write_manifest(folder, manifest)
    return manifest


def rewrite(settings: Settings, folder: Path, say: Say = lambda line: None) -> ExportManifest | None:
    """Remove what may no longer be in the export in `folder`; None if it was past its retention and was deleted."""
    with locked(folder):
        manifest = read_manifest(folder)
        if is_past_retention(settings.export.retention_days, manifest, clock_ms()):
            delete_export(folder)
            say(f"{folder} was past its retention and has been deleted")
            return None
        hashes = hashes_of(settings, folder, manifest)
        say("reading consents")
        standings = read_standings(settings, manifest.purpose, lambda user_id: [hashes.user(user_id)])
        after = honour(folder, manifest, standings, clock_ms(), deriving(settings, folder))
    say(f"{manifest.events - after.events} of {manifest.events} events removed from {folder}")
    _say_each(after.removed, "removed so far", say)
    return after


def hashes_of(settings: Settings, folder: Path, manifest: ExportManifest) -> ExportHashes:
    """The hashes of the export in `folder`; raises :class:`ExportError` if the key ring has other keys."""
    hashes = ExportHashes(load_key_ring(settings.privacy.key_ring), manifest.purpose)
    if hashes.check() != manifest.key_check:
        raise ExportError(
            f"{folder} was written with an export key that is not in the key ring: users cannot be found in it; "
            "use the settings that it was written with, or delete it"
        )
    return hashes


def honour(folder: Path, manifest: ExportManifest, standings: Standings, now_ms: int, derive: Derive) -> ExportManifest:
    """Remove from the export what consents, as of `now_ms`, no longer allow; `derive` makes its features again."""
    return remove_disallowed(
        folder,
        manifest,
        lambda event: standings.why_left_out(standings.get(event.pseudonym), event.appended, now_ms),
        now_ms,
        derive,
    )


def _settings_used(settings: Settings) -> dict[str, str | int | list[str] | None]:
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
