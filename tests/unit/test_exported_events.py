"""Events of an export through the rules of the job."""

import pytest

from evaluation.explored_log import _profiles
from schemas.exports import ExportedEvent
from tests.support.vocabulary import BEGINNING, MINUTE
from udfs.exported_events import record_of


@pytest.mark.parametrize(("sessions", "events_of_the_last"), [(("aa", "aa", "aa"), 3), (("aa", "bb", "bb"), 2)])
def test_histories_of_off_policy_evaluation_have_the_sessions_of_the_job(
    sessions: tuple[str, ...], events_of_the_last: int
) -> None:
    times = [BEGINNING + number * MINUTE for number in range(len(sessions))]
    events = [ExportedEvent("x.a", "view", at, at, "i1", one) for at, one in zip(times, sessions, strict=True)]
    [profile] = _profiles([("x.a", times[-1])], events).values()
    assert profile.session is not None
    assert (profile.session.id.hex(), profile.session.events) == (sessions[-1], events_of_the_last)


def test_events_of_one_export_have_different_records() -> None:
    event = ExportedEvent("x.a", "view", BEGINNING, BEGINNING, "i1")
    first, second = record_of(event, 1), record_of(event, 2)
    assert first.event != second.event
    assert first.offset < second.offset
