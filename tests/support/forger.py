"""An attacker who can write to the audit topics but has no signing key, and the honest trail.

The forger can do more than Kafka allows: insert, remove and move records anywhere, while the topic
keeps its id. The forger cannot sign, but may copy other trails that were signed with the same key.
"""

import hashlib
import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple

from schemas.audit import AuditEntry, ConsentEntry, WithdrawalEntry
from tests.support.trails import HEADS_EVERY, TRAIL, an_author
from tests.support.vocabulary import BEGINNING, MINUTE, SECOND
from udfs.audit_chain import ChainHead, append, sign_head

BUCKETS = 3


class Topics(NamedTuple):
    """The contents of `audit` and `audit-heads`."""

    lines: list[bytes]
    heads: list[bytes]


class Honest:
    """Consecutive jobs that write a trail as the operator does: heads each interval, snapshots, restores."""

    def __init__(self, chance: random.Random, trail: str = TRAIL) -> None:
        self.topics = Topics([], [])
        self.now = BEGINNING
        self._chance, self._trail = chance, trail
        self._ends = dict.fromkeys(range(BUCKETS), ChainHead())
        self._author = an_author(self.now, trail)
        self._snapshots: list[dict[int, ChainHead]] = []

    def live(self, jobs: int) -> None:
        """That many jobs, each from the snapshot at which the previous one stopped, an older one, or none."""
        for job in range(jobs):
            if job:
                self._ends = dict(self._chance.choice([self._ends, self._ends, *self._older(), {}]) or self._nothing())
            self.now += self._chance.randrange(1, 3) * MINUTE
            self._author = an_author(self.now, self._trail)
            self._snapshots = []
            for _ in range(self._chance.randrange(1, 9)):
                self.step()

    def step(self) -> None:
        """Time passes, then a bucket records something; checkpoints complete in between."""
        self._pass(self._chance.randrange(25) * SECOND + 1)
        self.record(self._chance.randrange(BUCKETS))
        self._snapshots.append(dict(self._ends))

    def record(self, bucket: int) -> None:
        """Record one to three entries."""
        told = [an_entry(self._chance, self.now) for _ in range(self._chance.randrange(1, 4))]
        self._ends[bucket], records = append(self._ends[bucket], told, bucket, self._author, self.now)
        self.topics.lines.extend(records)

    def sign_all(self) -> None:
        """The interval ends."""
        self._pass(HEADS_EVERY)

    def _pass(self, ms: int) -> None:
        due, self.now = (self.now // HEADS_EVERY + 1) * HEADS_EVERY, self.now + ms
        if due > self.now:
            return
        for bucket, head in self._ends.items():
            if head.epoch == self._author.epoch and head.seq != head.signed_seq:
                self._ends[bucket], signed = sign_head(head, bucket, due, self._author)
                self.topics.heads.append(signed)

    def _nothing(self) -> dict[int, ChainHead]:
        return dict.fromkeys(range(BUCKETS), ChainHead())

    def _older(self) -> list[dict[int, ChainHead]]:
        """Snapshots that were not only seconds old when the job ended: a head covers what they lack."""
        return [
            held
            for held in self._snapshots
            if all(end == held[bucket] or end.signed_seq > held[bucket].seq for bucket, end in self._ends.items())
        ]


def an_entry(chance: random.Random, at: int, name: str = "p1.ada") -> AuditEntry:
    """A consent or a withdrawal."""
    place = at, 0, chance.randrange(1_000)
    return chance.choice([ConsentEntry(name, "full", ["personalise"], *place), WithdrawalEntry(name, *place)])


def fields(raw: bytes) -> dict[str, Any]:
    """The fields of a record."""
    found: dict[str, Any] = json.loads(raw)
    return found


def sealed(record: dict[str, Any]) -> bytes:
    """The record with a matching hash."""
    body = json.dumps({**record, "hash": ""}, separators=(",", ":")).encode().removesuffix(b',"hash":""}')
    return b'%b,"hash":"%b"}' % (body, hashlib.sha256(body).hexdigest().encode())


def a_record(place: dict[str, Any], prev: str, **more: Any) -> dict[str, Any]:
    """A forged consent; `place` has bucket, epoch, seq and at."""
    consent = {"pseudonym": "p1.eve", "level": "full", "purposes": ["personalise"]}
    named = {"kind": "consent", **{name: place[name] for name in ("bucket", "epoch", "seq", "at")}}
    return {**named, **consent, "consent_at": place["at"], "partition": 0, "offset": 7, **more, "prev": prev}


def forged_chain(first: dict[str, Any], prev: str, records: int) -> list[bytes]:
    """That many forged consents from the position of `first` on, each continuing the previous one."""
    lines = []
    for n in range(records):
        lines.append(sealed(a_record({**first, "seq": first["seq"] + n}, prev)))
        prev = fields(lines[-1])["hash"]
    return lines


def forged_segment(parent: dict[str, Any] | None, epoch: int, at: int, records: int, **more: Any) -> list[bytes]:
    """A segment of consents that continues from record `parent`, or from none; `more` is its signature."""
    hash, seq, bucket = (parent["hash"], parent["seq"], parent["bucket"]) if parent else ("", -1, 0)
    place = {"bucket": bucket, "epoch": epoch, "seq": seq + 1, "at": at}
    opening = sealed({"kind": "segment", **place, "parent": hash, "parent_seq": seq, **more, "prev": hash})
    return [opening, *forged_chain({**place, "seq": seq + 2}, fields(opening)["hash"], records)]


Move = Callable[[random.Random, Topics, Topics], Topics]
"""A forgery: chance, the topics as they stand, and those of another deployment that signs with the same key."""


def _put(chance: random.Random, lines: list[bytes], new: list[bytes]) -> list[bytes]:
    at = chance.choice([len(lines), len(lines), chance.randrange(len(lines) + 1)])
    return [*lines[:at], *new, *lines[at:]]


def add_segment(chance: random.Random, topics: Topics, other: Topics) -> Topics:
    """A segment of a job that never existed, unsigned or with another segment's signature."""
    known = [fields(raw) for raw in topics.lines]
    parent = chance.choice([*known, None])
    epoch = chance.choice([record["epoch"] for record in known]) + chance.choice([-1, 0, 1, 10 * MINUTE])
    borrowed = chance.choice([record for record in known if record["kind"] == "segment"])
    signed = {name: borrowed[name] for name in ("trail", "heads_every_ms", "key", "signature") if name in borrowed}
    at = chance.choice(known)["at"] + chance.randrange(-MINUTE, MINUTE)
    new = forged_segment(parent, epoch, at, chance.randrange(3), **chance.choice([{}, signed]))
    return topics._replace(lines=_put(chance, topics.lines, new))


def go_on(chance: random.Random, topics: Topics, other: Topics) -> Topics:
    """Consents after an existing record, as if its job had continued there."""
    before = fields(chance.choice([topics.lines[-1], chance.choice(topics.lines)]))
    at = before["at"] + chance.choice([0, SECOND, -MINUTE * 2, MINUTE, 10 * MINUTE])
    new = forged_chain({**before, "seq": before["seq"] + 1, "at": at}, before["hash"], chance.randrange(1, 4))
    return topics._replace(lines=_put(chance, topics.lines, new))


def replay(chance: random.Random, topics: Topics, other: Topics) -> Topics:
    """Existing records, repeated."""
    start = chance.randrange(len(topics.lines))
    return topics._replace(lines=_put(chance, topics.lines, topics.lines[start : start + chance.randrange(1, 5)]))


def splice(chance: random.Random, topics: Topics, other: Topics) -> Topics:
    """What another deployment has signed, with heads, unchanged or renumbered to fit this one."""
    start = chance.randrange(len(other.lines))
    lines = other.lines[start:] if chance.random() < 0.5 else other.lines
    heads = [*topics.heads, *other.heads] if chance.random() < 0.7 else topics.heads
    return Topics(_put(chance, topics.lines, lines), heads)


def take_out(chance: random.Random, topics: Topics, other: Topics) -> Topics:
    """Remove a beginning, an end or a middle part, and some, all or none of the heads."""
    start, end = sorted(chance.randrange(len(topics.lines) + 1) for _ in range(2))
    start, end = chance.choice([(0, end), (start, len(topics.lines)), (start, end), (start, start + 1)])
    heads = chance.choice([topics.heads, [], topics.heads[: chance.randrange(len(topics.heads) + 1)]])
    return Topics(topics.lines[:start] + topics.lines[end:], heads)


def swap(chance: random.Random, topics: Topics, other: Topics) -> Topics:
    """Swap two records."""
    lines = [*topics.lines]
    one, two = chance.randrange(len(lines)), chance.randrange(len(lines))
    lines[one], lines[two] = lines[two], lines[one]
    return topics._replace(lines=lines)


def alter(chance: random.Random, topics: Topics, other: Topics) -> Topics:
    """Change a record, and recompute its hash and those after it in its segment."""
    at = chance.randrange(len(topics.lines))
    changed = {**fields(topics.lines[at]), chance.choice(["at", "consent_at", "epoch", "bucket", "seq"]): 1}
    lines, key = [*topics.lines], (fields(topics.lines[at])["bucket"], fields(topics.lines[at])["epoch"])
    lines[at] = sealed({name: value for name, value in changed.items() if name != "hash"})
    if chance.random() < 0.5:
        previous = fields(lines[at])["hash"]
        for n in range(at + 1, len(lines)):
            record = fields(lines[n])
            if (record["bucket"], record["epoch"]) == key:
                del record["hash"]
                lines[n] = sealed({**record, "prev": previous})
                previous = fields(lines[n])["hash"]
    return topics._replace(lines=lines)


def blur(chance: random.Random, topics: Topics, other: Topics) -> Topics:
    """Flip one bit of a record or a head."""
    lines, heads = [*topics.lines], [*topics.heads]
    among = chance.choice([lines, heads or lines])
    at = chance.randrange(len(among))
    raw = bytearray(among[at])
    raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(7)
    among[at] = bytes(raw)
    return Topics(lines, heads)


def downgrade(chance: random.Random, topics: Topics, other: Topics) -> Topics:
    """All segments as written by a release without signatures, with a change; the heads are removed."""
    lines, previous = [], dict[tuple[int, int], str]()
    hashes: dict[str, str] = {"": ""}
    for raw in topics.lines:
        record = fields(raw)
        own, key = record.pop("hash"), (record["bucket"], record["epoch"])
        if record["kind"] == "segment":
            for name in ("trail", "heads_every_ms", "key", "signature"):
                del record[name]
            record["parent"] = record["prev"] = hashes.get(record["parent"], "")
        else:
            record["prev"] = previous.get(key, "")
            record["pseudonym"] = "p1.eve"
        lines.append(sealed(record))
        hashes[own] = previous[key] = fields(lines[-1])["hash"]
    return Topics(lines, [])


MOVES: tuple[Move, ...] = (add_segment, go_on, replay, splice, take_out, swap, alter, blur, downgrade)
