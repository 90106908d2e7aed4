"""Which users are purged from `consents`: against a twin that sorts everything."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from privacy.consent_topic import Recorded
from privacy.purge_consents import EndedErasures, ended_erasures
from schemas.consents import ConsentChange
from tests.support.vocabulary import BEGINNING, MINUTE

USERS = ("ada", "bob")
END = BEGINNING + 8 * MINUTE


def a_record(user: str, what: str, number: int, partition: int = 0, key: bytes | None = None) -> Recorded:
    at = BEGINNING + number * MINUTE
    change = ConsentChange(user, "full" if what == "full" else "none", at, erase=what == "erase")
    return Recorded(change, (at, partition, number), what == "absent", user.encode() if key is None else key)


@st.composite
def topics_of_consents(draw: st.DrawFn) -> list[Recorded]:
    """Records in up to two partitions, in the order of each partition but not of time."""
    whats = st.sampled_from(["full", "none", "erase", "erase", "absent"])
    keys = st.sampled_from([None, None, None, None, b"", b"someone-else"])
    drawn = draw(st.lists(st.tuples(st.sampled_from(USERS), whats, st.integers(0, 1), keys), max_size=12))
    made = [a_record(user, what, number, part, key) for number, (user, what, part, key) in enumerate(drawn)]
    return sorted(made, key=lambda one: one.place[1])


def naive(records: Sequence[Recorded]) -> EndedErasures:
    """By sorting: the last change of each user, and the last record of each partition."""
    partitions: dict[str, set[int]] = {}
    misplaced = 0
    for user in USERS:
        mine = sorted((one for one in records if one.change.user_id == user), key=lambda one: one.place[0])
        was_erased = any(one.change.erase and one.place[0] < END for one in mine)
        if not was_erased or not (mine[-1].change.erase or mine[-1].absent) or mine[-1].place[0] >= END:
            continue
        if any(one.key != user.encode() for one in mine):
            misplaced += 1
            continue
        lasts = {one.place[1]: one for one in mine}
        if left := {number for number, one in lasts.items() if not one.absent}:
            partitions[user] = left
    return EndedErasures(partitions, misplaced)


@given(topics_of_consents())
def test_users_erased_long_ago_are_purged_from_every_partition(records: list[Recorded]) -> None:
    assert ended_erasures(lambda: iter(records), END) == naive(records)


def test_erasure_with_live_tombstone_is_kept() -> None:
    records = [a_record("ada", "erase", 1), a_record("bob", "erase", 9)]
    assert ended_erasures(lambda: iter(records), END).partitions == {"ada": {0}}
