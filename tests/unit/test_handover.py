"""The rule of take-overs: each record belongs to exactly one of two jobs, whoever reads it, and in whatever batch."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.handover import FOREVER, Handover
from tests.support.vocabulary import BEGINNING, a_command, a_consent, an_interaction
from udfs.elements import BucketMark, Element
from udfs.handover import ALWAYS, NEVER, Term, newest, split, term_of

FORMER, LATER, AT = 5, 8, 90
STATES: Any = ["announced", "agreed", "done", "dropped"]


@pytest.mark.parametrize("state", STATES)
@given(st.integers(0, 200))
def test_exactly_one_job_writes_each_record(state: Any, at: int):
    handover = Handover(FORMER, LATER, AT, state)
    former, later = term_of(handover, FORMER, False), term_of(handover, LATER, True)
    assert former.writes(at) != later.writes(at)
    assert former.writes_now(at) != later.writes_now(at)


def test_dropped_take_over_leaves_everything_to_the_former_job():
    handover = Handover(FORMER, LATER, AT, "dropped")
    assert (term_of(handover, FORMER, False), term_of(handover, LATER, True)) == (ALWAYS, NEVER)


def test_undecided_take_over_leaves_the_clock_to_the_former_job():
    handover = Handover(FORMER, LATER, AT, "announced")
    assert term_of(handover, FORMER, False).writes_now(AT + 1)
    assert not term_of(handover, LATER, True).writes_now(AT + 1)


@pytest.mark.parametrize("state", STATES)
def test_job_of_an_earlier_take_over_never_writes_again(state: Any):
    turn = term_of(Handover(FORMER, LATER, AT, state), FORMER - 1, False)
    assert turn.is_over and not turn.writes(0) and not turn.writes_now(AT)


@pytest.mark.parametrize("state", STATES)
def test_later_submission_writes_whatever_was_taken_over_before(state: Any):
    assert term_of(Handover(FORMER, LATER, AT, state), LATER + 1, False) == ALWAYS
    assert term_of(Handover(FORMER, LATER, AT, state), LATER + 1, True) == NEVER


def test_job_that_took_over_is_followed_like_any_other():
    again = Handover(LATER, LATER + 3, 2 * AT, "agreed")
    assert term_of(again, LATER, True) == Term(0, 2 * AT)
    assert term_of(Handover(LATER, LATER + 3, AT, "dropped"), LATER, True) == ALWAYS


_times = st.lists(st.integers(0, 20), max_size=6)


@given(_times, _times, st.integers(0, 20), st.integers(0, 21))
def test_split_keeps_every_record_on_its_side(events: list[int], consents: list[int], control: int, cut: int):
    element = Element(
        3,
        [an_interaction(at=BEGINNING + at, offset=place) for place, at in enumerate(events)],
        [a_consent(at=BEGINNING + at, offset=place) for place, at in enumerate(consents)],
        commands=[a_command()],
        control_at=BEGINNING + control,
        unknown_fields=2,
        links={"p2": "p1"},
        marks=[BucketMark("0" * 12, 0, 1)],
    )
    parts = [part for part in split(element, BEGINNING + cut) if part is not None]
    assert [newest(part) < BEGINNING + cut for part in parts] in ([True], [False], [True, False])
    for name in ("events", "consents", "commands", "marks"):
        assert [one for part in parts for one in getattr(part, name)].__len__() == len(getattr(element, name))
    for part in parts:
        sides = {one.append_ts < BEGINNING + cut for one in [*part.events, *part.consents]}
        sides |= {part.control_at < BEGINNING + cut} if part.commands else set()
        assert len(sides) <= 1
        assert part.links == element.links
    assert sum(part.unknown_fields for part in parts) == 2


def test_element_without_records_of_the_other_side_stays_whole():
    element = Element(3, [an_interaction()])
    assert split(element, BEGINNING + 1) == (element, None)
    assert split(element, FOREVER) == (element, None)
    assert split(element, BEGINNING)[0] is None
