"""Two operators of two jobs, of which one takes over: together they write what one would have written."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.rules.audit_proof import Line
from privacy.rules.audit_verify import Times, verify
from schemas.errors import Superseded
from schemas.handover import Handover
from schemas.receipts import ConsentReceipt
from tests.support.bucket import EPOCH, Bucket, receipts
from tests.support.fakes import MemoryStore
from tests.support.trails import TRUST
from tests.support.vocabulary import BEGINNING, SECOND, a_consent, an_interaction
from udfs.audit_chain import ChainHead
from udfs.elements import ConsentRecord, Element, EventRecord
from udfs.handover import Term, split, term_of
from udfs.operators.audit_keeper import AUDIT, AUDIT_HEADS
from udfs.operators.outputs import ANSWERS, CLEAN_EVENTS, RECEIPTS, REJECTS

CUT = BEGINNING + 10 * SECOND
LATER = EPOCH + 5
Record = EventRecord | ConsentRecord
WRITTEN = (AUDIT, AUDIT_HEADS, ANSWERS, CLEAN_EVENTS, RECEIPTS, REJECTS)
"""The outputs that leave the job."""


class FixedGate:
    """A gate whose record the test sets."""

    def __init__(self, epoch: int, is_silent: bool, handover: Handover | None) -> None:
        self._epoch, self._is_silent, self.handover = epoch, is_silent, handover
        self.decide: Callable[[], None] = lambda: None
        self.ends: Mapping[int, ChainHead] | None = {}

    @property
    def turn(self) -> Term:
        return term_of(self.handover, self._epoch, self._is_silent)

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def join(self, subtask: int, newest_ms: Callable[[], int]) -> None: ...

    def settled(self) -> Term:
        self.decide()
        return self.turn

    def parents(self) -> Mapping[int, ChainHead] | None:
        return self.ends


def the_record(state: Any) -> Handover:
    return Handover(EPOCH, LATER, CUT, state)


def two_jobs(state: Any = "agreed") -> tuple[Bucket, Bucket]:
    """The former and the later job, on one store; the later one has empty state."""
    store = MemoryStore(EPOCH, lambda: BEGINNING)
    former = Bucket(store, gate=FixedGate(EPOCH, False, the_record(state)))
    later = Bucket(store.at_epoch(LATER), gate=FixedGate(LATER, True, the_record(state)))
    later.epoch = LATER
    later._start()
    return former, later


def clean(emitted: list[Any]) -> Counter[bytes]:
    lines = [out[1] for out in emitted if isinstance(out, tuple) and out[0] is CLEAN_EVENTS]
    return Counter(line for raw in lines for line in raw.split(b"\n"))


def audit_lines(emitted: list[Any]) -> list[bytes]:
    return [line for out in emitted if isinstance(out, tuple) and out[0] is AUDIT for line in out[1].split(b"\n")]


def audited(emitted: list[Any]) -> list[Any]:
    return [msgspec.json.decode(line) for line in audit_lines(emitted)]


USERS = ["ada", "bob"]


_draws = st.tuples(
    st.integers(0, 2 * SECOND), st.sampled_from(USERS), st.sampled_from(["tea", "cup", "pot", "none", "full"])
)


def history(drawn: list[list[tuple[int, str, str]]]) -> list[list[Record]]:
    """Batches of records in the order of time, around the cut; every user consents first."""
    batches: list[list[Record]] = [[a_consent(user, offset=0, partition=n) for n, user in enumerate(USERS)]]
    at, offset = CUT - 4 * SECOND, 1
    for batch in drawn:
        batches.append([])
        for gap_ms, user, what in batch:
            at, offset = at + gap_ms, offset + 1
            if what in ("none", "full"):
                change = a_consent(user, what, at, offset=offset, partition=USERS.index(user), said_at=at)  # type: ignore[arg-type]
                batches[-1].append(change)
            else:
                batches[-1].append(an_interaction(user, at, what, offset=offset))
    return batches


histories = st.lists(st.lists(_draws, min_size=1, max_size=4), min_size=1, max_size=8).map(history)


def in_parts(batch: list[Record]) -> list[list[Record]]:
    """A batch as both jobs apply it: what was appended before the cut, and the rest."""
    events = [record for record in batch if isinstance(record, EventRecord)]
    consents = [record for record in batch if isinstance(record, ConsentRecord)]
    parts = split(Element(3, events, consents), CUT)
    return [[*part.consents, *part.events] for part in parts if part is not None]


@pytest.mark.promise("take-over")
@given(histories)
def test_two_jobs_write_together_what_one_would_have_written(batches: list[list[Record]]):
    alone = Bucket()
    expected = [out for batch in batches for part in in_parts(batch) for out in alone.take(*part)]
    jobs = two_jobs()
    both = [out for batch in batches for job in jobs for out in job.take(*batch)]
    assert clean(both) == clean(expected)
    kinds = Counter(str(line["kind"]) for line in audited(expected))
    told = Counter(str(line["kind"]) for line in audited(both))
    assert {**told, "segment": 0} == {**kinds, "segment": 0}
    for user in USERS:
        assert all(job.user(user) == alone.user(user) for job in jobs)
        mine, wanted = jobs[1].store.list_of(user), alone.list(user)
        assert (mine and (mine.v, mine.items)) == (wanted and (wanted.v, wanted.items))
        assert jobs[1].store.consent(user) == alone.store.consent(user)


@given(histories)
def test_former_job_that_lags_doubles_nothing_and_brings_back_nobody(batches: list[list[Record]]):
    """The later job has written what came after: then a withdrawal refuses a grant before it, and what that allowed."""
    alone, (former, later) = Bucket(), two_jobs()
    expected = [out for batch in batches for part in in_parts(batch) for out in alone.take(*part)]
    both = [out for job in (later, former) for batch in batches for out in job.take(*batch)]
    assert clean(both) <= clean(expected)
    for user in USERS:
        assert later.user(user) == alone.user(user)
        consent, wanted = later.store.consent(user), alone.store.consent(user)
        assert (consent and (consent.level, consent.offset)) == (wanted and (wanted.level, wanted.offset))


def test_silent_job_writes_nothing():
    _, later = two_jobs("announced")
    held = later.store.held()
    emitted = later.take(a_consent(at=BEGINNING)) + later.take(an_interaction(at=BEGINNING + SECOND))
    emitted += later.pass_time(20 * SECOND)
    assert later.store.held() == held and later.marks_asked_for == []
    assert [out for out in emitted if isinstance(out, tuple) and out[0] in WRITTEN] == []
    assert later.user() is not None, "it only keeps its state up to date"


def test_undecided_job_waits_for_the_decision():
    former, later = two_jobs("announced")
    asked: list[str] = []

    def drop() -> None:
        asked.append("asked")
        former.gate.handover = later.gate.handover = the_record("dropped")

    former.gate.decide = later.gate.decide = drop
    for job in (former, later):
        job.take(a_consent(at=BEGINNING))
    assert asked == [], "nothing has reached the moment yet"
    assert clean(former.take(an_interaction(at=CUT))).total() == 1
    assert clean(later.take(an_interaction(at=CUT))).total() == 0
    assert asked == ["asked"]


def test_job_that_was_followed_ends_and_writes_nothing():
    former, _ = two_jobs()
    former.take(a_consent(at=BEGINNING))
    former.gate.handover = the_record("done")
    held = former.store.held()
    with pytest.raises(Superseded, match="another job has taken over"):
        former.take(an_interaction(at=BEGINNING + SECOND))
    with pytest.raises(Superseded):
        former.pass_time(20 * SECOND)
    assert former.store.held() == held


def test_audit_trail_continues_where_the_former_job_ended():
    former, later = two_jobs()
    later.gate.ends = None
    lines: list[Any] = []
    for job in (former, later):
        lines += job.take(a_consent("ada", at=BEGINNING, offset=1)) + job.take(a_consent("bob", at=BEGINNING, offset=2))
        lines += job.take(a_consent("ada", "none", at=CUT, offset=3))
        lines += job.pass_time(20 * SECOND)
    last = audited(lines)[-1]
    assert last["epoch"] == EPOCH, "the later one waits"
    later.gate.ends = {3: ChainHead(last["epoch"], last["seq"], last["hash"])}
    lines += later.pass_time(20 * SECOND)
    records = audit_lines(lines)
    heads = [out[1] for out in lines if isinstance(out, tuple) and out[0] is AUDIT_HEADS]
    found = verify(
        [Line(0, place, record) for place, record in enumerate(records)],
        [Line(0, place, head) for place, head in enumerate(heads)],
        TRUST,
        Times(BEGINNING - 30 * SECOND),
    )
    assert (found.findings, found.remarks) == ([], [])
    assert [msgspec.json.decode(record)["kind"] for record in records] == [
        "segment", "consent", "consent", "segment", "withdrawal",
    ]  # fmt: skip


def test_receipts_come_from_the_job_that_writes():
    former, later = two_jobs()
    told = [len(receipts(job.take(a_consent(at=CUT, offset=9)), ConsentReceipt)) for job in (former, later)]
    assert told == [0, 1]
