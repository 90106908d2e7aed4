"""The gauge of unread consents grows until it is checked again; a failed check changes nothing."""

import pytest

from jobs.unread import LOOK_EVERY_S, UnreadRecords, UnreadWatch
from schemas.errors import SettingsError
from tests.support.live import until


class Clock:
    """A clock in seconds."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def looked(unread: UnreadWatch) -> bool:
    return not unread._looking.locked()


def test_age_adds_time_since_the_last_check(clock: Clock) -> None:
    ages = iter([0, 3_000])
    unread = UnreadWatch(lambda: UnreadRecords(next(ages), 5), clock)
    clock.now_s += LOOK_EVERY_S
    assert unread() == 10_000, "nothing is known yet"
    until(lambda: looked(unread), "the look")
    assert unread() == 0
    clock.now_s += 4
    assert (unread(), unread.records) == (4_000, 5), "no look is due"
    clock.now_s += LOOK_EVERY_S
    unread()
    until(lambda: looked(unread), "the look")
    assert unread() == 3_000
    assert next(ages, None) is None


@pytest.mark.parametrize("error", [SettingsError("no"), OSError(), ValueError()])
def test_age_grows_while_kafka_is_unavailable(clock: Clock, error: Exception) -> None:
    def fails() -> UnreadRecords:
        raise error

    unread = UnreadWatch(fails, clock)
    for _ in range(3):
        clock.now_s += LOOK_EVERY_S
        unread()
        until(lambda: looked(unread), "the look")
    assert unread() == 30_000
