"""The hash chain of the audit trail as a pure rule: entries go in, link_record records and signed heads come out.

`append` costs about 2 µs per record. Hashes cover the bytes of a record as stored in the topic, so a verifier need not
know how they were encoded.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from schemas.audit import (
    AuditEntry,
    ConsentEntry,
    DeniedEntry,
    ErasureEntry,
    RefusedEntry,
    SegmentEntry,
    SignedHead,
    WithdrawalEntry,
)
from schemas.consents import LEVEL_NAME, Level, purposes_of
from schemas.errors import SchemaError
from schemas.signing import SigningKey
from udfs.elements import ConsentRecord

BOOK_VERSION: Final = 1
DENIED_USERS_MAX: Final = 1_000
"""For at most this many users denied interactions are counted before they are recorded."""
_SIGNED_HEAD: Final = b"freshet audit head v2"
_SIGNED_HEAD_OF_NO_TRAIL: Final = b"freshet audit head v1"
_SIGNED_SEGMENT: Final = b"freshet audit segment v1"


class Author(NamedTuple):
    """The job that writes a trail: its key, and its submission time `epoch` in ms.

    `trail` identifies the topic that it writes to. If anything was recorded, a head is signed every `heads_every_ms`.
    """

    key: SigningKey
    epoch: int
    trail: str
    heads_every_ms: int


class ChainHead(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The end of a bucket's chain: its last record's epoch, number and hash (hexadecimal), and the last one signed."""

    epoch: int = 0
    seq: int = -1
    hash: str = ""
    signed_seq: int = -1


class Book(msgspec.Struct, array_like=True, gc=False):
    """A bucket's state of its trail: the head, and how many interactions of each user were denied since it was signed.

    Users without a consent on record share the key \"\". One record per denied interaction would drown the others.
    `held` are entries with their times (ms) that wait for the end of the chain that they continue.
    """

    bucket: int
    head: ChainHead = ChainHead()
    denied: dict[str, int] = {}
    held: list[tuple[int, AuditEntry]] = []


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Book)
_encode_json: Final = msgspec.json.Encoder().encode


def encode_book(book: Book) -> bytes:
    """Versioned bytes of `book`."""
    return bytes([BOOK_VERSION]) + _encoder.encode(book)


def decode_book(raw: bytes) -> Book:
    """Decode a book. Raises :class:`SchemaError` for an unknown version."""
    if raw[0] != BOOK_VERSION:
        raise SchemaError(f"audit book of version {raw[0]}, this release reads {BOOK_VERSION}: upgrade step by step")
    return _decoder.decode(memoryview(raw)[1:])


def note_denied(book: Book, denied: Mapping[str, int]) -> None:
    """Count interactions that were denied."""
    for pseudonym, events in denied.items():
        book.denied[pseudonym] = book.denied.get(pseudonym, 0) + events


def rename(book: Book, moved: Mapping[str, str]) -> None:
    """Move counts to the users' current pseudonyms: `moved` is current → previous."""
    for current, previous in moved.items():
        if events := book.denied.pop(previous, 0):
            note_denied(book, {current: events})


def denied_entries(book: Book, pseudonyms: Iterable[str] | None = None) -> list[AuditEntry]:
    """Remove the counts of `pseudonyms`, or all counts, from the book, and return them as entries."""
    asked = dict.fromkeys(book.denied if pseudonyms is None else pseudonyms)
    chosen = [name for name in asked if name in book.denied]
    return [
        DeniedEntry(book.denied.pop(name), "not_allowed", name)
        if name
        else DeniedEntry(book.denied.pop(name), "no_consent_on_record")
        for name in chosen
    ]


def consent_entry(change: ConsentRecord, refused: bool) -> AuditEntry:
    """The entry for a consent change that was applied or refused."""
    place = change.append_ts, change.partition, change.offset
    narrowed_by = [str(reason) for reason in change.narrowed_by]
    if change.erase:
        return ErasureEntry(change.pseudonym, *place)
    if refused:
        return RefusedEntry(change.pseudonym, *place)
    if change.level == Level.NONE:
        return WithdrawalEntry(
            change.pseudonym,
            *place,
            "record_removed" if change.absent else change.method,
            narrowed_by,
            purposes_of(change.purposes),
        )
    return ConsentEntry(
        change.pseudonym,
        LEVEL_NAME[Level(change.level)],
        purposes_of(change.purposes),
        *place,
        change.expires_at,
        change.notice_version,
        change.jurisdiction,
        change.method,
        narrowed_by,
    )


def append(
    head: ChainHead, entries: Sequence[AuditEntry], bucket: int, author: Author, at: int
) -> tuple[ChainHead, list[bytes]]:
    """Append `entries` at `at` (ms): returns the new head and the records. A job's first records open a signed segment.

    The epoch distinguishes a job from the one before it. An automatic restart keeps the epoch: what was written after
    the checkpoint was never committed, and is written again.
    """
    if not entries:
        return head, []
    if head.epoch != author.epoch:
        entries = [open_segment(head, bucket, author, at), *entries]
    seq, previous, records = head.seq, head.hash, []
    for entry in entries:
        seq += 1
        raw, previous = link_record(entry, (bucket, author.epoch, seq, at), previous)
        records.append(raw)
    return ChainHead(author.epoch, seq, previous, head.signed_seq), records


def link_record(entry: AuditEntry, place: tuple[int, int, int, int], previous: str) -> tuple[bytes, str]:
    """The record of `entry` that follows the hash `previous`, and its own hash. `place` is bucket, epoch, seq, at."""
    # The entry's JSON begins with its kind; insert the place after it, so that a reader sees both first.
    kind, _, rest = _encode_json(entry)[1:-1].partition(b",")
    body = b'{%b,"bucket":%d,"epoch":%d,"seq":%d,"at":%d,%b%b"prev":"%b"' % (
        kind, *place, rest, b"," if rest else b"", previous.encode(),
    )  # fmt: skip
    own = record_hash(body)
    return b'%b,"hash":"%b"}' % (body, own.encode()), own


def record_hash(body: bytes) -> str:
    """The hash of a record's bytes before ``,"hash"``; these include the hash of the previous record."""
    return hashlib.sha256(body).hexdigest()


def open_segment(head: ChainHead, bucket: int, author: Author, at: int) -> SegmentEntry:
    """The signed entry that starts what `author` writes after `head`."""
    opening = SegmentEntry(head.hash, head.seq, author.trail, author.heads_every_ms, author.key.id)
    signature = author.key.sign(segment_message(opening, bucket, author.epoch, at))
    return msgspec.structs.replace(opening, signature=signature.hex())


def segment_message(opening: SegmentEntry, bucket: int, epoch: int, at: int) -> bytes:
    """The signed bytes of a segment's start; no signature made for anything else is valid for them."""
    return b"%b\n%d\n%d\n%d\n%d\n%b\n%d\n%b" % (
        _SIGNED_SEGMENT, bucket, epoch, at, opening.parent_seq, opening.parent.encode(), opening.heads_every_ms,
        opening.trail.encode(),
    )  # fmt: skip


def head_message(head: SignedHead) -> bytes:
    """The signed bytes of a chain's end; no signature made for anything else is valid for them."""
    of_trail = (_SIGNED_HEAD + b"\n" + head.trail.encode()) if head.trail else _SIGNED_HEAD_OF_NO_TRAIL
    return b"%b\n%d\n%d\n%d\n%b\n%d" % (of_trail, head.bucket, head.epoch, head.seq, head.hash.encode(), head.at)


def sign_head(head: ChainHead, bucket: int, at: int, author: Author) -> tuple[ChainHead, bytes]:
    """`head`, marked as signed, and its :class:`SignedHead` as JSON."""
    signed = SignedHead(bucket, head.epoch, head.seq, head.hash, at, author.key.id, "", author.trail)
    signature = author.key.sign(head_message(signed)).hex()
    encoded = _encode_json(msgspec.structs.replace(signed, signature=signature))
    return msgspec.structs.replace(head, signed_seq=head.seq), encoded
