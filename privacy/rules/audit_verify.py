"""Verifies an audit trail: reports every record that was changed, removed, duplicated, inserted or moved.

It also reports records that no signature covers (:mod:`privacy.rules.audit_proof`).

It proves that the job wrote each record up to the last signed one, in this order and in this topic. It cannot prove
the records of the last interval: these are reported as not proved, and do not count in reports. Nor can it prove that
the last signed records were not dropped together with their heads while no job ran. That is why heads are also saved
outside the topics; and a job that continues later names the record that it continues from.

Somebody who can write to the topics and cannot sign can cause findings, and nothing else. A missing beginning is no
finding if it may be past its retention, unless a later head covers it: nothing else reveals a deleted record's age.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from privacy.rules.audit_proof import (
    AbortedRecords,
    Chain,
    Line,
    LinkedRecord,
    Signatures,
    Trust,
    read_head,
    read_record,
)
from schemas.audit import AuditPlace, SegmentEntry, SignedHead
from schemas.topics import DAY_MS, HOUR_MS, MINUTE_MS

Complain = Callable[[int, str], None]
Segments = Mapping[int, Mapping[int, LinkedRecord]]
UNSIGNED_MAX_MS: Final = 2 * HOUR_MS
"""How long, at most, a job records without a signed head if its interval is unknown (it is at most an hour)."""
SIGNING_LAG_MAX_MS: Final = MINUTE_MS
"""How long after its interval a busy job may sign a head."""
SETTLED_MS: Final = 15 * MINUTE_MS
"""How long a job may need, after a downtime, to sign what it had recorded."""
QUIET_MAX_MS: Final = 30 * DAY_MS
"""How long a bucket may record nothing. The first kept record may be this much younger than the retention although the
one before it is past it."""
HEAD_LAG_MAX_MS: Final = DAY_MS
"""How much younger than its record a head may be: `audit.heads_every_ms` plus differences of clocks, at most."""


class Finding(NamedTuple):
    """A problem of `bucket` at its record `seq`; -1 where unknown."""

    bucket: int
    seq: int
    text: str


class ChainSummary(NamedTuple):
    """A bucket's chain; `signed_seq` is the last record that a valid signature covers."""

    bucket: int
    segments: int
    records: int
    first_seq: int
    last_seq: int
    signed_seq: int


class Verification(NamedTuple):
    """The outcome. `remarks` are not findings: restored or abandoned savepoints, and what is past its retention.

    `unproved` are the lines, by partition and offset, that no signature covers; `ends` are the last verified offsets,
    by partition.
    """

    chains: list[ChainSummary]
    findings: list[Finding]
    remarks: list[str]
    unproved: frozenset[tuple[int, int]] = frozenset()
    ends: Mapping[int, int] = {}

    def is_proved(self, partition: int, offset: int) -> bool:
        """Whether the job provably wrote this record: reports count nothing else."""
        return offset <= self.ends.get(partition, -1) and (partition, offset) not in self.unproved


class Times(NamedTuple):
    """Records before `kept_since_ms` may be past their retention.

    `now_ms` is the current time; None: as late as possible.
    """

    kept_since_ms: int
    now_ms: int | None = None

    def is_settled(self, at_ms: int) -> bool:
        """Whether records of that time have been signed, if ever. Valid records are never from the future."""
        return self.now_ms is None or not self.now_ms - SETTLED_MS < at_ms <= self.now_ms + SETTLED_MS


def verify(
    lines: Iterable[Line], heads: Iterable[Line], trust: Trust, times: Times, aborted: Iterable[Line] = ()
) -> Verification:
    """Verify the records `lines` against each other and against the signed `heads`, wherever those were saved.

    Findings say so if records of `aborted` transactions explain what is missing.
    """
    found, unproved, ends = Verification([], [], []), set[tuple[int, int]](), dict[int, int]()
    buckets: dict[int, list[LinkedRecord]] = defaultdict(list)
    for line in lines:
        ends[line.partition] = max(line.offset, ends.get(line.partition, -1))
        record = _read(line, found)
        if record is None:
            unproved.add((line.partition, line.offset))
        else:
            buckets[record.place.bucket].append(record)
    signatures = Signatures(trust)
    opened = {bucket: _opened(records, signatures, found) for bucket, records in buckets.items()}
    since = _since([*itertools.chain.from_iterable(opened.values())])
    signed = _signed(heads, signatures, since.epoch, found)
    alive = _last_signed(itertools.chain.from_iterable(signed.values()))
    chains = {bucket: Chain(buckets[bucket]) for bucket in sorted(buckets.keys() | signed.keys())}
    for bucket, chain in chains.items():
        for opening in opened.get(bucket, []):
            chain.prove_opening(opening)
        for head in signed[bucket]:
            chain.prove_head(head, since.offsets)
    life = _Life(alive, _young(chains.values(), times), AbortedRecords(aborted), chains)
    for bucket, chain in chains.items():
        _Verifier(bucket, chain, times, life, found).verify(buckets[bucket], signed[bucket])
        unproved |= {(each.line.partition, each.line.offset) for each in buckets[bucket] if not chain.is_proved(each)}
        unproved |= {(copy.line.partition, copy.line.offset) for _, copy in chain.twice}
    return found._replace(unproved=frozenset(unproved), ends=ends)


class _Since(NamedTuple):
    """The first job that signed segments, and where its first ones begin, by partition."""

    epoch: int | None
    offsets: Mapping[int, int]


def _since(openings: Sequence[LinkedRecord]) -> _Since:
    offsets: dict[int, int] = {}
    for record in openings:
        line = record.line
        offsets[line.partition] = min(line.offset, offsets.get(line.partition, line.offset))
    return _Since(min((record.place.epoch for record in openings), default=None), offsets)


def _last_signed(heads: Iterable[SignedHead]) -> dict[int, int]:
    """When the job of each epoch last signed a head."""
    alive: dict[int, int] = {}
    for head in heads:
        alive[head.epoch] = max(head.at, alive.get(head.epoch, head.at))
    return alive


def _read(line: Line, found: Verification) -> LinkedRecord | None:
    """The record, if it is one and its bytes are those that were hashed."""
    record = read_record(line)
    if record is None:
        found.findings.append(Finding(-1, -1, f"changed: {line.where} is not a record of the trail"))
    elif isinstance(record, AuditPlace):
        text = f"changed: its content is not what was recorded ({line.where})"
        found.findings.append(Finding(record.bucket, record.seq, text))
    else:
        return record
    return None


def _opened(records: Iterable[LinkedRecord], signatures: Signatures, found: Verification) -> list[LinkedRecord]:
    """The beginnings of segments with valid signatures. Those without one are judged by what builds on them."""
    opened = []
    for record in records:
        if record.opening is None or not record.opening.signature:
            continue
        complaint = signatures.complaint_about_opening(record)
        if complaint is None:
            opened.append(record)
        else:
            place = record.place
            found.findings.append(Finding(place.bucket, place.seq, f"{complaint} ({record.line.where})"))
    return opened


def _signed(
    heads: Iterable[Line], signatures: Signatures, signed_since: int | None, found: Verification
) -> dict[int, list[SignedHead]]:
    """The trusted heads, by bucket.

    Releases that did not sign segments did not include the trail in heads, either. Such heads prove what was written
    before the first signed segment, whose epoch is `signed_since`, and nothing after it.
    """
    signed: dict[int, list[SignedHead]] = defaultdict(list)
    for line in heads:
        head = read_head(line)
        if head is None:
            found.findings.append(Finding(-1, -1, f"changed: a signed head cannot be read ({line.where})"))
            continue
        complaint = signatures.complaint_about_head(head)
        if complaint is None and not head.trail and signed_since is not None and head.epoch >= signed_since:
            complaint = "a head does not say of which trail it is, and the release that wrote its segment does"
        if complaint is None:
            signed[head.bucket].append(head)
        else:
            found.findings.append(Finding(head.bucket, head.seq, f"{complaint} ({line.where})"))
    return signed


class _Life(NamedTuple):
    """Facts from all buckets.

    `alive`: when each epoch's job last signed a head. `young`: by partition, the offset of the first proved record that
    is not past its retention. `aborted`: what Kafka aborted. `chains` are those of all buckets.
    """

    alive: Mapping[int, int]
    young: Mapping[int, int]
    aborted: AbortedRecords
    chains: Mapping[int, Chain]


def _young(chains: Iterable[Chain], times: Times) -> dict[int, int]:
    young: dict[int, int] = {}
    for record in itertools.chain.from_iterable(chain.proved() for chain in chains):
        partition, offset, _ = record.line
        if record.place.at > times.kept_since_ms + HOUR_MS:
            young[partition] = min(offset, young.get(partition, offset))
    return young


class _Verifier:
    """Verifies one chain: each segment, the links between segments, and signatures."""

    def __init__(self, bucket: int, chain: Chain, times: Times, life: _Life, found: Verification) -> None:
        self._bucket, self._chain, self._times, self._life, self._found = bucket, chain, times, life, found
        self._segments = chain.segments()
        proved = {
            epoch: {seq: record for seq, record in records.items() if chain.is_proved(record)}
            for epoch, records in self._segments.items()
        }
        self._proved: Segments = {epoch: records for epoch, records in proved.items() if records}

    def complain(self, seq: int, text: str) -> None:
        """Report a problem of the record `seq`."""
        self._found.findings.append(Finding(self._bucket, seq, text))

    def _complain_of_loss(self, seq: int, text: str, hash: str) -> None:
        """Report that the record `seq`, with this hash, is missing, and why if Kafka shows that."""
        self.complain(seq, text + self._life.aborted.explain(hash, self._chain))

    def remark(self, text: str) -> None:
        """Note something about the chain that is not a problem."""
        self._found.remarks.append(f"bucket {self._bucket}: {text}")

    def verify(self, records: Sequence[LinkedRecord], signed: Sequence[SignedHead]) -> None:
        """Run all checks."""
        self._check_order(records)
        self._check_duplicates()
        for epoch in self._segments:
            self._check_segment(epoch)
        _check_heads(signed, self._segments, self._times.kept_since_ms, self.complain, self._complain_of_loss)
        for epoch in self._segments:
            self._check_proof(epoch)
        numbers = [record.place.seq for record in records] or [-1]
        proved = [record.place.seq for record in records if self._chain.is_proved(record)]
        self._found.chains.append(
            ChainSummary(
                self._bucket, len(self._segments), len(records), min(numbers), max(numbers), max(proved, default=-1)
            )
        )

    def _check_order(self, records: Sequence[LinkedRecord]) -> None:
        """Check the order of each segment within a partition; none of it may follow a later segment's beginning."""
        last: dict[tuple[int, int], LinkedRecord] = {}
        newest: dict[int, LinkedRecord] = {}
        for record in sorted(records, key=lambda each: each.line[:2]):
            partition, epoch = record.line.partition, record.place.epoch
            before = last.get((partition, epoch))
            if before is not None and before.place.seq > record.place.seq:
                self.complain(record.place.seq, f"reordered: {record.line.where} follows record {before.place.seq}")
            last[partition, epoch] = record
            later = newest.get(partition)
            if later is not None and epoch < later.place.epoch:
                self.complain(
                    record.place.seq,
                    f"out of place: it belongs to segment {epoch} but follows the beginning of segment "
                    f"{later.place.epoch} ({record.line.where}): two jobs ran at once, or it was inserted",
                )
            elif record.opening is not None and self._chain.is_proved(record):
                newest[partition] = record

    def _check_duplicates(self) -> None:
        for known, record in self._chain.twice:
            where = f"{known.line.where} and {record.line.where}"
            same = known.place.hash == record.place.hash
            if not same and self._chain.is_proved(known) and not self._chain.is_proved(record):
                self.complain(
                    record.place.seq, f"inserted: the signed record is at {known.line.where}, not {record.line.where}"
                )
            else:
                self.complain(record.place.seq, f"appears twice: {where}")

    def _check_segment(self, epoch: int) -> None:
        records = self._segments[epoch]
        numbers = sorted(records)
        first = records[numbers[0]]
        if first.opening is not None:
            self._check_parent(first)
        elif first.place.at > self._times.kept_since_ms + QUIET_MAX_MS or epoch != min(self._proved, default=epoch):
            text = f"missing: the records of segment {epoch} before it, which should still be kept"
            self._complain_of_loss(first.place.seq, text, first.place.prev)
        else:
            self.remark(f"what came before record {first.place.seq} is past its retention")
        for before, after in itertools.pairwise(numbers):
            if after != before + 1:
                missing = f"record {before + 1}" if after == before + 2 else f"records {before + 1} to {after - 1}"
                self._complain_of_loss(before + 1, f"missing: {missing} of segment {epoch}", records[after].place.prev)
            elif records[after].place.prev != records[before].place.hash:
                self.complain(after, f"changed: it does not follow record {before} ({records[after].line.where})")
            elif records[after].opening is not None:
                self.complain(after, f"changed: a second beginning of segment {epoch} ({records[after].line.where})")

    def _check_parent(self, first: LinkedRecord) -> None:
        """A segment continues from a record of an earlier one: not its last, if an older savepoint was restored.

        An unsigned segment is not explained by what it says of itself.
        """
        place, opening = first.place, first.opening
        assert opening is not None
        is_proved = place.epoch in self._proved
        if (opening.parent, opening.parent_seq) == ("", -1):
            if place.seq != 0:
                self.complain(place.seq, f"changed: the first segment begins at {place.seq} ({first.line.where})")
            elif is_proved and place.epoch != min(self._proved):
                self.remark(
                    f"segment {place.epoch} begins anew: the job was started without the state of the one before"
                )
            return
        if place.prev != opening.parent or place.seq != opening.parent_seq + 1:
            self.complain(place.seq, f"changed: it does not follow the parent that it names ({first.line.where})")
            return
        origin = _origin(first, self._segments)
        if origin is None and is_proved and (bucket := self._other_chain(opening)) is not None:
            self.remark(
                f"segment {place.epoch} begins where the chain of bucket {bucket} was at record {opening.parent_seq}: "
                "the job was given another number of buckets"
            )
        elif origin is None:
            if place.at > self._times.kept_since_ms + QUIET_MAX_MS:
                text = f"missing: the record from which segment {place.epoch} goes on"
                self._complain_of_loss(opening.parent_seq, text, opening.parent)
        elif is_proved and (given_up := _count_abandoned(place.epoch, self._proved)):
            self.remark(
                f"segment {place.epoch} continues from record {opening.parent_seq} of segment {origin}; an older "
                f"savepoint was restored, and the {given_up} records behind it were given up"
            )

    def _other_chain(self, opening: SegmentEntry) -> int | None:
        """The bucket whose chain has the record that a segment continues from; None if no other chain has it."""
        others = ((bucket, chain) for bucket, chain in self._life.chains.items() if bucket != self._bucket)
        return next((bucket for bucket, chain in others if chain.has_proved(opening.parent, opening.parent_seq)), None)

    def _check_proof(self, epoch: int) -> None:
        """Report unsigned records: as a finding, unless they may be what a job recorded in its last interval."""
        chain, records = self._chain, self._segments[epoch]
        unproved = [records[seq] for seq in sorted(records) if not chain.is_proved(records[seq])]
        first = records[min(records)]
        if first.opening is not None and not first.opening.signature and chain.is_proved(first):
            self.remark(
                f"segment {epoch} was opened by a release that did not sign segments; what is signed builds upon it"
            )
        if not unproved:
            return
        last = max((seq for seq in records if chain.is_proved(records[seq])), default=-1)
        if complaint := self._complaint_about(unproved, records.get(last), first):
            self.complain(unproved[0].place.seq, f"unsigned: {complaint}")
        elif self._times.is_settled(unproved[-1].place.at):
            what = "record" if len(unproved) == 1 else f"{len(unproved)} records"
            self.remark(
                f"not proved: {what} of segment {epoch} from {unproved[0].place.seq} on, which no signature covers"
            )

    def _complaint_about(
        self, unproved: Sequence[LinkedRecord], last: LinkedRecord | None, first: LinkedRecord
    ) -> str | None:
        """What is wrong with a segment's unproved records; `last` is its last proved record."""
        many = f"the {len(unproved)} from it on"
        if last is not None and last.place.seq < unproved[0].place.seq:
            return self._complaint_about_end(unproved, last, first, many)
        if all(map(self._may_have_outlived_its_head, unproved)):
            return None
        if last is None and first.opening is not None and not first.opening.signature:
            return f"segment {first.place.epoch} was not opened with a valid signature, and none covers any of {many}"
        return f"no signed head has this record, nor any of {many}"

    def _complaint_about_end(
        self, unproved: Sequence[LinkedRecord], last: LinkedRecord, first: LinkedRecord, many: str
    ) -> str | None:
        """Whether unproved records at the end cannot be what a job recorded in its last interval."""
        epoch = last.place.epoch
        if any(_continues(each[min(each)], last) for each in self._proved.values()):
            return (
                f"the job after segment {epoch} continued from record {last.place.seq}, and no signature covers any "
                f"of {many}: they were inserted, or a savepoint was restored that was only seconds older"
            )
        if min(each.place.at for each in unproved) < last.place.at - SIGNING_LAG_MAX_MS:
            return f"it is dated before the last signed record, and no signature covers any of {many}"
        times = [each.place.at for each in unproved if each.place.at > self._times.kept_since_ms]
        settled = [at for at in times if self._times.is_settled(at)]
        unsigned_ms = _unsigned_max_ms(first, self._chain)
        if settled and max(*settled, self._life.alive.get(epoch, 0)) - min(settled) > unsigned_ms:
            return f"no signed head has this record, nor any of {many}"
        return None

    def _may_have_outlived_its_head(self, record: LinkedRecord) -> bool:
        """Kafka deletes both topics in portions. Records past their retention precede all others."""
        offset = self._life.young.get(record.line.partition, -1)
        return record.place.at <= self._times.kept_since_ms and record.line.offset < offset


def _unsigned_max_ms(first: LinkedRecord, chain: Chain) -> int:
    """For how long the job that began with `first` may have recorded without a head."""
    if first.opening is None or not first.opening.signature or not chain.is_proved(first):
        return UNSIGNED_MAX_MS
    return first.opening.heads_every_ms + SIGNING_LAG_MAX_MS


def _continues(first: LinkedRecord, record: LinkedRecord) -> bool:
    return first.opening is not None and first.place.prev == record.place.hash


def _origin(first: LinkedRecord, segments: Segments) -> int | None:
    """The segment whose record that of `first` continues from."""
    opening = first.opening
    if opening is None:
        return None
    earlier = (epoch for epoch in segments if epoch < first.place.epoch)
    return next((epoch for epoch in earlier if _holds(segments[epoch], opening.parent_seq, opening.parent)), None)


def _count_abandoned(epoch: int, segments: Segments) -> int:
    """How many records, written or inherited by the job before, segment `epoch` does not build on."""
    kept = _built_upon(epoch, segments)
    before = _built_upon(max(other for other in segments if other < epoch), segments)
    return sum(kept.get(other, -1) < seq <= last for other, last in before.items() for seq in segments[other])


def _built_upon(epoch: int, segments: Segments) -> dict[int, int]:
    """The segments that lead to `epoch`, including itself, each with the last record that does."""
    last = {epoch: max(segments[epoch])}
    while True:
        first = segments[epoch][min(segments[epoch])]
        origin = _origin(first, segments)
        if origin is None or first.opening is None:
            return last
        last[origin], epoch = first.opening.parent_seq, origin


def _check_heads(
    signed: Sequence[SignedHead],
    segments: Segments,
    kept_since_ms: int,
    complain: Complain,
    complain_of_loss: Callable[[int, str, str], None],
) -> None:
    """Every head's record must exist or be past its retention; of several missing ones, report the last."""
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
        complain_of_loss(head.seq, text, head.hash)
    for head in beginnings.values():
        text = (
            f"missing: segment {head.epoch} up to this record, which was signed at {head.at} and should still be kept"
        )
        complain_of_loss(head.seq, text, head.hash)


def _holds(records: Mapping[int, LinkedRecord], seq: int, hash: str) -> bool:
    return seq in records and records[seq].place.hash == hash
