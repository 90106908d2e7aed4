"""An attacker who can write to the topics but cannot sign: no forged record is trusted, all are found."""

import hashlib
import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.rules.audit_proof import Line, Trust
from privacy.rules.audit_verify import SIGNING_LAG_MAX_MS, Times, Verification, verify
from schemas.audit import ExpiryEntry
from tests.support.examples import examples
from tests.support.forger import (
    MOVES,
    Honest,
    Topics,
    an_entry,
    fields,
    forged_chain,
    forged_segment,
    sealed,
)
from tests.support.trails import HEADS_EVERY, KEY, TRAIL, TRUST, an_author
from tests.support.vocabulary import BEGINNING, DAY, HOUR, MINUTE, SECOND
from udfs.audit_chain import ChainHead, append, decode_book, denied_entries, sign_head

pytestmark = pytest.mark.privacy

LONG_AGO = BEGINNING - 60 * DAY
UNSIGNED_MAX_MS = HEADS_EVERY + SIGNING_LAG_MAX_MS


def verified(topics: Topics, trust: Trust = TRUST, now: int | None = None, since: int = LONG_AGO) -> Verification:
    lines, heads = ([Line(0, n, raw) for n, raw in enumerate(kept)] for kept in topics)
    return verify(lines, heads, trust, Times(since, now))


def believed(topics: Topics, found: Verification) -> list[bytes]:
    return [raw for n, raw in enumerate(topics.lines) if found.is_proved(0, n)]


def honest(seed: int, jobs: int, trail: str = TRAIL) -> Topics:
    life = Honest(random.Random(seed), trail)
    life.live(jobs)
    return life.topics


def read(raw: bytes) -> dict[str, Any] | None:
    """A naive reader that uses only JSON."""
    needed = {"kind", "bucket", "epoch", "seq", "at", "prev", "hash"}
    try:
        found = json.loads(raw)
        return found if isinstance(found, dict) and needed <= set(found) else None
    except ValueError:
        return None


class Oracle:
    """The expected findings, from the honest trail and the topics; it uses neither signatures nor hashes."""

    def __init__(self, topics: Topics, before: Topics) -> None:
        self.honest, self.topics = set(before.lines), topics
        self.left = [fields(raw) for raw in topics.lines if raw in self.honest]
        self.extra = [raw for raw in topics.lines if raw not in self.honest]
        self.heads = [fields(raw) for raw in topics.heads if raw in set(before.heads)]
        self.before = before

    def may_be_quiet(self) -> bool:
        """Nothing in the topic can show it: no record builds on what is missing, and what is new declares itself."""
        if any(raw not in self.before.heads for raw in self.topics.heads):
            return False
        if len(self.left) != len({record["hash"] for record in self.left}):
            return False
        return self._is_in_order() and self._is_closed() and self._extra_may_be_an_end()

    def _is_in_order(self) -> bool:
        order = {raw: n for n, raw in enumerate(self.before.lines)}
        by_bucket: dict[int, list[int]] = defaultdict(list)
        for raw in self.topics.lines:
            if raw in order:
                by_bucket[fields(raw)["bucket"]].append(order[raw])
        return all(places == sorted(places) for places in by_bucket.values())

    def _is_closed(self) -> bool:
        hashes = {record["hash"] for record in self.left} | {""}
        return all(record["prev"] in hashes for record in self.left) and all(
            head["hash"] in hashes for head in self.heads
        )

    def _extra_may_be_an_end(self) -> bool:
        """Only the added records continue, within an interval, from the last record of a segment."""
        ends: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
        for raw in self.extra:
            record = read(raw)
            if record is None or record["kind"] == "segment":
                return False
            ends[record["bucket"], record["epoch"]].append(record)
        return all(self._is_an_end(bucket, epoch, end) for (bucket, epoch), end in ends.items())

    def _is_an_end(self, bucket: int, epoch: int, end: list[dict[str, Any]]) -> bool:
        own = [record for record in self.left if record["bucket"] == bucket]
        segment = [record for record in own if record["epoch"] == epoch]
        if not segment:
            return False
        last = max(segment, key=lambda record: record["seq"])
        for before, record in zip([last, *end], end, strict=False):
            if (record["prev"], record["seq"]) != (before["hash"], before["seq"] + 1):
                return False
        if any(record["prev"] == last["hash"] for record in own):
            return False
        alive = max((head["at"] for head in self.heads if head["epoch"] == epoch), default=0)
        times = [record["at"] for record in end]
        return max(*times, alive) - min(times) <= UNSIGNED_MAX_MS and min(times) >= last["at"] - UNSIGNED_MAX_MS


histories = st.tuples(st.integers(0, 2**32), st.integers(1, 4))


@settings(max_examples=examples(150), deadline=None)
@given(histories)
def test_genuine_trail_is_trusted_up_to_its_last_head(history: tuple[int, int]) -> None:
    topics = honest(*history)
    found = verified(topics)
    assert found.findings == []
    heads = {fields(raw)["hash"] for raw in topics.heads}
    signed = [raw for raw in topics.lines if fields(raw)["hash"] in heads or fields(raw)["kind"] == "segment"]
    assert set(signed) <= set(believed(topics, found))
    openings = {fields(raw)["prev"] for raw in topics.lines if fields(raw)["kind"] == "segment"}
    assert {raw for raw in topics.lines if fields(raw)["hash"] in openings} <= set(believed(topics, found))


@settings(max_examples=examples(600), deadline=None)
@given(histories, st.lists(st.sampled_from(MOVES), min_size=1, max_size=4), st.integers(0, 2**32))
@pytest.mark.promise("audit-forgery")
def test_every_generated_forgery_is_found_and_not_trusted(
    history: tuple[int, int], moves: list[Any], seed: int
) -> None:
    chance = random.Random(seed)
    before = topics = honest(*history)
    other = honest(history[0] + 1, 2, "another trail")
    for move in moves:
        try:
            topics = move(chance, topics, other) if topics.lines else topics
        except (KeyError, ValueError, IndexError):
            continue  # this move cannot read what an earlier one has left
    found = verified(topics)
    trusted = believed(topics, found)
    assert set(trusted) <= set(before.lines), "a forged record is believed"
    assert len(trusted) == len(set(trusted)), "a record is believed twice"
    if not Oracle(topics, before).may_be_quiet():
        assert found.findings, [move.__name__ for move in moves]


class Story:
    """Two jobs in one bucket, the second from the end of the first, and what each had recorded at its end."""

    def __init__(self) -> None:
        chance = random.Random(7)
        first, second = an_author(BEGINNING), an_author(BEGINNING + HOUR)
        head, self.first = append(ChainHead(), [an_entry(chance, BEGINNING) for _ in range(3)], 0, first, BEGINNING)
        head, signed = sign_head(head, 0, BEGINNING + 10 * SECOND, first)
        self.end_of_first, self.second_starts = fields(self.first[-1]), BEGINNING + HOUR
        head, self.second = append(head, [ExpiryEntry("p1.bob")], 0, second, self.second_starts)
        head, signed_too = sign_head(head, 0, self.second_starts + 10 * SECOND, second)
        self.end = fields(self.second[-1])
        self.heads = [signed, signed_too]
        self.topics = Topics([*self.first, *self.second], self.heads)

    def with_lines(self, *lines: bytes) -> Topics:
        return self.topics._replace(lines=list(lines))


STORY = Story()
LATER = STORY.second_starts + MINUTE
BORROWED = {name: fields(STORY.second[0])[name] for name in ("trail", "heads_every_ms", "key", "signature")}


def forged_behind(record: dict[str, Any], at: int) -> list[bytes]:
    return forged_chain({**record, "seq": record["seq"] + 1, "at": at}, record["hash"], 1)


FORGED_LATER = forged_behind(fields(forged_behind(STORY.end, LATER)[0]), LATER + UNSIGNED_MAX_MS + 1)


def between(*lines: bytes) -> Topics:
    return STORY.with_lines(*STORY.first, *lines, *STORY.second)


def at_the_end(*lines: bytes) -> Topics:
    return STORY.with_lines(*STORY.topics.lines, *lines)


def second_job_at_once() -> Topics:
    """Two jobs restored from the same savepoint, both with the key."""
    third = an_author(BEGINNING + 2 * HOUR)
    head, lines = append(
        ChainHead(BEGINNING, 3, STORY.end_of_first["hash"]), [ExpiryEntry("p1.cyd")], 0, third, BEGINNING + 2 * HOUR
    )
    own_end = ChainHead(BEGINNING + HOUR, STORY.end["seq"], STORY.end["hash"])
    end, goes_on = append(own_end, [ExpiryEntry("p1.dan")], 0, an_author(BEGINNING + HOUR), BEGINNING + 2 * HOUR)
    heads = [sign_head(head, 0, third.epoch, third)[1], sign_head(end, 0, third.epoch, an_author(BEGINNING + HOUR))[1]]
    return Topics([*STORY.topics.lines, *lines, *goes_on], [*STORY.heads, *heads])


def of_another_tenant() -> Topics:
    """Signed with the same key for the topic of another deployment."""
    author = an_author(BEGINNING + 2 * HOUR, "another trail")
    head, lines = append(ChainHead(), [ExpiryEntry("p1.eve")], 0, author, author.epoch)
    return Topics([*STORY.topics.lines, *lines], [*STORY.heads, sign_head(head, 0, author.epoch, author)[1]])


FORGERIES = {
    "an unsigned segment between two jobs": (
        between(*forged_segment(STORY.end_of_first, BEGINNING + 9, LATER, 2)),
        "no",
    ),
    "a segment between two jobs under the signature of another": (
        between(*forged_segment(STORY.end_of_first, BEGINNING + 9, LATER, 2, **BORROWED)),
        "does not fit",
    ),
    "an unsigned segment beside the running one": (
        at_the_end(*forged_segment(STORY.end_of_first, STORY.second_starts + 1, LATER, 2)),
        "was not opened with a valid signature",
    ),
    "an unsigned segment that begins anew": (
        at_the_end(*forged_segment(None, STORY.second_starts + 1, LATER, 2)),
        "was not opened with a valid signature",
    ),
    "an unsigned segment in a bucket that is none": (
        at_the_end(*forged_segment({**STORY.end, "bucket": 77}, STORY.second_starts + 1, LATER, 2)),
        "was not opened with a valid signature",
    ),
    "a forged restore of an older savepoint": (
        at_the_end(*forged_segment(fields(STORY.first[1]), STORY.second_starts + 1, LATER, 2)),
        "was not opened with a valid signature",
    ),
    "a record behind the end of the first job": (
        between(*forged_behind(STORY.end_of_first, BEGINNING + 11 * SECOND)),
        "they were inserted",
    ),
    "a record of the first job behind the second": (
        at_the_end(*forged_behind(STORY.end_of_first, BEGINNING + 11 * SECOND)),
        "out of place",
    ),
    "a record dated before the last signed head": (
        at_the_end(*forged_behind(STORY.end, STORY.second_starts - 2 * MINUTE)),
        "dated before",
    ),
    "records dated three years back": (
        at_the_end(*forged_segment(None, BEGINNING - 1, BEGINNING - 1_000 * DAY, 2)),
        "was not opened with a valid signature",
    ),
    "records of more than an interval that no head has": (
        at_the_end(*forged_behind(STORY.end, LATER), *FORGED_LATER),
        "no signed head has this record, nor any of the 2 from it on",
    ),
    "a rival of a record that was signed": (
        at_the_end(*forged_behind(fields(STORY.first[1]), BEGINNING)),
        "inserted: the signed record is at partition 0 offset 2",
    ),
    "a replay of old records": (at_the_end(*STORY.first), "appears twice"),
    "a replay of the beginning of a segment": (at_the_end(STORY.second[0]), "appears twice"),
    "two jobs at once": (second_job_at_once(), "two jobs ran at once"),
    "a trail of another tenant": (of_another_tenant(), "signed for another trail, another trail"),
    "a truncated beginning, its heads cut, too": (Topics(STORY.topics.lines[2:], STORY.heads[1:]), "missing"),
    "a first job cut out, its heads, too": (Topics(STORY.second, STORY.heads[1:]), "from which segment"),
    "an end cut in the middle of the first job, its head, too": (
        Topics([*STORY.first[:2], *STORY.second], STORY.heads[1:]),
        "missing",
    ),
}


@pytest.mark.parametrize("forgery", FORGERIES)
@pytest.mark.promise("audit-forgery")
def test_known_forgery_is_found_and_not_trusted(forgery: str) -> None:
    topics, text = FORGERIES[forgery]
    found = verified(topics)
    assert any(text in finding.text for finding in found.findings), found
    explained = [remark for remark in found.remarks if "not proved" not in remark]
    assert explained == [] or forgery == "two jobs at once"
    signed = {*STORY.topics.lines} | ({*topics.lines} if forgery == "two jobs at once" else set())
    trusted = believed(topics, found)
    assert set(trusted) <= signed and len(trusted) == len(set(trusted))


def test_cut_end_is_found_by_saved_heads_and_continuing_job() -> None:
    """Until then, nothing in the topics can show it."""
    cut = Topics(STORY.first[:2], [])
    assert verified(cut).findings == []
    assert "the end of segment" in verified(cut._replace(heads=STORY.heads[:1])).findings[0].text
    assert "missing" in verified(cut._replace(lines=[*cut.lines, *STORY.second])).findings[0].text


def test_old_segment_without_head_is_reported_and_inserted_one_found() -> None:
    """Records are past their retention if they come before all others, in any bucket."""
    since = BEGINNING - 2 * HOUR
    old = forged_segment(None, since - HOUR, since - HOUR, 2)
    of_another_bucket = [raw.replace(b'"bucket":0', b'"bucket":9') for raw in old]
    lost = [sealed({n: v for n, v in fields(raw).items() if n != "hash"}) for raw in of_another_bucket[:1]]
    found = verified(STORY.with_lines(*lost, *STORY.topics.lines), since=since)
    assert found.findings == [] and any("not proved" in remark for remark in found.remarks)
    for lines in ([*STORY.topics.lines, *lost], lost):
        found = verified(STORY.with_lines(*lines)._replace(heads=[]), since=since)
        assert any("was not opened with a valid signature" in finding.text for finding in found.findings)


def test_possible_last_record_is_reported_and_not_counted() -> None:
    topics = at_the_end(*forged_behind(STORY.end, STORY.second_starts + 11 * SECOND))
    found = verified(topics)
    assert found.findings == [] and "not proved: record of segment" in found.remarks[0]
    assert believed(topics, found) == STORY.topics.lines


def test_unsigned_record_is_found_when_job_signed_other_buckets_later() -> None:
    """The last record of a bucket is not the end of a job that continues."""
    forged = at_the_end(*forged_behind(STORY.end, STORY.second_starts + 11 * SECOND))
    author, later = an_author(STORY.second_starts), LATER + MINUTE
    head, lines = append(ChainHead(), [ExpiryEntry("p1.fay")], 1, author, later)
    alive = Topics([*forged.lines, *lines], [*forged.heads, sign_head(head, 1, later, author)[1]])
    [finding] = verified(alive).findings
    assert (finding.bucket, finding.seq) == (0, STORY.end["seq"] + 1) and "no signed head" in finding.text


@pytest.mark.parametrize("at", [LATER + HOUR, LATER + 9_000 * DAY])
def test_future_record_is_not_awaited(at: int) -> None:
    topics = at_the_end(*forged_behind(STORY.end, at))
    assert verified(topics, now=LATER).remarks != []


def test_recent_unsigned_records_cause_no_remark() -> None:
    head = ChainHead(STORY.second_starts, STORY.end["seq"], STORY.end["hash"])
    _, lines = append(head, [ExpiryEntry("p1.gus")], 0, an_author(STORY.second_starts), LATER)
    found = verified(at_the_end(*lines), now=LATER + SECOND)
    assert (found.findings, found.remarks, len(found.unproved)) == ([], [], 1)


def test_moved_trail_is_trusted_when_its_former_topic_is_given() -> None:
    elsewhere = Trust([KEY.public], ["the topic that it was moved to"])
    assert {finding.text.partition(",")[0] for finding in verified(STORY.topics, elsewhere).findings} >= {
        "the beginning of a segment is signed for another trail",
        "a head is signed for another trail",
    }
    assert verified(STORY.topics, Trust([KEY.public], [*elsewhere.trails, TRAIL])).findings == []


@pytest.mark.parametrize("member", ['"kind":"consent","pseudonym":"p1.eve",', '"level":"full",', '"heads_every_ms":1,'])
def test_extra_field_in_signed_beginning_is_found(member: str) -> None:
    """Of two members with the same name, some readers use the first, others the last."""
    body = (b"{" + member.encode() + STORY.first[0][1:]).rpartition(b',"hash"')[0]
    forged = b'%b,"hash":"%b"}' % (body, hashlib.sha256(body).hexdigest().encode())
    topics = STORY.with_lines(forged, *STORY.topics.lines[1:])
    found = verified(topics)
    assert any("offset 0" in finding.text for finding in found.findings)
    assert forged not in believed(topics, found)


def test_uppercase_signature_is_found() -> None:
    told = fields(STORY.heads[0])["signature"]
    head = STORY.heads[0].replace(told.encode(), told.upper().encode())
    assert "does not fit" in verified(STORY.topics._replace(heads=[head, *STORY.heads[1:]])).findings[0].text


@settings(max_examples=examples(300), deadline=None)
@given(st.binary(max_size=60) | st.sampled_from([b"[" * 100_000, b'{"kind":' * 50_000, STORY.first[0][:-2]]))
def test_arbitrary_bytes_do_not_prevent_verification(raw: bytes) -> None:
    found = verified(Topics([*STORY.topics.lines, raw], [*STORY.heads, raw]))
    assert len(found.findings) == 2
    assert believed(STORY.topics, found) == STORY.topics.lines


GOLDEN = Path(__file__).parents[1] / "golden" / "audit"
UNSIGNED = Topics(*((GOLDEN / f"unsigned-segments{of}.jsonl").read_bytes().splitlines() for of in ("", "-heads")))
"""What a release wrote that did not sign segments: two jobs in the buckets 0 and 3, and a record that no head has."""
UPGRADED_AT = BEGINNING + 2 * HOUR


def upgraded() -> Topics:
    """A job of this release has continued in bucket 3."""
    author = an_author(UPGRADED_AT)
    book = decode_book((GOLDEN / "unsigned-segments-book-3.bin").read_bytes())
    head, lines = append(book.head, [*denied_entries(book), ExpiryEntry("p1.u20")], 3, author, UPGRADED_AT)
    return Topics([*UNSIGNED.lines, *lines], [*UNSIGNED.heads, sign_head(head, 3, UPGRADED_AT + 1, author)[1]])


def told_as_such(found: Verification) -> int:
    return sum("by a release that did not sign segments" in remark for remark in found.remarks)


def test_unsigned_segments_of_older_release_are_reported() -> None:
    found = verified(UNSIGNED)
    assert (found.findings, told_as_such(found)) == ([], 4)
    last = [raw for raw in UNSIGNED.lines if b"p1.u10" in raw and b"expiry" in raw]
    assert [raw for raw in UNSIGNED.lines if raw not in believed(UNSIGNED, found)] == last and len(last) == 2


def test_continuing_job_vouches_for_older_unsigned_record() -> None:
    found = verified(upgraded())
    assert (found.findings, told_as_such(found)) == ([], 4)
    assert sum(b"expiry" in raw and b"p1.u10" in raw for raw in believed(upgraded(), found)) == 1


def test_unsigned_trail_without_heads_is_not_trusted() -> None:
    topics = UNSIGNED._replace(heads=[])
    found = verified(topics)
    assert {finding.bucket for finding in found.findings} == {0, 3}
    assert believed(topics, found) == [] and told_as_such(found) == 0


AFTER_THE_UPGRADE = {
    "a segment that was left unsigned": forged_segment(fields(upgraded().lines[-1]), UPGRADED_AT + 1, UPGRADED_AT, 1),
    "one that claims to be older": forged_segment(fields(UNSIGNED.lines[1]), BEGINNING + HOUR + 1, BEGINNING, 1),
    "one in another bucket": forged_segment({**fields(UNSIGNED.lines[1]), "bucket": 5}, BEGINNING + 1, BEGINNING, 1),
}


@pytest.mark.parametrize("forgery", AFTER_THE_UPGRADE)
def test_unsigned_segment_after_signed_one_is_not_trusted(forgery: str) -> None:
    topics = upgraded()._replace(lines=[*upgraded().lines, *AFTER_THE_UPGRADE[forgery]])
    found = verified(topics)
    assert any("was not opened with a valid signature" in finding.text for finding in found.findings)
    assert believed(topics, found) == believed(upgraded(), verified(upgraded()))


def test_records_of_another_deployment_are_not_trusted() -> None:
    """The heads are valid, but do not name their trail."""
    author = an_author(UPGRADED_AT)
    head, own = append(ChainHead(), [ExpiryEntry("p1.own")], 0, author, UPGRADED_AT)
    signed = sign_head(head, 0, UPGRADED_AT + 1, author)[1]
    topics = Topics([*own, *UNSIGNED.lines], [signed, *UNSIGNED.heads])
    found = verified(topics)
    assert {finding.bucket for finding in found.findings} >= {0, 3}
    assert believed(topics, found) == own


def test_head_without_trail_is_not_trusted() -> None:
    head = ChainHead(STORY.second_starts, STORY.end["seq"], STORY.end["hash"])
    nameless = sign_head(head, 0, LATER, an_author(STORY.second_starts, trail=""))[1]
    found = verified(STORY.topics._replace(heads=[*STORY.heads, nameless]))
    assert ["does not say of which trail" in finding.text for finding in found.findings] == [True]
