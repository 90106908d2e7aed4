"""The audit trail: what is changed, dropped, swapped or put in is found and named, and an untouched one is clean."""

import hashlib
import json
import random
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.audit import AuditEntry, DeniedEntry, ExpiryEntry, WithdrawalEntry
from schemas.errors import SchemaError
from schemas.signing import SigningKey
from tests.support.vocabulary import BEGINNING, DAY, HOUR
from udfs.audit import (
    Book,
    Head,
    append,
    decode_book,
    denied_entries,
    encode_book,
    note_denied,
    rename,
    sign_head,
)
from udfs.audit_verify import Line, Verification, verify

pytestmark = pytest.mark.privacy

KEY = SigningKey(bytes(range(32)))
FOREIGN = SigningKey(bytes(32))
BEFORE_ALL = BEGINNING - DAY

entries = st.one_of(
    st.builds(
        WithdrawalEntry, st.sampled_from(["p1.ada", "p1.bob"]), st.just(BEGINNING), st.just(0), st.integers(0, 9)
    ),
    st.builds(DeniedEntry, st.integers(1, 9), st.just("not_allowed")),
    st.builds(ExpiryEntry, st.just("p1.cyd")),
)


class Trail(NamedTuple):
    """Records and heads as the topics hold them."""

    lines: list[bytes]
    heads: list[bytes]

    def verified(self, since: int = BEFORE_ALL, key: SigningKey = KEY) -> Verification:
        at = [Line(0, n, raw) for n, raw in enumerate(self.lines)]
        return verify(at, [Line(1, n, raw) for n, raw in enumerate(self.heads)], [key.public], since)


def written(buckets: int, runs: list[list[list[AuditEntry]]], restored: list[int] = []) -> Trail:  # noqa: B006
    """Each run is a job, its head signed after each batch. Run n begins at the head after run restored[n] - 1."""
    lines: list[bytes] = []
    heads: list[bytes] = []
    for bucket in range(buckets):
        head, after = Head(), [Head()]
        for run, batches in enumerate(runs):
            if run < len(restored):
                head = after[min(restored[run], len(after) - 1)]
            for batch in batches:
                head, records = append(head, batch, bucket, BEGINNING + run, BEGINNING + HOUR)
                lines += records
                if records:
                    head, signed = sign_head(head, bucket, BEGINNING + HOUR, KEY)
                    heads.append(signed)
            after.append(head)
    return Trail(lines, heads)


runs = st.lists(st.lists(st.lists(entries, min_size=1, max_size=3), min_size=1, max_size=3), min_size=1, max_size=3)
trails = st.builds(written, st.integers(1, 2), runs, st.lists(st.integers(0, 3), max_size=3))


@settings(max_examples=40, deadline=None)
@given(trails)
def test_an_untouched_trail_has_no_finding(trail: Trail) -> None:
    result = trail.verified()
    assert result.findings == []
    assert all(chain.last_seq == chain.signed_seq for chain in result.chains if not result.remarks)


@settings(max_examples=40, deadline=None)
@given(trails)
def test_each_record_is_linked_to_the_one_before_it_as_the_documentation_says(trail: Trail) -> None:
    """A naive reader: JSON, SHA-256 and nothing else."""
    last: dict[tuple[int, int], str] = {}
    for raw in trail.lines:
        record = json.loads(raw)
        place = record["bucket"], record["epoch"]
        assert hashlib.sha256(raw[: raw.rindex(b',"hash"')]).hexdigest() == record["hash"]
        assert record["prev"] == (record["parent"] if record["kind"] == "segment" else last[place])
        last[place] = record["hash"]


def named(result: Verification, seq: int) -> bool:
    return any(finding.seq == seq for finding in result.findings)


@settings(max_examples=60, deadline=None)
@given(trails, st.randoms(use_true_random=False))
def test_a_record_that_was_altered_is_named(trail: Trail, draw: random.Random) -> None:
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


@settings(max_examples=60, deadline=None)
@given(trails, st.randoms(use_true_random=False))
def test_a_record_that_was_dropped_is_named(trail: Trail, draw: random.Random) -> None:
    at = draw.randrange(len(trail.lines))
    result = trail._replace(lines=trail.lines[:at] + trail.lines[at + 1 :]).verified()
    assert named(result, seq_of(trail, at)) or named(result, seq_of(trail, at) + 1)


@settings(max_examples=60, deadline=None)
@given(trails, st.randoms(use_true_random=False), st.booleans())
def test_records_that_were_swapped_are_named(trail: Trail, draw: random.Random, with_their_numbers: bool) -> None:
    if len(trail.lines) < 2:
        return
    first, second = sorted(draw.sample(range(len(trail.lines)), 2))
    lines = [*trail.lines]
    lines[first], lines[second] = lines[second], lines[first]
    one, other = (json.loads(trail.lines[at]) for at in (first, second))
    if not with_their_numbers:
        # Each takes the place that the other had, and all hashes are made to fit.
        lines[first] = _as(other, one)
        lines[second] = _as(one, other)
    elif (one["bucket"], one["epoch"]) != (other["bucket"], other["epoch"]):
        return  # records of different chains have no mutual order
    result = trail._replace(lines=lines).verified()
    touched = {one["seq"], other["seq"], one["seq"] + 1, other["seq"] + 1}
    if lines != trail.lines:
        assert touched & {finding.seq for finding in result.findings}


def _as(record: dict[str, object], place: dict[str, object]) -> bytes:
    """The content of `record` where `place` stood, with a hash that fits."""
    moved = {**record, **{name: place[name] for name in ("bucket", "epoch", "seq", "prev")}}
    del moved["hash"]
    body = json.dumps(moved, separators=(",", ":")).encode()[:-1]
    return b'%b,"hash":"%b"}' % (body, hashlib.sha256(body).hexdigest().encode())


@settings(max_examples=40, deadline=None)
@given(trails)
def test_a_chain_that_was_written_anew_from_some_record_on_contradicts_its_signed_heads(trail: Trail) -> None:
    forged, previous = [], {}
    for n, raw in enumerate(trail.lines):
        record = json.loads(raw)
        place = record["bucket"], record["epoch"]
        if n == 0:
            record["at"] += 1
        if record["kind"] != "segment":
            record["prev"] = previous[place]
        del record["hash"]
        body = json.dumps(record, separators=(",", ":")).encode()[:-1]
        previous[place] = hashlib.sha256(body).hexdigest()
        forged.append(b'%b,"hash":"%b"}' % (body, previous[place].encode()))
    assert any("a head signed" in finding.text for finding in trail._replace(lines=forged).verified().findings)


def test_a_dropped_end_is_missing_up_to_the_last_signed_head() -> None:
    trail = written(1, [[[ExpiryEntry("p1.a")], [ExpiryEntry("p1.b")]]])
    [finding] = trail._replace(lines=trail.lines[:-1]).verified().findings
    assert finding.seq == 2 and "the end of segment" in finding.text
    assert trail._replace(lines=trail.lines[:-1], heads=trail.heads[:-1]).verified().findings == [], "what no head saw"


def test_a_whole_trail_that_is_gone_is_missing() -> None:
    trail = written(2, [[[ExpiryEntry("p1.a")]]])
    assert {finding.bucket for finding in trail._replace(lines=[]).verified().findings} == {0, 1}


def test_a_dropped_beginning_is_missing_unless_it_is_past_its_retention() -> None:
    trail = written(1, [[[ExpiryEntry("p1.a"), ExpiryEntry("p1.b")]]])
    cut = trail._replace(lines=trail.lines[1:])
    [finding] = cut.verified().findings
    assert "should still be kept" in finding.text
    later = cut.verified(since=BEGINNING + 2 * HOUR)
    assert later.findings == [] and "past its retention" in later.remarks[0]


def test_a_restore_of_an_older_savepoint_is_remarked_and_not_complained_of() -> None:
    batch: list[AuditEntry] = [ExpiryEntry("p1.a")]
    result = written(1, [[batch], [batch, batch], [batch]], restored=[0, 1, 1]).verified()
    assert result.findings == []
    assert "the 3 records behind it were given up" in result.remarks[0]
    assert result.chains[0].segments == 3


def test_a_segment_without_its_parent_is_found() -> None:
    batch: list[AuditEntry] = [ExpiryEntry("p1.a")]
    trail = written(1, [[batch], [batch]])
    own = [raw for raw in trail.lines if json.loads(raw)["epoch"] == BEGINNING + 1]
    texts = [finding.text for finding in trail._replace(lines=own, heads=trail.heads[1:]).verified().findings]
    assert texts == [f"missing: the record from which segment {BEGINNING + 1} goes on"]


def test_heads_that_were_forged_or_signed_with_another_key_are_found() -> None:
    trail = written(1, [[[ExpiryEntry("p1.a")]]])
    assert "not one of those given" in trail.verified(key=FOREIGN).findings[0].text
    forged = trail.heads[0].replace(b'"seq":1', b'"seq":0')
    assert "does not fit" in trail._replace(heads=[forged]).verified().findings[0].text
    assert "cannot be read" in trail._replace(heads=[b"{"]).verified().findings[0].text


def test_a_record_that_stands_twice_is_found() -> None:
    trail = written(1, [[[ExpiryEntry("p1.a")]]])
    findings = trail._replace(lines=[*trail.lines, trail.lines[-1]]).verified().findings
    assert any("stands twice" in finding.text for finding in findings)


@given(st.lists(entries, max_size=6), st.integers(0, 6))
def test_appending_in_two_goes_is_as_good_as_one(some: list[AuditEntry], cut: int) -> None:
    at_once = append(Head(), some, 1, BEGINNING, BEGINNING)
    head, first = append(Head(), some[:cut], 1, BEGINNING, BEGINNING)
    head, second = append(head, some[cut:], 1, BEGINNING, BEGINNING)
    assert (head, first + second) == at_once


def test_the_book_is_kept_as_versioned_bytes() -> None:
    book = Book(3, Head(BEGINNING, 7, "ab" * 32, 6), {"p1.ada": 2, "": 9})
    golden = (Path(__file__).parents[1] / "golden" / "state" / "audit-v1.bin").read_bytes()
    assert decode_book(golden) == book
    assert encode_book(book) == golden
    with pytest.raises(SchemaError, match="version 2, this release reads 1"):
        decode_book(b"\x02" + golden[1:])


def test_denied_interactions_are_counted_by_user_until_they_are_told() -> None:
    book = Book(0)
    note_denied(book, {"p1.ada": 2, "": 1})
    note_denied(book, {"p1.ada": 1})
    rename(book, {"p2.ada": "p1.ada", "p2.bob": "p1.bob"})
    assert denied_entries(book, ["p1.bob", "p2.ada"]) == [DeniedEntry(3, "not_allowed", "p2.ada")]
    assert denied_entries(book) == [DeniedEntry(1, "no_consent_on_record")]
    assert denied_entries(book) == []
