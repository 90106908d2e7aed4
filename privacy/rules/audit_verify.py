"""Verifying an audit trail: every record that was changed, is missing, stands twice, was put in or is out of place is
named, and every record that no signature vouches for is told (:mod:`privacy.rules.audit_proof`).

What is proved: that the job wrote each record up to the last one that is signed, in this order and in this topic. What
cannot be: the records of the last interval, which are told as not proved and count for nothing in reports; and that the
last signed records were not dropped together with their heads while no job ran. That is why heads are kept outside of
the topics, too; a job that goes on later names the record that it continues from.

Somebody who can write to the topics and cannot sign can make findings, and nothing else. A beginning that is missing is
no finding where it may be past its retention, unless a head was signed of it later: the age of a record that is gone is
known from nothing else.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from privacy.rules.audit_proof import Chain, Line, LinkedRecord, Signatures, Trust, read_head, read_record
from schemas.audit import AuditPlace, SignedHead
from schemas.topics import DAY_MS, HOUR_MS, MINUTE_MS

Complain = Callable[[int, str], None]
Segments = Mapping[int, Mapping[int, LinkedRecord]]
UNSIGNED_MAX_MS: Final = 2 * HOUR_MS
"""So long a job records at the most without a signed head where its interval is not known: it has an hour at most."""
SIGNING_LAG_MAX_MS: Final = MINUTE_MS
"""How much later than after its interval a busy job may sign a head."""
SETTLED_MS: Final = 15 * MINUTE_MS
"""A job that was away may need so long to sign what it had recorded."""
QUIET_MAX_MS: Final = 30 * DAY_MS
"""How long a bucket may record nothing. The first record that is kept may be so much younger than the retention while
the one before it is past it."""
HEAD_LAG_MAX_MS: Final = DAY_MS
"""How much younger than its record a head may be: no more than `audit.heads_every_ms`, and the broker's clock."""


class Finding(NamedTuple):
    """Something that is wrong, of `bucket` (-1 where it cannot be told) and its record `seq` (-1 likewise)."""

    bucket: int
    seq: int
    text: str


class ChainSummary(NamedTuple):
    """What was found of a bucket's chain; `signed_seq` is the last record that a valid signature vouches for."""

    bucket: int
    segments: int
    records: int
    first_seq: int
    last_seq: int
    signed_seq: int


class Verification(NamedTuple):
    """The outcome. `remarks` are no findings: savepoints that were restored or left out, what is past its retention.

    `unproved` are the lines, by partition and offset, that nothing signed vouches for; `ends` are the last offsets that
    were verified, by partition.
    """

    chains: list[ChainSummary]
    findings: list[Finding]
    remarks: list[str]
    unproved: frozenset[tuple[int, int]] = frozenset()
    ends: Mapping[int, int] = {}

    def vouches_for(self, partition: int, offset: int) -> bool:
        """Whether the job surely wrote what stands there: no report counts anything else."""
        return offset <= self.ends.get(partition, -1) and (partition, offset) not in self.unproved


class Times(NamedTuple):
    """What is older than `kept_since_ms` may be past its retention. It is `now_ms`; None: as late as can be."""

    kept_since_ms: int
    now_ms: int | None = None

    def is_settled(self, at_ms: int) -> bool:
        """Whether what was recorded then has been signed, if it ever is. Nothing honest is of the future."""
        return self.now_ms is None or not self.now_ms - SETTLED_MS < at_ms <= self.now_ms + SETTLED_MS


def verify(lines: Iterable[Line], heads: Iterable[Line], trust: Trust, times: Times) -> Verification:
    """Verify the records `lines` against each other and against the signed `heads`, from wherever those were kept."""
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
    life = _Life(alive, _young(chains.values(), times))
    for bucket, chain in chains.items():
        _Verifier(bucket, chain, times, life, found).verify(buckets[bucket], signed[bucket])
        unproved |= {(each.line.partition, each.line.offset) for each in buckets[bucket] if not chain.is_proved(each)}
        unproved |= {(copy.line.partition, copy.line.offset) for _, copy in chain.twice}
    return found._replace(unproved=frozenset(unproved), ends=ends)


class _Since(NamedTuple):
    """The first job that signed segments, and where the first of those begins, by partition."""

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
    """The beginnings of segments with a good signature. Those without any are judged by what builds upon them."""
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
    """The heads that are believed, by bucket.

    Releases that did not sign segments did not say of which trail a head is, either. Such heads vouch for what was
    written before the first signed segment, its epoch `signed_since`, and for nothing after it.
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
    """What is known from all buckets: when the job of each epoch last signed a head, and where in each partition the
    first proved record stands that is not past its retention."""

    alive: Mapping[int, int]
    young: Mapping[int, int]


def _young(chains: Iterable[Chain], times: Times) -> dict[int, int]:
    young: dict[int, int] = {}
    for record in itertools.chain.from_iterable(chain.proved() for chain in chains):
        partition, offset, _ = record.line
        if record.place.at > times.kept_since_ms + HOUR_MS:
            young[partition] = min(offset, young.get(partition, offset))
    return young


class _Verifier:
    """One chain: each segment by itself, how segments hang together, what was signed, and what was not."""

    def __init__(self, bucket: int, chain: Chain, times: Times, life: _Life, found: Verification) -> None:
        self._bucket, self._chain, self._times, self._life, self._found = bucket, chain, times, life, found
        self._segments = chain.segments()
        proved = {
            epoch: {seq: record for seq, record in records.items() if chain.is_proved(record)}
            for epoch, records in self._segments.items()
        }
        self._proved: Segments = {epoch: records for epoch, records in proved.items() if records}

    def complain(self, seq: int, text: str) -> None:
        """Something is wrong with the record `seq`."""
        self._found.findings.append(Finding(self._bucket, seq, text))

    def remark(self, text: str) -> None:
        """Something is to be known of the chain."""
        self._found.remarks.append(f"bucket {self._bucket}: {text}")

    def verify(self, records: Sequence[LinkedRecord], signed: Sequence[SignedHead]) -> None:
        """All of it."""
        self._check_order(records)
        self._check_twice()
        for epoch in self._segments:
            self._check_segment(epoch)
        _check_heads(signed, self._segments, self._times.kept_since_ms, self.complain)
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
        """Within a partition the records of a segment stand in the order in which they were written, and nothing of an
        earlier segment stands behind the beginning of a later one."""
        last: dict[tuple[int, int], LinkedRecord] = {}
        newest: dict[int, LinkedRecord] = {}
        for record in sorted(records, key=lambda each: each.line[:2]):
            partition, epoch = record.line.partition, record.place.epoch
            before = last.get((partition, epoch))
            if before is not None and before.place.seq > record.place.seq:
                self.complain(
                    record.place.seq, f"reordered: {record.line.where} stands behind record {before.place.seq}"
                )
            last[partition, epoch] = record
            later = newest.get(partition)
            if later is not None and epoch < later.place.epoch:
                self.complain(
                    record.place.seq,
                    f"out of place: it is of segment {epoch} and stands behind the beginning of segment "
                    f"{later.place.epoch} ({record.line.where}): two jobs ran at once, or it was put in",
                )
            elif record.opening is not None and self._chain.is_proved(record):
                newest[partition] = record

    def _check_twice(self) -> None:
        for known, record in self._chain.twice:
            where = f"{known.line.where} and {record.line.where}"
            same = known.place.hash == record.place.hash
            if not same and self._chain.is_proved(known) and not self._chain.is_proved(record):
                self.complain(
                    record.place.seq, f"put in: what was signed is at {known.line.where}, not {record.line.where}"
                )
            else:
                self.complain(record.place.seq, f"stands twice: {where}")

    def _check_segment(self, epoch: int) -> None:
        records = self._segments[epoch]
        numbers = sorted(records)
        first = records[numbers[0]]
        if first.opening is not None:
            self._check_parent(first)
        elif first.place.at > self._times.kept_since_ms + QUIET_MAX_MS or epoch != min(self._proved, default=epoch):
            self.complain(
                first.place.seq, f"missing: the records of segment {epoch} before it, which should still be kept"
            )
        else:
            self.remark(f"what came before record {first.place.seq} is past its retention")
        for before, after in itertools.pairwise(numbers):
            if after != before + 1:
                missing = f"record {before + 1}" if after == before + 2 else f"records {before + 1} to {after - 1}"
                self.complain(before + 1, f"missing: {missing} of segment {epoch}")
            elif records[after].place.prev != records[before].place.hash:
                self.complain(after, f"changed: it does not follow record {before} ({records[after].line.where})")
            elif records[after].opening is not None:
                self.complain(after, f"changed: a second beginning of segment {epoch} ({records[after].line.where})")

    def _check_parent(self, first: LinkedRecord) -> None:
        """A segment continues from a record of an earlier one: not its last, where an older savepoint was restored.

        Nothing of a segment that nobody signed is explained, whatever it says of itself.
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
        if origin is None:
            if place.at > self._times.kept_since_ms + QUIET_MAX_MS:
                text = f"missing: the record from which segment {place.epoch} goes on"
                self.complain(opening.parent_seq, text)
        elif is_proved and (given_up := _given_up(place.epoch, self._proved)):
            self.remark(
                f"segment {place.epoch} continues from record {opening.parent_seq} of segment {origin}; an older "
                f"savepoint was restored, and the {given_up} records behind it were given up"
            )

    def _check_proof(self, epoch: int) -> None:
        """What nobody signed is told: as a finding, but where it may be what the last interval of a job has left."""
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
            self.remark(f"not proved: {what} of segment {epoch} from {unproved[0].place.seq} on, which nobody signed")

    def _complaint_about(
        self, unproved: Sequence[LinkedRecord], last: LinkedRecord | None, first: LinkedRecord
    ) -> str | None:
        """What is wrong with the unproved records of a segment, whose `last` proved record is given."""
        many = f"the {len(unproved)} from it on"
        if last is not None and last.place.seq < unproved[0].place.seq:
            return self._complaint_about_end(unproved, last, first, many)
        if all(map(self._may_have_outlived_its_head, unproved)):
            return None
        if last is None and first.opening is not None and not first.opening.signature:
            return f"nobody who has the key has opened segment {first.place.epoch}, nor vouches for any of {many}"
        return f"no signed head has this record, nor any of {many}"

    def _complaint_about_end(
        self, unproved: Sequence[LinkedRecord], last: LinkedRecord, first: LinkedRecord, many: str
    ) -> str | None:
        """A job that ends leaves what it recorded since it last signed: of one interval, and at the end of all."""
        epoch = last.place.epoch
        if any(_continues(each[min(each)], last) for each in self._proved.values()):
            return (
                f"the job after segment {epoch} went on from record {last.place.seq}, and nobody signed any of {many}: "
                "they were put in, or a savepoint was restored that was only seconds older"
            )
        if min(each.place.at for each in unproved) < last.place.at - SIGNING_LAG_MAX_MS:
            return f"it is dated before the last record that was signed, and nobody signed any of {many}"
        times = [each.place.at for each in unproved if each.place.at > self._times.kept_since_ms]
        settled = [at for at in times if self._times.is_settled(at)]
        unsigned_ms = _unsigned_max_ms(first, self._chain)
        if settled and max(*settled, self._life.alive.get(epoch, 0)) - min(settled) > unsigned_ms:
            return f"no signed head has this record, nor any of {many}"
        return None

    def _may_have_outlived_its_head(self, record: LinkedRecord) -> bool:
        """Kafka deletes both topics in portions. What is past its retention stands before all that is not."""
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
    """The segment with the record from which that of `first` goes on."""
    opening = first.opening
    if opening is None:
        return None
    earlier = (epoch for epoch in segments if epoch < first.place.epoch)
    return next((epoch for epoch in earlier if _holds(segments[epoch], opening.parent_seq, opening.parent)), None)


def _given_up(epoch: int, segments: Segments) -> int:
    """How many records the job before had written, or built upon, that segment `epoch` does not build upon."""
    kept = _built_upon(epoch, segments)
    before = _built_upon(max(other for other in segments if other < epoch), segments)
    return sum(kept.get(other, -1) < seq <= last for other, last in before.items() for seq in segments[other])


def _built_upon(epoch: int, segments: Segments) -> dict[int, int]:
    """The segments that lead to `epoch`, itself included, each with its last record that does."""
    last = {epoch: max(segments[epoch])}
    while True:
        first = segments[epoch][min(segments[epoch])]
        origin = _origin(first, segments)
        if origin is None or first.opening is None:
            return last
        last[origin], epoch = first.opening.parent_seq, origin


def _check_heads(signed: Sequence[SignedHead], segments: Segments, kept_since_ms: int, complain: Complain) -> None:
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


def _holds(records: Mapping[int, LinkedRecord], seq: int, hash: str) -> bool:
    return seq in records and records[seq].place.hash == hash
