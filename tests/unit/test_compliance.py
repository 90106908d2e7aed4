"""The figures of the compliance report equal a naive count where shown, and never cover a small group."""

import doctest
import random
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.rules import compliance
from privacy.rules.compliance import KINDS, Period, Report
from schemas.audit import AccessEntry, ConsentEntry, DeniedEntry, ErasureEntry, KeyEntry, WithdrawalEntry
from schemas.receipts import ErasureReceipt, ErasureStatus, encode_receipt
from schemas.rejects import DeadLetter, RejectReason
from tests.support.examples import examples
from tests.support.trails import Told, a_trail, naive, reported, tellings
from tests.support.vocabulary import BEGINNING, DAY, HOUR, SECOND
from udfs.audit_chain import ChainHead

THREE_DAYS = Period(BEGINNING, BEGINNING + 3 * DAY)
Found = Iterator[tuple[tuple[str, ...], int | None]]


def figures(report: Report) -> Found:
    """Every figure under the naive twin's name; None if it is withheld."""
    for kind in KINDS:
        yield (kind,), report.days[kind].total
        yield from (((kind, "day", at), figure) for at, figure in report.days[kind].rows.items())
    for (kind, what), table in report.by.items():
        yield from (((kind, what, name), figure) for name, figure in table.rows.items())
    for kind, reasons in report.narrowed.items():
        yield from (((kind, "narrowed", reason), figure) for reason, figure in reasons.items())
    yield ("strangers",), report.strangers
    yield from ((("access", role), figure) for (role, _, _), figure in report.accesses.items())
    yield ("states",), report.states.levels.total
    yield from ((("states", "level", level), figure) for level, figure in report.states.levels.rows.items())
    yield from ((("states", "kid", kid), figure) for kid, figure in report.states.kids.rows.items())
    yield from ((("states", "purpose", name), figure) for name, figure in report.states.purposes.items())


def lone(name: tuple[str, ...]) -> bool:
    """Whether a figure belongs to no total, so that only its own size can withhold it."""
    return len(name) == 1 or name[0] == "access" or name[1] in ("narrowed", "purpose")


@settings(max_examples=examples(40), deadline=None)
@given(tellings(), st.integers(2, 6), st.randoms(use_true_random=False))
def test_figures_equal_a_naive_count_or_are_withheld(told: list[Told], k: int, draw: random.Random):
    records = a_trail(told)
    draw.shuffle(records)
    expected, found = naive(told, THREE_DAYS), dict(figures(reported(records, THREE_DAYS, k)))
    for name, figure in found.items():
        count, persons = expected.get(name, (0, 0))
        assert figure is None or (figure == count and (persons >= k or not count)), name
        assert figure is not None or not lone(name) or 0 < persons < k, name
    # Every figure that belongs to no total must be present; rows of a table may be left out.
    assert all(name in found or persons < k for name, (_, persons) in expected.items() if lone(name))


@settings(max_examples=examples(25), deadline=None)
@given(tellings(), st.integers(0, 80))
def test_restoring_older_savepoint_keeps_consent_counts(told: list[Told], given_up: int):
    """A second job continues from the middle of the first, a day later, and reports the rest again."""
    first = a_trail(told)
    middle = max(0, len(told) - given_up)
    head = ChainHead(BEGINNING, middle, msgspec.json.decode(first[middle])["hash"]) if told else ChainHead()
    again = a_trail([(at + DAY, entry) for at, entry in told[middle:]], epoch=BEGINNING + 1, head=head)
    with_places = ("consent", "withdrawal", "erasure", "refused")
    once, twice = reported(first, THREE_DAYS, 2), reported([*again, *first], THREE_DAYS, 2)
    assert {kind: twice.days[kind] for kind in with_places} == {kind: once.days[kind] for kind in with_places}
    assert (twice.by, twice.narrowed, twice.effects) == (once.by, once.narrowed, once.effects)


def ten(at: int, offset: int, level: str) -> list[Told]:
    """Ten people change their consent to `level`."""
    names = [(f"p1.{n}", offset + n) for n in range(10)]
    if level == "none":
        return [(at, WithdrawalEntry(name, at, 0, place)) for name, place in names]
    return [(at, ConsentEntry(name, level, ["personalise"], at, 0, place)) for name, place in names]


def test_newest_job_decides_after_a_restore():
    """The restore abandoned the withdrawals, and the new job will report them again."""
    first = a_trail(ten(BEGINNING, 0, "full"))
    head = ChainHead(BEGINNING, len(first) - 1, msgspec.json.decode(first[-1])["hash"])
    lost = a_trail([*ten(BEGINNING + HOUR, 20, "full"), *ten(BEGINNING + HOUR, 30, "none")], head=head)
    again = a_trail(ten(BEGINNING + 2 * HOUR, 40, "session"), epoch=BEGINNING + 1, head=head)
    rows = reported([*first, *again, *lost], THREE_DAYS).states.levels.rows
    assert rows == {"none": 0, "session": 10, "full": 0, "erased": 0}


def test_reads_count_distinct_persons():
    told = [(BEGINNING, AccessEntry("support", "p", "profile", 4, f"p1.{n % 5}")) for n in range(20)]
    assert list(reported(a_trail(told), THREE_DAYS).accesses.values()) == [None]
    told += [(BEGINNING, AccessEntry("support", "p", "profile", 4, f"p1.{n}")) for n in range(5, 10)]
    assert list(reported(a_trail(told), THREE_DAYS).accesses.values()) == [100]


def test_duplicate_reason_counts_once():
    told = [
        (BEGINNING, ConsentEntry(f"p1.{n}", "full", ["personalise"], 0, 0, n, narrowed_by=["gpc", "gpc"]))
        for n in range(10)
    ]
    assert reported(a_trail(told), THREE_DAYS).narrowed["consent"] == {"gpc": 10}


def test_time_to_effect_uses_nearest_rank_percentiles_of_k_persons():
    told = [(BEGINNING + n, WithdrawalEntry(f"p1.{n}", BEGINNING, 0, n)) for n in range(200)]
    assert reported(a_trail(told), THREE_DAYS).effects["withdrawal"] == (99, 189, 197, 199)
    assert reported(a_trail(told[:9]), THREE_DAYS).effects["withdrawal"] is None
    erased = [(BEGINNING + 7, ErasureEntry(f"p1.{n}", BEGINNING, 0, n)) for n in range(10)]
    assert reported(a_trail(erased), THREE_DAYS).effects["erasure"] == (7, 7, 7, 7)


def a_receipt(name: str, status: ErasureStatus, checked_at: int) -> bytes:
    return encode_receipt(ErasureReceipt(name, status, BEGINNING, checked_at, {}, {}, [], True))


def test_erasures_are_reported_by_their_newest_receipt():
    told = [(BEGINNING + HOUR, ErasureEntry(f"p1.{n}", BEGINNING, 0, n)) for n in range(36)]
    receipts = [a_receipt(f"p1.{n}", "effective", BEGINNING + 2 * HOUR) for n in range(24)]
    receipts += [a_receipt(f"p1.{n}", "complete", BEGINNING + 3 * HOUR) for n in range(12)]
    receipts += [a_receipt(f"p1.{n}", "complete", BEGINNING + HOUR - 1) for n in range(24, 36)]
    receipts += [b'{"kind":"element"}', b"no receipt", b'{"kind":"erasure"}']
    for order in (receipts, receipts[::-1]):
        report = reported(a_trail(told), THREE_DAYS, receipts=order)
        assert report.proofs.rows == {"complete": 12, "effective": 12, "no receipt": 12}
        assert (report.proofs.total, report.unreadable) == (36, 1)


def a_letter(reason: RejectReason, topic: str = "t.interactions", at: int = BEGINNING) -> bytes:
    return msgspec.json.encode(DeadLetter(reason, topic, 0, 1, at, 1))


def test_all_consent_rejects_and_privacy_interaction_rejects_count():
    letters = [
        *[a_letter(RejectReason.MALFORMED, "t.consents")] * 10,
        *[a_letter(RejectReason.MISSING_USER)] * 9,
        *[a_letter(RejectReason.TOO_LATE)] * 12,
        *[a_letter(RejectReason.MALFORMED)] * 30,
        *[a_letter(RejectReason.TOO_LATE, at=BEGINNING - 1)] * 30,
        *[a_letter(RejectReason.TOO_LATE, at=BEGINNING + 3 * DAY)] * 30,
    ]
    report = reported([], THREE_DAYS, rejects=[*letters, b"{"])
    assert report.rejects == {
        ("t.consents", "malformed"): 10,
        ("t.interactions", "missing_user"): None,
        ("t.interactions", "too_late"): 12,
    }
    assert report.unreadable == 1


def test_key_events_are_ordered_and_users_shown_from_k():
    told = [(BEGINNING + HOUR, KeyEntry("relinked", 2, 9)), (BEGINNING + SECOND, KeyEntry("rotation_started", 2, 0))]
    keys = reported(a_trail(told), THREE_DAYS).keys
    assert [(event.change, event.users) for event in keys] == [("rotation_started", 0), ("relinked", None)]
    told = [(BEGINNING, KeyEntry("relinked", 2, 10)), (BEGINNING, KeyEntry("relinked", 2, 5))]
    assert [event.users for event in reported(a_trail(told), THREE_DAYS).keys] == [10, None], "at the same time"


@pytest.mark.parametrize("raw", [b"", b"{", b'{"kind":"consent"}', b'{"kind":"unknown"}', b"\xff", b"[1]"])
def test_unreadable_records_are_counted_separately(raw: bytes):
    report = reported([raw], THREE_DAYS)
    assert msgspec.structs.replace(report, unreadable=0) == reported([], THREE_DAYS)
    assert report.unreadable == 1


def test_report_contains_no_pseudonym():
    told = [(BEGINNING, DeniedEntry(3, "not_allowed", f"p1.somebody{n}")) for n in range(30)]
    told += [(BEGINNING, ConsentEntry(f"p1.somebody{n}", "full", ["personalise"], 0, 0, n)) for n in range(30)]
    assert "somebody" not in repr(reported(a_trail(told), THREE_DAYS))


def test_the_examples_in_the_documentation_run():
    assert doctest.testmod(compliance).failed == 0
