"""An export: a folder with `manifest.json` and gzipped JSON-lines, an event a line.

Who writes one: `freshet export`. A part that the manifest does not name is not part of the export.
"""

import gzip
import hashlib
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Final, Literal

import msgspec

from schemas.consents import Purpose
from schemas.errors import ExportError

MANIFEST: Final = "manifest.json"
PARTS: Final = "part-*.jsonl.gz"


class LeftOut(StrEnum):
    """Why an event is not in an export, or is taken out of it again."""

    NO_CONSENT = "no_consent"
    WITHDRAWN = "withdrawn"
    ERASED = "erased"
    EXPIRED = "expired"
    SESSION_ONLY = "session_only"
    NOT_GRANTED_NOW = "purpose_not_granted_now"
    NOT_GRANTED_THEN = "purpose_not_granted_then"
    BEFORE_CONSENT = "before_the_consent_in_force"
    UNREADABLE = "unreadable"


class ExportedEvent(msgspec.Struct, omit_defaults=True, gc=False):
    """A line of an export: a clean event (:class:`schemas.events.CleanEvent`) under names of exports.

    `pseudonym`, `session` and `request` are keyed hashes made for exports (:class:`schemas.pseudonyms.ExportHashes`):
    they join within an export and with other exports for its purpose, and with nothing else. The text of a search and
    the hash of the event are left out. Times in ms since the epoch.
    """

    pseudonym: str
    type: str
    ts: int
    appended: int
    item_id: str | None = None
    session: str | None = None
    request: str | None = None
    position: int | None = None
    value: float | None = None
    currency: str | None = None
    quantity: int | None = None
    surface: str | None = None
    scroll_pct: float | None = None
    dwell_ms: int | None = None
    context: dict[str, str] | None = None
    schema_v: int = 1


class ExportPart(msgspec.Struct, frozen=True):
    """A file of the export. `sha256` and `bytes` are of the file as it stands; `first_ts` and `last_ts` event times."""

    name: str
    sha256: str
    bytes: int
    events: int
    first_ts: int
    last_ts: int


class ExportManifest(msgspec.Struct, frozen=True):
    """What is in an export, and why the rest is not. Times in ms since the epoch.

    `consents_as_of` is when consents were last looked at; after `delete_after` the export must not be there any more.
    `left_out` counts events that were read and not written, `removed` those that were taken out since, by reason.
    `key_check` tells whether a key ring is the one that the names were made with. `settings` are those of the job and
    the export that shape what a line says.
    """

    purpose: Purpose
    created_at: int
    delete_after: int
    consents_as_of: int
    events: int
    first_ts: int | None
    last_ts: int | None
    read: int
    left_out: dict[LeftOut, int]
    removed: dict[LeftOut, int]
    revision: int
    key_check: str
    settings: dict[str, str | int | list[str] | None]
    parts: list[ExportPart]
    format: Literal["freshet-export-1"] = "freshet-export-1"


def read_manifest(folder: Path) -> ExportManifest:
    """The manifest of the export in `folder`; raises :class:`ExportError`."""
    try:
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=ExportManifest)
    except OSError as error:
        raise ExportError(f"{folder} is not an export: {MANIFEST} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ExportError(f"{folder / MANIFEST} is not the manifest of an export of this release") from None


def part_lines(folder: Path, part: ExportPart) -> Iterator[bytes]:
    """The lines of `part`, streamed, if its bytes are those that the manifest tells of; else :class:`ExportError`."""
    path = folder / part.name
    if Path(part.name).name != part.name or not Path(part.name).match(PARTS):
        raise ExportError(f"{folder / MANIFEST} names a part that no export has: the folder cannot be trusted")
    try:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != part.sha256:
                raise ExportError(f"{path} is not what its manifest says: delete the export and make a new one")
            file.seek(0)
            with gzip.open(file) as lines:
                yield from lines
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror}: delete the export and make a new one") from None
