"""Decides which audit records are proved: those covered by a later signature of a known key.

The job signs the beginnings of segments and, at each interval, the ends of chains. Each signature covers a hash, and
with it every earlier record. Somebody who can write to the topics but has no key can neither create such a record nor
insert one before it.
"""

import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from schemas.audit import AuditPlace, SegmentEntry, SignedHead
from schemas.signing import key_id
from udfs.audit_chain import head_message, link_record, record_hash, segment_message

HASH_MARK: Final = b',"hash":"'
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes that are not a record of the trail, whoever wrote them."""


class Line(NamedTuple):
    """A record as stored in a topic."""

    partition: int
    offset: int
    raw: bytes

    @property
    def where(self) -> str:
        """The place in words."""
        return f"partition {self.partition} offset {self.offset}"


class LinkedRecord(NamedTuple):
    """A record whose hash is right. `opening`: what its segment continues from, only for the first of a segment."""

    place: AuditPlace
    line: Line
    opening: SegmentEntry | None


class Trust(NamedTuple):
    """What to trust: signatures under one of `public_keys`, made for one of the `trails`.

    A trail is Kafka's id of the topic `audit` (:func:`jobs.trail.trail_id`). Signatures under the same key for another
    topic (of another tenant, a copy, or an earlier topic of this name) prove nothing here.
    """

    public_keys: Sequence[bytes]
    trails: Collection[str]


decode_place: Final = msgspec.json.Decoder(AuditPlace).decode
_decode_segment: Final = msgspec.json.Decoder(SegmentEntry).decode
_decode_head: Final = msgspec.json.Decoder(SignedHead).decode


def read_record(line: Line) -> LinkedRecord | AuditPlace | None:
    """Decode a record; only its place if its content does not match its hash; None if it is no record at all."""
    try:
        place = decode_place(line.raw)
        opening = _decode_segment(line.raw) if place.kind == "segment" else None
    except UNREADABLE:
        return None
    body, mark, rest = line.raw.rpartition(HASH_MARK)
    if not mark or rest != b'%b"}' % place.hash.encode() or record_hash(body) != place.hash:
        return place
    return LinkedRecord(place, line, opening)


def read_head(line: Line) -> SignedHead | None:
    """Decode a head, whoever signed it; None if it is not a head."""
    try:
        return _decode_head(line.raw)
    except UNREADABLE:
        return None


class Signatures:
    """Checks signatures against what is trusted. A complaint says what is wrong; None means valid."""

    def __init__(self, trust: Trust) -> None:
        self._keys = {key_id(public): Ed25519PublicKey.from_public_bytes(public) for public in trust.public_keys}
        self._trails = frozenset(trust.trails)

    def complaint_about_head(self, head: SignedHead) -> str | None:
        """Why a head proves nothing. A head without a trail was signed by an early release, see :class:`Chain`."""
        if complaint := self._complaint("a head", head.key, head.signature, head_message(head)):
            return complaint
        if head.trail and head.trail not in self._trails:
            return f"a head is signed for another trail, {head.trail}"
        return None

    def complaint_about_opening(self, record: LinkedRecord) -> str | None:
        """Why the signed beginning of a segment proves nothing."""
        place, opening = record.place, record.opening
        assert opening is not None
        message = segment_message(opening, place.bucket, place.epoch, place.at)
        if complaint := self._complaint("the beginning of a segment", opening.key, opening.signature, message):
            return complaint
        if opening.trail not in self._trails:
            return f"the beginning of a segment is signed for another trail, {opening.trail or 'without a name'}"
        # Must equal what the job wrote, byte for byte: no repeated fields, and no unsigned ones.
        written = link_record(opening, (place.bucket, place.epoch, opening.parent_seq + 1, place.at), opening.parent)
        if written[0] != record.line.raw:
            return "changed: the beginning of a segment is not as it was signed"
        return None

    def _complaint(self, what: str, key: str, signature: str, message: bytes) -> str | None:
        fits = False
        try:
            raw = bytes.fromhex(signature)
            self._keys[key].verify(raw, message)
            fits = raw.hex() == signature  # in the job's exact form: capitals and spaces would decode the same
        except KeyError:
            return f"{what} is signed with the key {key[:16]!a}, which is not one of those given"
        except (InvalidSignature, ValueError):
            pass
        return None if fits else f"changed: the signature of {what} does not fit it"


class Chain:
    """The records of one bucket, and which of them are proved.

    The order of `records` does not matter. `twice` has pairs of records with the same bytes or the same number; if one
    of them is proved, it is the first.
    """

    def __init__(self, records: Iterable[LinkedRecord]) -> None:
        self._by_hash: dict[str, LinkedRecord] = {}
        self._proved: set[str] = set()
        self.twice: list[tuple[LinkedRecord, LinkedRecord]] = []
        for record in records:
            known = self._by_hash.setdefault(record.place.hash, record)
            if known is not record:
                self.twice.append((known, record))

    def prove_opening(self, opening: LinkedRecord) -> None:
        """Mark what a validly signed beginning of a segment proves."""
        self._prove(self._by_hash[opening.place.hash], None)

    def prove_head(self, head: SignedHead, signed_from: Mapping[int, int]) -> None:
        """Mark what a validly signed head proves. One without a trail only proves records before `signed_from`.

        That is where the first signed segment of the trail begins, by partition. Since then every release has included
        the trail, so that a later head without one may come from anywhere.
        """
        record = self._by_hash.get(head.hash)
        if record is not None and (record.place.epoch, record.place.seq) == (head.epoch, head.seq):
            self._prove(record, None if head.trail else signed_from)

    def _prove(self, record: LinkedRecord | None, until: Mapping[int, int] | None) -> None:
        """Mark a record, and all that it builds on; with `until`, only records before that."""
        while record is not None and record.place.hash not in self._proved:
            if until is not None and record.line.offset >= until.get(record.line.partition, sys.maxsize):
                return
            self._proved.add(record.place.hash)
            record = self._before(record)

    def _before(self, record: LinkedRecord) -> LinkedRecord | None:
        before = self._by_hash.get(record.place.prev)
        if before is None or before.place.seq != record.place.seq - 1:
            return None
        return before if record.opening is not None or before.place.epoch == record.place.epoch else None

    def __contains__(self, hash: str) -> bool:
        return hash in self._by_hash

    def has_proved(self, hash: str, seq: int) -> bool:
        """Whether the job wrote a record with this hash and number."""
        record = self._by_hash.get(hash)
        return record is not None and record.place.seq == seq and self.is_proved(record)

    def is_proved(self, record: LinkedRecord) -> bool:
        """Whether the job wrote this record."""
        return record.place.hash in self._proved

    def proved(self) -> list[LinkedRecord]:
        """All proved records."""
        return [self._by_hash[hash] for hash in self._proved]

    def segments(self) -> dict[int, dict[int, LinkedRecord]]:
        """Records by epoch and number; of several with one number, a proved one. Call it once, after proving."""
        segments: dict[int, dict[int, LinkedRecord]] = defaultdict(dict)
        for record in sorted(self._by_hash.values(), key=self.is_proved, reverse=True):
            known = segments[record.place.epoch].setdefault(record.place.seq, record)
            if known is not record:
                self.twice.append((known, record))
        return dict(sorted(segments.items()))


class AbortedRecords:
    """Records that the job wrote and Kafka aborted before the job had committed them.

    Their bytes stay in the topic until its retention ends. The chain identifies them: what was committed after them
    contains their hashes.
    """

    def __init__(self, lines: Iterable[Line]) -> None:
        records = [record for line in lines if isinstance(record := read_record(line), LinkedRecord)]
        self._by_hash = {record.place.hash: record for record in records}

    def explain(self, hash: str, chain: Chain) -> str:
        """Why the record with this `hash` is missing from `chain`; "" unless aborted records fill the whole gap.

        They do if they lead from that record back to one that is in the chain, or to the beginning of the trail.
        """
        count, at_ms = 0, 0
        while hash and hash not in chain:
            record = self._by_hash.get(hash)
            if record is None:
                return ""
            hash, at_ms, count = record.place.prev, record.place.at, count + 1
        what = "it" if count == 1 else f"these {count} records"
        return (
            f"; the job wrote {what} at {at_ms}, and Kafka aborted the transaction before the job committed it: "
            "the job was down for longer than kafka.transaction_timeout_ms"
        )
