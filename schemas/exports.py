"""An export: a folder with `manifest.json` and Parquet parts (:mod:`adapters.files.export_parts`), one event per row.

It is written by `freshet export`. A part that the manifest does not list does not belong to the export.
"""

from enum import StrEnum
from typing import Final, Literal

import msgspec

from schemas.consents import Purpose

MANIFEST: Final = "manifest.json"
PARTS: Final = "part-*.parquet"
FEATURES: Final = "features"
"""The subfolder for the features that were computed from the events of the export (`freshet features export`)."""
PART_MARK: Final = b"freshet.export"
"""In the metadata of each part: only the manifest in the same folder states its purpose and how long it may be kept."""


class LeftOut(StrEnum):
    """Why an event is not in an export, or was removed from it."""

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
    """A row of an export: a clean event (:class:`schemas.events.CleanEvent`) with names of exports.

    `pseudonym`, `session` and `request` are keyed hashes made for exports (:class:`schemas.pseudonyms.ExportHashes`):
    they can be joined within an export and with other exports for the same purpose, and with nothing else. The text of
    a search and the hash of the event are left out. Times are in ms since the epoch.

    In exports to `measure`, events of items that were drawn by chance have `slot`, `propensity`, `pool` and `list_at`,
    as in :class:`schemas.exploration.Exploration`.
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
    slot: int | None = None
    propensity: float | None = None
    pool: list[str] | None = None
    list_at: int | None = None


class ExportPart(msgspec.Struct, frozen=True):
    """A file of the export.

    `sha256` and `bytes` are those of the current file; `first_ts` and `last_ts` are event times.
    """

    name: str
    sha256: str
    bytes: int
    events: int
    first_ts: int
    last_ts: int


class ExportManifest(msgspec.Struct, frozen=True):
    """The contents of an export, and the reasons for what was left out. Times are in ms since the epoch.

    `consents_as_of` is when consents were last checked; by `delete_after` the export must have been deleted. `left_out`
    counts events that were read but not written, `removed` those removed since, by reason. `key_check` identifies the
    key ring with which the names were made. `features` are the files in the subfolder :data:`FEATURES`; their `events`
    are rows. `settings` are the settings of the job and the export that affect the rows.
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
    features: list[ExportPart] = []
    format: Literal["freshet-export-2"] = "freshet-export-2"
