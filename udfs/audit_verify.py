"""Verifying an audit trail: every record that was changed, is missing, stands twice or in another place is named.

What is proved: nothing between two records of a chain was changed, dropped or put in, and nothing at its end up to the
last signed head. What cannot be: that the last records since that head are all there, and that a head which was kept
nowhere else was not dropped together with them. That is why heads are kept outside of the topics too.

A trail without signatures proves nothing, however well its hashes fit, so records that nobody has signed in time are a
finding. A beginning that is missing is none where it may be past its retention, unless a head was signed of it later:
the age of a record that is gone is known from nothing else.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from schemas.audit import AuditPlace, SegmentEntry, SignedHead
from schemas.signing import key_id
from schemas.topics import DAY_MS, HOUR_MS
from udfs.audit import head_message, record_hash

Complain = Callable[[int, str], None]
UNSIGNED_MAX_MS: Final = 2 * HOUR_MS
"""A job that runs signs a head at least each hour (`audit.heads_every_ms`): so long it cannot record without one."""
QUIET_MAX_MS: Final = 30 * DAY_MS
"""How long a bucket may record nothing. The first record that is kept may be so much younger than the retention while
the one before it is past it."""
HEAD_LAG_MAX_MS: Final = DAY_MS
"""How much younger than its record a head may be: no more than `audit.heads_every_ms`, and the broker's clock."""
_HASH_MARK: Final = b',"hash":"'


class Line(NamedTuple):
    """A record as it stands in a topic."""

    partition: int
    offset: int
    raw: bytes

    @property
    def where(self) -> str:
        """Its place in words."""
        return f"partition {self.partition} offset {self.offset}"


class Finding(NamedTuple):
    """Something that is wrong, of `bucket` (-1 where it cannot be told) and its record `seq` (-1 likewise)."""

    bucket: int
    seq: int
    text: str


class ChainSummary(NamedTuple):
    """What was found of a bucket's chain; `signed_seq` is the last record that a valid signed head vouches for."""

    bucket: int
    segments: int
    records: int
    first_seq: int
    last_seq: int
    signed_seq: int


class Verification(NamedTuple):
    """The outcome. `remarks` are no findings: savepoints that were restored or left out, what is past its retention."""

    chains: list[ChainSummary]
    findings: list[Finding]
    remarks: list[str]


class _Record(NamedTuple):
    """A record whose hash is right. `parent` is what its segment goes on from, None but for the first of a segment."""

    place: AuditPlace
    line: Line
    parent: SegmentEntry | None


_decode_place: Final = msgspec.json.Decoder(AuditPlace).decode
_decode_segment: Final = msgspec.json.Decoder(SegmentEntry).decode
_decode_head: Final = msgspec.json.Decoder(SignedHead).decode


def verify(
    lines: Iterable[Line],
    heads: Iterable[Line],
    public_keys: Sequence[bytes],
    kept_since_ms: int,
    settled_ms: int | None = None,
) -> Verification:
    """Verify the records `lines` against each other and against the signed `heads`, from wherever those were kept.

    `public_keys` are those that signatures are accepted of. What is older than `kept_since_ms` may be past its
    retention; a beginning that is missing is a finding only where it should still be there. What was recorded after
    `settled_ms` may still be signed: a job that was away has not yet had the time.
    """
    found = Verification([], [], [])
    buckets: dict[int, list[_Record]] = defaultdict(list)
    for line in lines:
        record = _read(line, found)
        if record is not None:
            buckets[record.place.bucket].append(record)
    signed = _signed(heads, public_keys, found)
    for bucket in sorted(buckets.keys() | signed.keys()):
        _verify_bucket(bucket, buckets[bucket], signed.get(bucket, []), kept_since_ms, settled_ms, found)
    return found


def _read(line: Line, found: Verification) -> _Record | None:
    """The record, if it is one and its bytes are those that were hashed."""
    try:
        place = _decode_place(line.raw)
        parent = _decode_segment(line.raw) if place.kind == "segment" else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        found.findings.append(Finding(-1, -1, f"changed: {line.where} is not a record of the trail"))
        return None
    body, mark, rest = line.raw.rpartition(_HASH_MARK)
    if not mark or rest != b'%b"}' % place.hash.encode() or record_hash(body) != place.hash:
        text = f"changed: its content is not what was recorded ({line.where})"
        found.findings.append(Finding(place.bucket, place.seq, text))
        return None
    return _Record(place, line, parent)


def _signed(heads: Iterable[Line], public_keys: Sequence[bytes], found: Verification) -> dict[int, list[SignedHead]]:
    """The heads with a valid signature, by bucket."""
    keys = {key_id(public): Ed25519PublicKey.from_public_bytes(public) for public in public_keys}
    signed: dict[int, list[SignedHead]] = defaultdict(list)
    for line in heads:
        try:
            head = _decode_head(line.raw)
            message = head_message(head.bucket, head.epoch, head.seq, head.hash, head.at)
            keys[head.key].verify(bytes.fromhex(head.signature), message)
        except (msgspec.DecodeError, UnicodeDecodeError):
            found.findings.append(Finding(-1, -1, f"changed: a signed head cannot be read ({line.where})"))
        except KeyError:
            text = f"a head is signed with the key {head.key}, which is not one of those given ({line.where})"
            found.findings.append(Finding(head.bucket, head.seq, text))
        except (InvalidSignature, ValueError):
            text = f"changed: the signature of a head does not fit it ({line.where})"
            found.findings.append(Finding(head.bucket, head.seq, text))
        else:
            signed[head.bucket].append(head)
    return signed


def _verify_bucket(
    bucket: int,
    records: list[_Record],
    signed: list[SignedHead],
    kept_since_ms: int,
    settled_ms: int | None,
    found: Verification,
) -> None:
    """One chain: each segment by itself, then how segments hang together, then what was signed."""

    def complain(seq: int, text: str) -> None:
        found.findings.append(Finding(bucket, seq, text))

    _check_order(records, complain)
    segments: dict[int, dict[int, _Record]] = defaultdict(dict)
    for record in records:
        known = segments[record.place.epoch].setdefault(record.place.seq, record)
        if known is not record:
            complain(record.place.seq, f"stands twice: {known.line.where} and {record.line.where}")
    for epoch in sorted(segments):
        _check_segment(epoch, segments, kept_since_ms, complain, found)
    _check_heads(signed, segments, kept_since_ms, complain)
    held = [head for head in signed if _holds(segments.get(head.epoch, {}), head.seq, head.hash)]
    last_signed_at = max((segments[head.epoch][head.seq].place.at for head in held), default=-1)
    _check_signed(records, last_signed_at, kept_since_ms, settled_ms, complain)
    numbers = [record.place.seq for record in records] or [-1]
    signed_seq = max((head.seq for head in held), default=-1)
    found.chains.append(ChainSummary(bucket, len(segments), len(records), min(numbers), max(numbers), signed_seq))


def _check_order(records: Sequence[_Record], complain: Complain) -> None:
    """Within a partition the records of a segment stand in the order in which they were written."""
    last: dict[tuple[int, int], _Record] = {}
    for record in sorted(records, key=lambda each: (each.line.partition, each.line.offset)):
        key = record.line.partition, record.place.epoch
        before = last.get(key)
        if before is not None and before.place.seq > record.place.seq:
            complain(record.place.seq, f"reordered: {record.line.where} stands behind record {before.place.seq}")
        last[key] = record


def _check_segment(
    epoch: int,
    segments: Mapping[int, Mapping[int, _Record]],
    kept_since_ms: int,
    complain: Complain,
    found: Verification,
) -> None:
    records = segments[epoch]
    numbers = sorted(records)
    first = records[numbers[0]]
    if first.parent is not None:
        _check_parent(first, segments, kept_since_ms, complain, found)
    elif first.place.at > kept_since_ms + QUIET_MAX_MS or epoch != min(segments):
        complain(first.place.seq, f"missing: the records of segment {epoch} before it, which should still be kept")
    else:
        found.remarks.append(
            f"bucket {first.place.bucket}: what came before record {first.place.seq} is past its retention"
        )
    for before, after in itertools.pairwise(numbers):
        if after != before + 1:
            missing = f"record {before + 1}" if after == before + 2 else f"records {before + 1} to {after - 1}"
            complain(before + 1, f"missing: {missing} of segment {epoch}")
        elif records[after].place.prev != records[before].place.hash:
            complain(after, f"changed: it does not follow record {before} ({records[after].line.where})")
        elif records[after].parent is not None:
            complain(after, f"changed: a second beginning of segment {epoch} ({records[after].line.where})")


def _check_parent(
    first: _Record,
    segments: Mapping[int, Mapping[int, _Record]],
    kept_since_ms: int,
    complain: Complain,
    found: Verification,
) -> None:
    """A segment goes on from a record of an earlier one: not its last, where an older savepoint was restored."""
    place, parent = first.place, first.parent
    assert parent is not None
    if (parent.parent, parent.parent_seq) == ("", -1):
        if place.seq != 0:
            complain(place.seq, f"changed: the first segment begins at {place.seq} ({first.line.where})")
        elif place.epoch != min(segments):
            text = "begins anew: the job was started without the state of the one before"
            found.remarks.append(f"bucket {place.bucket}: segment {place.epoch} {text}")
        return
    if place.prev != parent.parent or place.seq != parent.parent_seq + 1:
        complain(place.seq, f"changed: it does not follow the parent that it names ({first.line.where})")
        return
    origin = _origin(first, segments)
    if origin is not None:
        if given_up := _given_up(place.epoch, segments):
            found.remarks.append(
                f"bucket {place.bucket}: segment {place.epoch} goes on from record {parent.parent_seq} of segment "
                f"{origin}; an older savepoint was restored, and the {given_up} records behind it were given up"
            )
    elif place.at > kept_since_ms + QUIET_MAX_MS:
        complain(parent.parent_seq, f"missing: the record from which segment {place.epoch} goes on")


def _origin(first: _Record, segments: Mapping[int, Mapping[int, _Record]]) -> int | None:
    """The segment with the record from which that of `first` goes on."""
    parent = first.parent
    if parent is None:
        return None
    earlier = (epoch for epoch in segments if epoch < first.place.epoch)
    return next((epoch for epoch in earlier if _holds(segments[epoch], parent.parent_seq, parent.parent)), None)


def _given_up(epoch: int, segments: Mapping[int, Mapping[int, _Record]]) -> int:
    """How many records the job before had written, or built upon, that segment `epoch` does not build upon."""
    kept = _built_upon(epoch, segments)
    before = _built_upon(max(other for other in segments if other < epoch), segments)
    return sum(kept.get(other, -1) < seq <= last for other, last in before.items() for seq in segments[other])


def _built_upon(epoch: int, segments: Mapping[int, Mapping[int, _Record]]) -> dict[int, int]:
    """The segments that lead to `epoch`, itself included, each with its last record that does."""
    last = {epoch: max(segments[epoch])}
    while True:
        first = segments[epoch][min(segments[epoch])]
        origin = _origin(first, segments)
        if origin is None or first.parent is None:
            return last
        last[origin], epoch = first.parent.parent_seq, origin


def _check_heads(
    signed: Sequence[SignedHead],
    segments: Mapping[int, Mapping[int, _Record]],
    kept_since_ms: int,
    complain: Complain,
) -> None:
    """Every head is that of a record which is there, or past its retention; of many that are not, the last is told."""
    ends: dict[int, SignedHead] = {}
    beginnings: dict[int, SignedHead] = {}
    for head in sorted(signed, key=lambda each: each.seq):
        records = segments.get(head.epoch, {})
        known = records.get(head.seq)
        if known is not None:
            if known.place.hash != head.hash:
                complain(head.seq, f"changed: a head signed at {head.at} says otherwise ({known.line.where})")
        elif records and head.seq > max(records):
            ends[head.epoch] = head
        elif head.seq < min(records, default=head.seq + 1) and head.at > kept_since_ms + HEAD_LAG_MAX_MS:
            beginnings[head.epoch] = head
    for head in ends.values():
        text = f"missing: the end of segment {head.epoch} up to this record, which was signed at {head.at}"
        complain(head.seq, text)
    for head in beginnings.values():
        text = (
            f"missing: segment {head.epoch} up to this record, which was signed at {head.at} and should still be kept"
        )
        complain(head.seq, text)


def _check_signed(
    records: Sequence[_Record], last_signed_at: int, kept_since_ms: int, settled_ms: int | None, complain: Complain
) -> None:
    """A few records at the end of a run are never signed; what was recorded for longer is."""
    since = max(last_signed_at, kept_since_ms)
    places = [record.place for record in records if since < record.place.at]
    unsigned = sorted((place.at, place.seq) for place in places if settled_ms is None or place.at <= settled_ms)
    if unsigned and unsigned[-1][0] - unsigned[0][0] > UNSIGNED_MAX_MS:
        complain(unsigned[0][1], f"unsigned: no signed head has this record, nor any of the {len(unsigned)} from it on")


def _holds(records: Mapping[int, _Record], seq: int, hash: str) -> bool:
    return seq in records and records[seq].place.hash == hash
