"""The core of the journey against its naive twin: the packing of records must not matter."""

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.events import EVENT_TYPES
from schemas.rejects import RejectReason
from tests.support.examples import examples
from tests.support.naive import NaiveReplay, differences, plain
from tests.support.vocabulary import (
    BEGINNING,
    INTERACTIONS,
    KEY_RING,
    MINUTE,
    SECOND,
    a_consent,
    a_raw_command,
    a_raw_consent,
    a_raw_interaction,
    a_reject,
    a_tombstone,
    a_user,
    an_ingest,
    an_interaction,
)
from udfs.account import Account
from udfs.elements import Element, unpack
from udfs.ingest import RawRecord
from udfs.personalise import Changes, Users, apply, clean_event
from udfs.profile import ProfileBounds
from udfs.state import UserState, decode_state, encode_state

SMALL = ProfileBounds(bought_items_max=2, event_ids_max=6, dedupe_horizon_ms=40 * MINUTE, session_gap_ms=10 * MINUTE)
BOUNDS = ProfileBounds()


class Buckets:
    """Four buckets that run the rules as the job would: batches go in, states and accounts remain."""

    def __init__(self, bounds: ProfileBounds) -> None:
        self.bounds = bounds
        self.ingest = an_ingest(buckets=4)
        self.stored: dict[str, bytes] = {}
        self.accounts = [Account() for _ in range(4)]
        self.rejects: Counter[str] = Counter()

    def take(self, batch: list[RawRecord]) -> None:
        for _, packed in self.ingest.pack(batch):
            element = unpack(packed)
            users = Users(self.stored.get)
            changes = apply(element, users, self.accounts[element.bucket], self.bounds, INTERACTIONS)
            self.rejects.update(reject.reason.value for reject in changes.rejects)
            self.stored.update(users.writes())
            for pseudonym in users.erased():
                del self.stored[pseudonym]

    def states(self) -> dict[str, dict[str, Any]]:
        return {pseudonym: plain(decode_state(raw)) for pseudonym, raw in self.stored.items()}

    def account(self) -> dict[str, Any]:
        total: dict[str, Any] = {"sent": sum(account.sent for account in self.accounts)}
        for account in self.accounts:
            for name, value in msgspec.structs.asdict(account).items():
                known = total.get(name)
                total[name] = (
                    dict(Counter(known or {}) + Counter(value)) if name == "rejected" else (known or 0) + value
                )
        return total


USERS = st.sampled_from(["ada", "bob", "cyd"])
seconds = st.integers(-45 * 60, 75 * 60)

raw_consents = (
    st.builds(
        a_raw_consent,
        user=USERS,
        level=st.sampled_from(["full", "session", "none", "full"]),
        at=st.integers(0, 40).map(lambda n: BEGINNING + n * MINUTE),
        erase=st.sampled_from([False, False, False, True]),
        denied=st.sampled_from([[], [], ["train"], ["personalise"]]),
        expires_at=st.sampled_from([BEGINNING + 60 * MINUTE, BEGINNING + 900 * MINUTE]),
    )
    | st.builds(a_tombstone, user=USERS)
    | st.builds(a_raw_consent, user=USERS, level=st.just("much"))
)
good = st.builds(
    a_raw_interaction,
    user=USERS | st.just("nobody"),
    at=seconds.map(lambda n: BEGINNING + n * SECOND),
    item=st.integers(0, 30).map("i{}".format),
    kind=st.sampled_from(EVENT_TYPES),
    id=st.integers(0, 25).map("e{}".format),
    session_id=st.sampled_from([None, "s1", "s2"]),
)
bad = st.sampled_from(
    [
        a_raw_interaction(at=BEGINNING * 2),
        a_raw_interaction(at=1),
        a_raw_interaction(item=None),
        a_raw_interaction()._replace(value=b"{"),
        a_raw_interaction()._replace(value=None),
        a_raw_interaction(unheard_of="x"),
        a_raw_consent()._replace(key=None, value=b"[]"),
        a_raw_command(kind="dance"),
    ]
)


def in_order(records: list[RawRecord]) -> list[RawRecord]:
    """Growing offsets and append times, as from the broker. Broken times stay broken."""
    placed = enumerate(records)
    return [record._replace(offset=n, append_ts=BEGINNING + n * MINUTE) for n, record in placed]


def in_batches(records: list[RawRecord], cuts: list[int]) -> list[list[RawRecord]]:
    edges = [0, *sorted(min(cut, len(records)) for cut in cuts), len(records)]
    return [records[start:end] for start, end in itertools.pairwise(edges)]


def as_twin_takes_them(records: list[RawRecord]) -> list[tuple[str, int, int, bytes | None, bytes | None]]:
    return [(record.topic, record.append_ts, record.offset, record.key, record.value) for record in records]


def assert_equal_to_the_twin(records: list[RawRecord], batches: list[list[RawRecord]]) -> None:
    buckets, twin = Buckets(SMALL), NaiveReplay(KEY_RING, SMALL).feed(as_twin_takes_them(records))
    for batch in batches:
        buckets.take(batch)
    assert differences(twin.states(), buckets.states()) == []
    assert buckets.account() == twin.account()
    assert sum(buckets.rejects.values()) == sum(twin.account()["rejected"].values()) + twin.account()["others_rejected"]


thorough = settings(max_examples=examples(80), deadline=None, suppress_health_check=[HealthCheck.too_slow])


@thorough
@given(
    st.lists(raw_consents, max_size=8),
    st.lists(good | good | good | bad, max_size=60),
    st.lists(st.integers(0, 70), max_size=8),
)
def test_result_is_independent_of_batching(
    consents: list[RawRecord], interactions: list[RawRecord], cuts: list[int]
) -> None:
    records = in_order([*consents, *interactions])
    assert_equal_to_the_twin(records, in_batches(records, cuts))


@thorough
@given(st.lists(good | good | raw_consents | bad, max_size=60))
def test_result_is_independent_of_record_order(records: list[RawRecord]) -> None:
    records = in_order(records)
    assert_equal_to_the_twin(records, [[record] for record in records])


lasting = st.builds(a_raw_consent, user=USERS, level=st.sampled_from(["full", "full", "none"]))


@thorough
@given(st.lists(lasting, min_size=1, max_size=5), st.lists(good, max_size=20), st.lists(st.integers(0, 25), max_size=4))
def test_replayed_records_change_nothing(
    consents: list[RawRecord], interactions: list[RawRecord], cuts: list[int]
) -> None:
    records = in_order([*consents, *interactions])
    buckets = Buckets(BOUNDS)
    buckets.take(records)
    states, accepted = buckets.states(), buckets.account()["accepted"]
    for batch in in_batches(records, cuts):
        buckets.take(batch)
    assert (buckets.states(), buckets.account()["accepted"]) == (states, accepted)


def carry_out(element: Element, stored: dict[str, bytes]) -> tuple[Changes, Users, Account]:
    users, account = Users(stored.get), Account()
    return apply(element, users, account, BOUNDS, INTERACTIONS), users, account


def a_store_of(**states: UserState) -> dict[str, bytes]:
    return {name: encode_state(state) for name, state in states.items()}


def test_within_an_element_consents_are_applied_first() -> None:
    element = Element(0, [an_interaction(at=BEGINNING + SECOND)], [a_consent(at=BEGINNING)])
    changes, users, account = carry_out(element, {})
    assert account.accepted == 1
    assert changes.moved == {"ada": BEGINNING + SECOND}
    assert [pseudonym for pseudonym, _ in users.writes()] == ["ada"]


def test_denied_or_duplicate_records_write_nothing() -> None:
    stored = a_store_of(ada=a_user())
    _, users, _ = carry_out(Element(0, [an_interaction()]), stored)
    stored.update(users.writes())
    changes, users, account = carry_out(Element(0, [an_interaction(), an_interaction(user="nobody")]), stored)
    assert (changes.moved, changes.accepted, users.writes()) == ({}, [], [])
    assert (account.duplicates, account.denied) == (1, 1)


def test_user_time_is_the_newest_append_time() -> None:
    events = [an_interaction(at=BEGINNING + n * SECOND, item=f"i{n}") for n in (3, 1, 2)]
    changes, _, _ = carry_out(Element(0, events), a_store_of(ada=a_user()))
    assert changes.moved == {"ada": BEGINNING + 3 * SECOND}


def test_too_late_events_are_rejected_with_their_origin() -> None:
    old = an_interaction(at=BEGINNING, appended=BEGINNING + 9 * SECOND, offset=7, item="old")
    new = an_interaction(at=BEGINNING + BOUNDS.dedupe_horizon_ms + 1)
    changes, _, account = carry_out(Element(0, [new, old]), a_store_of(ada=a_user()))
    [reject] = changes.rejects
    assert (reject.reason, reject.origin.topic, reject.origin.offset) == (RejectReason.TOO_LATE, INTERACTIONS, 7)
    assert account.rejected == {"too_late": 1}


def test_interaction_rejects_are_counted_separately() -> None:
    element = Element(0, rejects=[a_reject(), a_reject(topic="t.consents")], unknown_fields=3)
    _, _, account = carry_out(element, {})
    assert (account.rejected, account.others_rejected, account.unknown_fields) == ({"malformed": 1}, 1, 3)


def test_renewed_consent_rewrites_the_list_and_withdrawal_does_not() -> None:
    stored = a_store_of(ada=a_user())
    _, users, _ = carry_out(Element(0, [an_interaction()]), stored)
    stored.update(users.writes())
    renewed, _, _ = carry_out(Element(0, consents=[a_consent(at=BEGINNING + MINUTE)]), stored)
    assert renewed.moved == {"ada": BEGINNING + MINUTE}
    withdrawn, _, _ = carry_out(Element(0, consents=[a_consent(level="none", at=BEGINNING + MINUTE)]), stored)
    assert withdrawn.moved == {}


def of_purposes(purposes: int, level: Any = "full") -> bytes | None:
    return clean_event(an_interaction(), a_user(level, purposes=purposes))


def test_clean_events_carry_purposes_and_are_omitted_without_any() -> None:
    wanted: Callable[[bytes | None], Any] = lambda raw: msgspec.json.decode(raw or b"")["purposes"]  # noqa: E731
    assert wanted(of_purposes(0b111)) == ["personalise", "measure", "train"]
    assert wanted(of_purposes(0b101)) == ["personalise", "train"]
    assert of_purposes(0b001) is None
    assert of_purposes(0b111, "session") is None
