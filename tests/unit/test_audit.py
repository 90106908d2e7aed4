"""The audit trail: changes, gaps, swaps and insertions are found and named; an untouched trail is clean."""

import hashlib
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.rules.audit_proof import Line, Trust
from privacy.rules.audit_verify import QUIET_MAX_MS, SETTLED_MS, SIGNING_LAG_MAX_MS, Times, Verification, verify
from schemas.audit import AuditEntry, DeniedEntry, ExpiryEntry, WithdrawalEntry
from schemas.errors import SchemaError
from schemas.signing import SigningKey
from schemas.topics import AUDIT, AUDIT_HEADS, TOPICS
from tests.support.examples import examples
from tests.support.trails import HEADS_EVERY, KEY, TRAIL, TRUST, an_author
from tests.support.vocabulary import BEGINNING, DAY, HOUR, SECOND
from udfs.audit_chain import (
    Book,
    ChainHead,
    append,
    decode_book,
    denied_entries,
    encode_book,
    note_denied,
    rename,
    sign_head,
)

pytestmark = pytest.mark.privacy

UNSIGNED_MAX_MS = HEADS_EVERY + SIGNING_LAG_MAX_MS
FOREIGN = SigningKey(bytes(32))
BEFORE_ALL = BEGINNING - 60 * DAY

entries = st.one_of(
    st.builds(
        WithdrawalEntry, st.sampled_from(["p1.ada", "p1.bob"]), st.just(BEGINNING), st.just(0), st.integers(0, 9)
    ),
    st.builds(DeniedEntry, st.integers(1, 9), st.just("not_allowed")),
    st.builds(ExpiryEntry, st.just("p1.cyd")),
)


class Trail(NamedTuple):
    """Records and heads as in the topics."""

    lines: list[bytes]
    heads: list[bytes]

    def verified(self, since: int = BEFORE_ALL, key: SigningKey = KEY) -> Verification:
        at = [Line(0, n, raw) for n, raw in enumerate(self.lines)]
        heads = [Line(1, n, raw) for n, raw in enumerate(self.heads)]
        return verify(at, heads, Trust([key.public], [TRAIL]), Times(since))


def written(buckets: int, runs: list[list[list[AuditEntry]]], restored: list[int] = []) -> Trail:  # noqa: B006
    """Each run is a job that signs its head after each batch. Run n starts at the head after run restored[n] - 1."""
    lines: list[bytes] = []
    heads: list[bytes] = []
    for bucket in range(buckets):
        head, after = ChainHead(), [ChainHead()]
        for run, batches in enumerate(runs):
            if run < len(restored):
                head = after[min(restored[run], len(after) - 1)]
            author = an_author(BEGINNING + run)
            for batch in batches:
                head, records = append(head, batch, bucket, author, BEGINNING + HOUR)
                lines += records
                if records:
                    head, signed = sign_head(head, bucket, BEGINNING + HOUR, author)
                    heads.append(signed)
            after.append(head)
    return Trail(lines, heads)


runs = st.lists(st.lists(st.lists(entries, min_size=1, max_size=3), min_size=1, max_size=3), min_size=1, max_size=3)
trails = st.builds(written, st.integers(1, 2), runs, st.lists(st.integers(0, 3), max_size=3))


@settings(max_examples=examples(40), deadline=None)
@given(trails)
def test_untouched_trail_has_no_findings(trail: Trail) -> None:
    result = trail.verified()
    assert result.findings == []
    assert all(chain.last_seq == chain.signed_seq for chain in result.chains if not result.remarks)


@settings(max_examples=examples(40), deadline=None)
@given(trails)
def test_records_are_linked_as_documented(trail: Trail) -> None:
    """A naive reader that uses only JSON and SHA-256."""
    last: dict[tuple[int, int], str] = {}
    for raw in trail.lines:
        record = json.loads(raw)
        place = record["bucket"], record["epoch"]
        assert hashlib.sha256(raw[: raw.rindex(b',"hash"')]).hexdigest() == record["hash"]
        assert record["prev"] == (record["parent"] if record["kind"] == "segment" else last[place])
        last[place] = record["hash"]


def named(result: Verification, seq: int) -> bool:
    return any(finding.seq == seq for finding in result.findings)


@settings(max_examples=examples(60), deadline=None)
@given(trails, st.randoms(use_true_random=False))
@pytest.mark.promise("audit-tamper")
def test_altered_record_is_found(trail: Trail, draw: random.Random) -> None:
    at = draw.randrange(len(trail.lines))
    raw = bytearray(trail.lines[at])
    raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(7)
    lines = [*trail.lines]
    lines[at] = bytes(raw)
    result = trail._replace(lines=lines).verified()
    assert any(f"offset {at}" in finding.text for finding in result.findings) or named(result, seq_of(trail, at))


def seq_of(trail: Trail, at: int) -> int:
    seq: int = json.loads(trail.lines[at])["seq"]
    return seq


@settings(max_examples=examples(60), deadline=None)
@given(trails, st.randoms(use_true_random=False))
@pytest.mark.promise("audit-tamper")
def test_dropped_record_is_found(trail: Trail, draw: random.Random) -> None:
    at = draw.randrange(len(trail.lines))
    result = trail._replace(lines=trail.lines[:at] + trail.lines[at + 1 :]).verified()
    assert named(result, seq_of(trail, at)) or named(result, seq_of(trail, at) + 1)


@settings(max_examples=examples(60), deadline=None)
@given(trails, st.randoms(use_true_random=False), st.booleans())
@pytest.mark.promise("audit-tamper")
def test_swapped_records_are_found(trail: Trail, draw: random.Random, with_their_numbers: bool) -> None:
    if len(trail.lines) < 2:
        return
    first, second = sorted(draw.sample(range(len(trail.lines)), 2))
    lines = [*trail.lines]
    lines[first], lines[second] = lines[second], lines[first]
    one, other = (json.loads(trail.lines[at]) for at in (first, second))
    if not with_their_numbers:
        # The two swap places, and all hashes are recomputed.
        lines[first] = _as(other, one)
        lines[second] = _as(one, other)
    elif (one["bucket"], one["epoch"]) != (other["bucket"], other["epoch"]):
        return  # records of different chains have no mutual order
    result = trail._replace(lines=lines).verified()
    touched = {one["seq"], other["seq"], one["seq"] + 1, other["seq"] + 1}
    if lines != trail.lines:
        assert touched & {finding.seq for finding in result.findings}


def _as(record: dict[str, object], place: dict[str, object]) -> bytes:
    """The content of `record` at `place`, with a matching hash."""
    moved = {**record, **{name: place[name] for name in ("bucket", "epoch", "seq", "prev")}}
    del moved["hash"]
    body = json.dumps(moved, separators=(",", ":")).encode()[:-1]
    return b'%b,"hash":"%b"}' % (body, hashlib.sha256(body).hexdigest().encode())


def rechained(lines: list[bytes], edit: Callable[[int, dict[str, Any]], None]) -> list[bytes]:
    """The records of an attacker who can write to the topic but not sign: all hashes match."""
    forged, previous = [], {}
    for n, raw in enumerate(lines):
        record = json.loads(raw)
        edit(n, record)
        place = record["bucket"], record["epoch"]
        record["prev"] = previous.get(place, record["prev"])
        del record["hash"]
        body = json.dumps(record, separators=(",", ":")).encode()[:-1]
        previous[place] = hashlib.sha256(body).hexdigest()
        forged.append(b'%b,"hash":"%b"}' % (body, previous[place].encode()))
    return forged


@settings(max_examples=examples(40), deadline=None)
@given(trails)
def test_rewritten_chain_contradicts_signed_heads(trail: Trail) -> None:
    forged = rechained(trail.lines, lambda n, record: record.update(at=record["at"] + (n == 0)))
    assert any("a head signed" in finding.text for finding in trail._replace(lines=forged).verified().findings)


FORGERIES: dict[str, tuple[Callable[[int, dict[str, Any]], None], str]] = {
    "a second beginning": (
        lambda n, record: record.update(kind="segment", parent="", parent_seq=-1) if n == 1 else None,
        "a second beginning",
    ),
    "a first segment that begins late": (lambda n, record: record.update(seq=record["seq"] + 5), "begins at 5"),
    "a segment that does not follow its parent": (
        lambda n, record: record.update(parent="ab" * 32, parent_seq=3) if n == 0 else None,
        "does not follow the parent that it names",
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_beginning_is_found_without_saved_heads(name: str) -> None:
    edit, text = FORGERIES[name]
    trail = written(1, [[[ExpiryEntry("p1.a"), ExpiryEntry("p1.b")]]])
    findings = Trail(rechained(trail.lines, edit), []).verified().findings
    assert any(text in finding.text for finding in findings)


def test_replaced_record_is_found_without_saved_heads() -> None:
    trail = written(1, [[[ExpiryEntry("p1.a"), ExpiryEntry("p1.b")]]])
    replaced = rechained(trail.lines[1:2], lambda n, record: record.update(pseudonym="p1.c"))
    [finding] = Trail([trail.lines[0], *replaced, trail.lines[2]], []).verified().findings
    assert finding.seq == 2 and "does not follow record 1" in finding.text


def test_bytes_after_the_hash_are_found() -> None:
    trail = written(1, [[[ExpiryEntry("p1.a")]]])
    longer = trail.lines[1][:-1] + b',"pseudonym":"p1.b"}'
    assert "its content is not what was recorded" in Trail([trail.lines[0], longer], []).verified().findings[0].text


def test_expired_beginning_does_not_excuse_later_segments() -> None:
    batch: list[AuditEntry] = [ExpiryEntry("p1.a")]
    trail = written(1, [[batch], [batch]])
    kept = [raw for raw in trail.lines if b'"segment"' not in raw or b'"seq":0' in raw]
    [finding] = Trail(kept, trail.heads).verified(since=BEGINNING + DAY).findings
    assert finding.seq == 3 and "should still be kept" in finding.text


def test_dropped_end_is_missing_up_to_last_signed_head() -> None:
    trail = written(1, [[[ExpiryEntry("p1.a")], [ExpiryEntry("p1.b")]]])
    [finding] = trail._replace(lines=trail.lines[:-1]).verified().findings
    assert finding.seq == 2 and "the end of segment" in finding.text
    assert trail._replace(lines=trail.lines[:-1], heads=trail.heads[:-1]).verified().findings == [], "what no head saw"


def test_deleted_trail_is_missing() -> None:
    trail = written(2, [[[ExpiryEntry("p1.a")]]])
    assert {finding.bucket for finding in trail._replace(lines=[]).verified().findings} == {0, 1}


def test_dropped_beginning_is_missing_unless_expired() -> None:
    trail = written(1, [[[ExpiryEntry("p1.a"), ExpiryEntry("p1.b")]]])
    cut = trail._replace(lines=trail.lines[1:])
    [finding] = cut.verified().findings
    assert "should still be kept" in finding.text
    later = cut.verified(since=BEGINNING + 2 * HOUR)
    assert later.findings == [] and "past its retention" in later.remarks[0]


def with_aborted(trail: Trail, aborted: list[bytes]) -> list[str]:
    """The findings where Kafka aborted these records of the trail."""
    lines = [Line(0, n, raw) for n, raw in enumerate(trail.lines) if raw not in aborted]
    heads = [Line(1, n, raw) for n, raw in enumerate(trail.heads)]
    gone = [Line(0, 1_000 + n, raw) for n, raw in enumerate(aborted)]
    return [found.text for found in verify(lines, heads, TRUST, Times(BEFORE_ALL), gone).findings]


@pytest.mark.parametrize("gone", [slice(1, 3), slice(2, 3), slice(2, 4), slice(5, 7), slice(0, 2)])
def test_gap_that_aborted_transactions_explain_is_named(gone: slice) -> None:
    """In the middle, at the end of a segment, at the end of the trail, and at its beginning."""
    batches: list[list[AuditEntry]] = [[ExpiryEntry("p1.a")], [ExpiryEntry("p1.b")], [ExpiryEntry("p1.c")]]
    trail = written(1, [batches, batches[:2]])
    found = with_aborted(trail, trail.lines[gone])
    assert found and all("Kafka aborted the transaction before the job committed it" in text for text in found)
    missing = Trail([*trail.lines[: gone.start], *trail.lines[gone.stop :]], trail.heads).verified().findings
    assert len(missing) == len(found) and not any("Kafka aborted" in finding.text for finding in missing)


def test_gap_with_one_removed_record_is_not_explained() -> None:
    trail = written(1, [[[ExpiryEntry("p1.a")], [ExpiryEntry("p1.b")], [ExpiryEntry("p1.c")], [ExpiryEntry("p1.d")]]])
    gap = trail.lines[1:4]
    for kept in ([0, 1], [0, 2], [1, 2]):
        lines = [raw for raw in trail.lines if raw not in gap]
        found = with_aborted(
            Trail([*lines[:1], *[gap[n] for n in kept], *lines[1:]], trail.heads), [gap[n] for n in kept]
        )
        assert found and not any("Kafka aborted" in text for text in found)


def test_restore_of_older_savepoint_is_a_remark_not_a_finding() -> None:
    batch: list[AuditEntry] = [ExpiryEntry("p1.a")]
    result = written(1, [[batch], [batch, batch], [batch]], restored=[0, 1, 1]).verified()
    assert result.findings == []
    assert "the 3 records behind it were given up" in result.remarks[0]
    assert result.chains[0].segments == 3


@settings(max_examples=examples(60), deadline=None)
@given(runs, st.lists(st.integers(0, 3), max_size=3))
def test_abandoned_records_are_remarks_only(jobs: list[list[list[AuditEntry]]], restored: list[int]) -> None:
    """The naive twin keeps a list of the records that each job builds on."""
    stood: list[list[tuple[int, int]]] = [[]]
    expected = []
    for job, batches in enumerate(jobs):
        base = stood[min(restored[job], len(stood) - 1)] if job < len(restored) else stood[-1]
        given_up = len([record for record in stood[-1] if record not in base])
        if not base and job:
            expected.append((BEGINNING + job, "anew"))
        elif given_up:
            expected.append((BEGINNING + job, str(given_up)))
        stood.append([*base, *((job, n) for n in range(1 + sum(map(len, batches))))])
    remarks = written(1, jobs, restored).verified().remarks
    assert [re.findall(r"segment (\d+) .*?(anew|\d+(?= records))", remark)[0] for remark in remarks] == [
        (str(epoch), told) for epoch, told in expected
    ]


def test_segment_without_parent_is_found() -> None:
    batch: list[AuditEntry] = [ExpiryEntry("p1.a")]
    trail = written(1, [[batch], [batch]])
    own = [raw for raw in trail.lines if json.loads(raw)["epoch"] == BEGINNING + 1]
    texts = [finding.text for finding in trail._replace(lines=own, heads=trail.heads[1:]).verified().findings]
    assert texts == [f"missing: the record from which segment {BEGINNING + 1} goes on"]


def test_forged_heads_are_found() -> None:
    trail = written(1, [[[ExpiryEntry("p1.a")]]])
    assert "not one of those given" in trail.verified(key=FOREIGN).findings[0].text
    forged = trail.heads[0].replace(b'"seq":1', b'"seq":0')
    assert "does not fit" in trail._replace(heads=[forged]).verified().findings[0].text
    assert "cannot be read" in trail._replace(heads=[b"{"]).verified().findings[0].text


def test_duplicate_record_is_found() -> None:
    trail = written(1, [[[ExpiryEntry("p1.a")]]])
    findings = trail._replace(lines=[*trail.lines, trail.lines[-1]]).verified().findings
    assert any("appears twice" in finding.text for finding in findings)


def spread(times: list[int], signed: int | None = None) -> Trail:
    """One record at each of `times`; the first `signed` (by default all) are signed a few seconds later."""
    head, lines, heads = ChainHead(), [], []
    for n, at in enumerate(times):
        head, records = append(head, [ExpiryEntry("p1.a")], 0, an_author(), at)
        lines += records
        if signed is None or n < signed:
            heads.append(sign_head(head, 0, at + 5 * SECOND, an_author())[1])
    return Trail(lines, heads)


def test_fabricated_trail_with_valid_hashes_is_not_trusted() -> None:
    true = spread([BEGINNING + n * DAY for n in range(4)])
    forged = rechained(true.lines, lambda n, record: record.update({"pseudonym": "p1.b"} if n else {}))
    [finding] = Trail(forged, []).verified().findings
    assert finding.seq == 1 and "unsigned" in finding.text and "4 from it on" in finding.text


@given(st.lists(st.integers(0, 2 * UNSIGNED_MAX_MS), min_size=1, max_size=6).map(sorted), st.integers(0, 6))
def test_long_unsigned_recording_is_found(times: list[int], signed: int) -> None:
    trail = spread([BEGINNING + at for at in times], signed)
    unsigned = times[signed:]
    long = bool(unsigned) and unsigned[-1] - unsigned[0] > UNSIGNED_MAX_MS
    assert [finding.text[:8] for finding in trail.verified().findings] == ["unsigned"] * long


def test_job_returning_after_hours_has_time_to_sign() -> None:
    trail = spread([BEGINNING, BEGINNING + SECOND, BEGINNING + 9 * HOUR], signed=1)
    lines = [Line(0, n, raw) for n, raw in enumerate(trail.lines)]
    heads = [Line(0, n, raw) for n, raw in enumerate(trail.heads)]
    back = BEGINNING + 9 * HOUR
    for now, found in ((back + SETTLED_MS - 1, 0), (back + SETTLED_MS, 1)):
        assert len(verify(lines, heads, TRUST, Times(BEFORE_ALL, now)).findings) == found


def test_expired_records_may_outlive_their_heads() -> None:
    trail = spread([BEGINNING, BEGINNING + 9 * HOUR, BEGINNING + 10 * HOUR], signed=0)
    assert "unsigned" in trail.verified(since=BEGINNING - 1).findings[0].text
    assert trail.verified(since=BEGINNING + 9 * HOUR).findings == []


def test_silent_bucket_with_expired_beginning_is_no_finding() -> None:
    trail = spread([BEGINNING, BEGINNING + 3 * DAY, BEGINNING + 6 * DAY])
    cut = Trail(trail.lines[2:], trail.heads[1:]).verified(since=BEGINNING + 2 * DAY)
    assert cut.findings == [] and "past its retention" in cut.remarks[0]


def test_expired_parent_of_kept_segment_is_no_finding() -> None:
    trail = written(1, [[[ExpiryEntry("p1.a")]], [[ExpiryEntry("p1.b")]]])
    own = [raw for raw in trail.lines if json.loads(raw)["epoch"] == BEGINNING + 1]
    assert trail._replace(lines=own, heads=trail.heads[1:]).verified(since=BEGINNING).findings == []


def test_beginning_cut_too_early_is_found_by_its_last_head() -> None:
    trail = spread([BEGINNING + n * DAY for n in range(40)])
    since = BEGINNING + 10 * DAY
    assert QUIET_MAX_MS > 21 * DAY, "the records alone do not tell"
    [finding] = Trail(trail.lines[31:], trail.heads).verified(since=since).findings
    assert finding.seq == 30 and "should still be kept" in finding.text
    assert Trail(trail.lines[10:], trail.heads).verified(since=since).findings == []


def test_dropped_end_is_one_finding() -> None:
    trail = spread([BEGINNING + n * SECOND for n in range(9)])
    [finding] = Trail(trail.lines[:4], trail.heads).verified().findings
    assert finding.seq == 9


def test_retention_cuts_single_partition_trail_at_its_beginning() -> None:
    assert {topic.name: topic.partitions for topic in TOPICS if topic.name in (AUDIT, AUDIT_HEADS)} == {
        AUDIT: 1,
        AUDIT_HEADS: 1,
    }


@given(st.lists(entries, max_size=6), st.integers(0, 6))
def test_appending_in_two_steps_equals_one(some: list[AuditEntry], cut: int) -> None:
    at_once = append(ChainHead(), some, 1, an_author(), BEGINNING)
    head, first = append(ChainHead(), some[:cut], 1, an_author(), BEGINNING)
    head, second = append(head, some[cut:], 1, an_author(), BEGINNING)
    assert (head, first + second) == at_once


def test_book_is_stored_as_versioned_bytes() -> None:
    book = Book(3, ChainHead(BEGINNING, 7, "ab" * 32, 6), {"p1.ada": 2, "": 9})
    folder = Path(__file__).parents[1] / "golden" / "state"
    assert decode_book((folder / "audit-v1-without-held.bin").read_bytes()) == book
    book.held = [(BEGINNING, ExpiryEntry("p1.bob"))]
    golden = (folder / "audit-v1.bin").read_bytes()
    assert decode_book(golden) == book
    assert encode_book(book) == golden
    with pytest.raises(SchemaError, match="version 2, this release reads 1"):
        decode_book(b"\x02" + golden[1:])


def test_denied_interactions_are_counted_per_user_until_recorded() -> None:
    book = Book(0)
    note_denied(book, {"p1.ada": 2, "": 1})
    note_denied(book, {"p1.ada": 1})
    rename(book, {"p2.ada": "p1.ada", "p2.bob": "p1.bob"})
    assert denied_entries(book, ["p1.bob", "p2.ada"]) == [DeniedEntry(3, "not_allowed", "p2.ada")]
    assert denied_entries(book) == [DeniedEntry(1, "no_consent_on_record")]
    assert denied_entries(book) == []


def begun_elsewhere(parent: ChainHead, bucket: int, epoch: int) -> list[bytes]:
    """The records of a bucket whose chain begins at `parent`, of another bucket."""
    return append(parent, [ExpiryEntry("p1.cyd")], bucket, an_author(epoch), BEGINNING + 2 * HOUR)[1]


def two_buckets_from_one() -> tuple[Trail, list[bytes]]:
    head, records = append(ChainHead(), [ExpiryEntry("p1.ada")], 0, an_author(BEGINNING), BEGINNING + HOUR)
    head, signed = sign_head(head, 0, BEGINNING + HOUR, an_author(BEGINNING))
    return Trail(records, [signed]), begun_elsewhere(head, 1, BEGINNING + 1)


def test_chain_may_begin_where_that_of_another_bucket_is_and_a_note_says_so() -> None:
    trail, new = two_buckets_from_one()
    found = Trail(trail.lines + new, trail.heads).verified()
    assert found.findings == []
    assert any("begins where the chain of bucket 0 was at record 1" in remark for remark in found.remarks)


def test_chain_whose_beginning_no_bucket_has_is_a_finding() -> None:
    trail, new = two_buckets_from_one()
    found = Trail(trail.lines[:1] + new, []).verified()
    assert any("the record from which segment" in finding.text for finding in found.findings)


def test_chain_that_begins_at_an_unsigned_record_of_another_bucket_is_a_finding() -> None:
    trail, _ = two_buckets_from_one()
    forged = a_chain_by(FOREIGN)
    begun = begun_elsewhere(forged[0], 1, BEGINNING + 1)
    found = Trail(trail.lines + forged[1] + begun, trail.heads).verified()
    assert any("the record from which segment" in finding.text for finding in found.findings)


def a_chain_by(key: SigningKey) -> tuple[ChainHead, list[bytes]]:
    """The chain of bucket 2 that somebody with another key has written."""
    return append(ChainHead(), [ExpiryEntry("p1.bob")], 2, an_author(BEGINNING, key=key), BEGINNING + HOUR)
