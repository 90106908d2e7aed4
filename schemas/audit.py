"""Audit records of consent, its enforcement and the use of data, as JSON in the topic `audit`.

Each bucket of the job writes its own chain. A record is one line of JSON::

    {"kind":"withdrawal","bucket":2,"epoch":ms,"seq":41,"at":ms,…,"prev":"<64 hex>","hash":"<64 hex>"}

`seq` increases by one per record; `epoch` is the submission time of the job that wrote it; `prev` is the hash of the
previous record; `hash` is SHA-256 of everything before ``,"hash"``. A job that continues a chain first opens a segment,
with a record of kind ``segment`` that contains the hash and number of the record it continues from. If an older
savepoint was restored, that is not the last record. Records contain pseudonyms, never user ids, and texts of limited
length.
"""

import re
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from schemas.consents import LevelName, Purpose
from schemas.ids import NAME_PATTERN

NAME_LENGTH_MAX: Final = 128
Name = Annotated[str, Meta(max_length=NAME_LENGTH_MAX)]
"""A name as it appears in the trail, where earlier releases wrote any text."""
VisibleName = Annotated[str, Meta(max_length=NAME_LENGTH_MAX, pattern=NAME_PATTERN)]
"""A name as accepted now: it has at least one visible character."""
DeniedReason = Literal["no_consent_on_record", "not_allowed"]
KeyChange = Literal["rotation_started", "relinked", "rotation_ended"]
_seen: Final = re.compile(NAME_PATTERN).search


def is_name(text: str) -> bool:
    """Whether `text` is valid as the name of a reader, of data or of a purpose: :data:`VisibleName`.

    >>> [is_name(text) for text in ("request 47", "", "\\u3000", "\\0", "a\\u202eb")]
    [True, False, False, False, False]
    """
    return len(text) <= NAME_LENGTH_MAX and _seen(text) is not None


class ConsentEntry(msgspec.Struct, tag="consent", tag_field="kind", frozen=True, omit_defaults=True):
    """A consent is in force; `narrowed_by` is the reason if it is less than was granted.

    Its place is that in `consents`.
    """

    pseudonym: str
    level: LevelName
    purposes: list[Purpose]
    consent_at: int
    partition: int
    offset: int
    expires_at: int = 0
    notice_version: str | None = None
    jurisdiction: str | None = None
    method: str | None = None
    narrowed_by: list[str] = []


class WithdrawalEntry(msgspec.Struct, tag="withdrawal", tag_field="kind", frozen=True, omit_defaults=True):
    """Personalisation was withdrawn; the record's `at` minus `consent_at` is the time until it took effect, in ms.

    `purposes` are those granted without personalisation.
    """

    pseudonym: str
    consent_at: int
    partition: int
    offset: int
    method: str | None = None
    narrowed_by: list[str] = []
    purposes: list[Purpose] = []


class ErasureEntry(msgspec.Struct, tag="erasure", tag_field="kind", frozen=True):
    """A user was erased from state and Redis."""

    pseudonym: str
    consent_at: int
    partition: int
    offset: int


class RefusedEntry(msgspec.Struct, tag="refused", tag_field="kind", frozen=True):
    """A grant was refused because it was given or appended no later than the user's last withdrawal."""

    pseudonym: str
    consent_at: int
    partition: int
    offset: int


class ExpiryEntry(msgspec.Struct, tag="expiry", tag_field="kind", frozen=True):
    """A consent expired without a further record, and the data kept under it were deleted."""

    pseudonym: str


class DeniedEntry(msgspec.Struct, tag="denied", tag_field="kind", frozen=True, omit_defaults=True):
    """This many interactions were not used; without a pseudonym, those of all users without a recorded consent."""

    events: int
    reason: DeniedReason
    pseudonym: str | None = None


class AccessEntry(msgspec.Struct, tag="access", tag_field="kind", frozen=True, omit_defaults=True):
    """Data were read: `what`, by which role, for which purpose; `reads` times, of one user or of many."""

    role: Name
    purpose: Name
    what: Name
    reads: int = 1
    pseudonym: str | None = None


class KeyEntry(msgspec.Struct, tag="key", tag_field="kind", frozen=True):
    """An event of the key ring: it concerns the key `kid`, under which this many users are known."""

    change: KeyChange
    kid: int
    users: int


class SegmentEntry(msgspec.Struct, tag="segment", tag_field="kind", frozen=True):
    """A job continues from the record `parent_seq` with the hash `parent`; -1 and "" if there is none.

    `trail` identifies the topic to which the job writes (:func:`jobs.trail.trail_id`); `heads_every_ms` is how often it
    signs heads. `signature` is Ed25519 (RFC 8032), in hexadecimal, of :func:`udfs.audit_chain.segment_message`, `key`
    as in :class:`SignedHead`. Releases that did not sign segments omitted these four fields.
    """

    parent: str
    parent_seq: int
    trail: str = ""
    heads_every_ms: int = 0
    key: str = ""
    signature: str = ""


AuditEntry = (
    ConsentEntry
    | WithdrawalEntry
    | ErasureEntry
    | RefusedEntry
    | ExpiryEntry
    | DeniedEntry
    | AccessEntry
    | KeyEntry
    | SegmentEntry
)


class AuditPlace(msgspec.Struct, frozen=True):
    """The fields that every record of the trail has in addition to its entry."""

    kind: str
    bucket: int
    epoch: int
    seq: int
    at: int
    prev: str
    hash: str


class SignedHead(msgspec.Struct, frozen=True):
    """The signed end of a chain as of `at`: in the topic `audit-heads`, and wherever else it is kept.

    `signature` is Ed25519 (RFC 8032), in hexadecimal, of :func:`udfs.audit_chain.head_message`; `key` the first 16
    digits of SHA-256 of the public key; `trail` identifies the topic of the record, "" in heads of earlier releases.
    """

    bucket: int
    epoch: int
    seq: int
    hash: str
    at: int
    key: str
    signature: str
    trail: str = ""
