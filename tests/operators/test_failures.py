"""A record that cannot be processed is removed from its element, and nothing else is.

Ingest never produces these records: they have unknown kinds, levels and times, as a bug in a rule or a codec might
produce them.
"""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import StateUnavailable
from schemas.rejects import RejectReason
from tests.support.bucket import Bucket, Record, side
from tests.support.examples import examples
from tests.support.vocabulary import (
    BEGINNING,
    DAY,
    INTERACTIONS,
    SECOND,
    a_consent,
    a_reject,
    an_erasure,
    an_interaction,
)
from udfs.elements import ConsentRecord, Element, EventRecord, halves, replacement_for
from udfs.operators.audit_keeper import AUDIT
from udfs.operators.outputs import REJECTS

USERS = ["ada", "bob", "cyd"]


def poison(offset: int, user: str = "ada", at: int = BEGINNING + SECOND) -> EventRecord:
    """An interaction of a nonexistent kind: no rule has a weight for it."""
    good = an_interaction(user, at, "tea", offset=offset)
    return EventRecord(*(99 if name == "kind" else getattr(good, name) for name in good.__struct_fields__))


def poison_consent(user: str, at: int) -> ConsentRecord:
    """A grant of a nonexistent level."""
    good = a_consent(user, "full", at)
    return ConsentRecord(*(2**40 if name == "level" else getattr(good, name) for name in good.__struct_fields__))


def letters(emitted: list[Any]) -> list[tuple[str, int]]:
    return [(letter["reason"], letter["offset"]) for letter in side(emitted, REJECTS)]


good_events = st.lists(
    st.builds(
        lambda user, at, item: an_interaction(user, BEGINNING + at * SECOND, item, offset=at),
        st.sampled_from(USERS),
        st.integers(1, 60),
        st.sampled_from(["tea", "cup", "pot"]),
    ),
    max_size=8,
)


@settings(max_examples=examples(60), deadline=None)
@given(good_events, st.lists(st.integers(0, 8), min_size=1, max_size=3), st.lists(st.sampled_from(USERS), unique=True))
@pytest.mark.promise("poison-is-cut-out")
def test_failing_records_do_not_affect_others(
    good: list[EventRecord], places: list[int], consenting: list[str]
) -> None:
    mixed: list[Record] = list(good)
    for number, place in enumerate(places):
        mixed.insert(place, poison(1_000 + number))
    consents = [a_consent(user) for user in USERS if user == "ada" or user in consenting]
    with_poison, without = Bucket(), Bucket()
    emitted = with_poison.take(*consents, *mixed)
    without.take(*consents, *good)
    for user in USERS:
        ours, theirs = with_poison.user(user), without.user(user)
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            assert (ours.profile, ours.level, ours.version) == (theirs.profile, theirs.level, theirs.version)
            our_list, their_list = with_poison.list(user), without.list(user)
            assert (our_list and our_list.items) == (their_list and their_list.items)
    poisoned = [(RejectReason.NOT_CARRIED_OUT.value, 1_000 + number) for number in range(len(places))]
    assert sorted(letters(emitted)) == poisoned
    account = with_poison.account
    assert account.rejected == {RejectReason.NOT_CARRIED_OUT.value: len(places)}
    assert account.sent == without.account.sent + len(places)


@pytest.mark.promise("poison-is-cut-out")
def test_failing_grant_counts_as_withdrawal() -> None:
    bucket = Bucket()
    bucket.take(a_consent("ada"), a_consent("bob"))
    bucket.take(an_interaction("ada"), an_interaction("bob"))
    assert bucket.list("ada") is not None
    emitted = bucket.take(poison_consent("ada", BEGINNING + SECOND), an_interaction("bob", BEGINNING + SECOND, "oil"))
    assert bucket.list("ada") is None
    ada = bucket.user("ada")
    assert ada is not None and (ada.level, ada.profile) == (0, None)
    bob = bucket.list("bob")
    assert bob is not None and bob.v == 3
    assert any("not_carried_out" in str(entry) for entry in side(emitted, AUDIT))


def test_tombstone_is_looked_up_again_after_dropped_plan() -> None:
    bucket = Bucket()
    bucket.take(a_consent("ada"), an_interaction("ada"))
    snapshot = bucket.keyed.snapshot()
    bucket.take(an_erasure("ada", BEGINNING + SECOND))
    bucket.restart(snapshot)
    click = an_interaction("ada", BEGINNING + SECOND, "oil", offset=5)
    emitted = bucket.take(a_consent("bob"), click, poison(6, "bob"))
    assert letters(emitted) == [("not_carried_out", 6)]
    assert bucket.user("ada") is None
    assert bucket.list("ada") is None


def test_dead_letter_of_failed_attempt_is_emitted_once() -> None:
    bucket = Bucket()
    bucket.take(a_consent("ada", at=BEGINNING), an_interaction("ada", BEGINNING + 30 * DAY))
    late = an_interaction("ada", BEGINNING + DAY, "oil", appended=BEGINNING + 30 * DAY, offset=5)
    emitted = bucket.take(late, poison(6, at=BEGINNING + 30 * DAY))
    assert letters(emitted) == [("too_late", 5), ("not_carried_out", 6)]
    assert bucket.account.rejected == {"too_late": 1, "not_carried_out": 1}


def test_record_is_dropped_only_after_two_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = Bucket()
    bucket.take(a_consent("ada"))
    write, failures = bucket.store.write, [ValueError("once")]

    def shaky(*told: Any) -> Any:
        if failures:
            raise failures.pop()
        return write(*told)

    monkeypatch.setattr(bucket.store, "write", shaky)
    assert letters(bucket.take(an_interaction("ada"))) == []
    assert bucket.list("ada") is not None
    assert bucket.account.accepted == 1


def test_unreadable_state_is_not_blamed_on_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = Bucket()
    bucket.take(a_consent("ada"))

    def broken(name: str) -> None:
        raise RuntimeError("RocksDB is gone")

    monkeypatch.setattr(bucket.keyed.states["users-v1"], "get", broken)
    with pytest.raises(StateUnavailable, match="RuntimeError"):
        bucket.take(an_interaction("ada"), an_interaction("bob"))


def test_halves_hold_each_record_once_in_order() -> None:
    lists = [name for name, value in zip(Element.__struct_fields__, Element(0).__struct_defaults__, strict=False)]
    element = Element(3, unknown_fields=7, links={"new": "old"})
    names = [name for name in lists if isinstance(getattr(element, name), list)]
    for name in names:
        getattr(element, name).extend([f"{name}-1", f"{name}-2", f"{name}-3"])
    first, second = halves(element)
    for name in names:
        assert getattr(first, name) + getattr(second, name) == getattr(element, name)
    assert (first.bucket, second.bucket, first.unknown_fields + second.unknown_fields) == (3, 3, 7)
    assert first.links == second.links == element.links


def test_dropped_records_are_not_retried() -> None:
    once = replacement_for(Element(3, consents=[poison_consent("ada", BEGINNING)]), INTERACTIONS)
    assert once is not None and once.consents[0].level == 0
    assert replacement_for(once, INTERACTIONS) is None
    assert replacement_for(Element(3, rejects=[a_reject()]), INTERACTIONS) is None
    assert halves(once) == []
