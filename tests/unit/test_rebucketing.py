"""Buckets are divided: every user is where ingest looks for them, and sums stay what they were."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.pseudonyms import kid_of
from schemas.topics import MINUTE_MS
from tests.support.bucket import Bucket
from tests.support.fakes import Appended, DictState, Value
from tests.support.vocabulary import BEGINNING, SECOND
from udfs.account import Account, decode_account, encode_account
from udfs.audit_chain import Book, ChainHead, decode_book, encode_book
from udfs.due_index import DueIndex
from udfs.generations import Caught, decode_caught, encode_caught
from udfs.kids import decode_kids, encode_kids
from udfs.rebucketing import (
    ACCOUNT,
    AUDIT,
    DUE,
    GENERATION,
    KIDS,
    LISTS,
    MAPS,
    REBUILD,
    ROLLOUT,
    SEGMENTS,
    VALUES,
    BucketState,
    DividedUsers,
    divide,
    ended_chains,
    is_settled,
    sources_of,
)
from udfs.rollout import Plan, decode_plan, encode_plan
from udfs.segments import KnownSegments, decode_known, encode_known

pytestmark = pytest.mark.privacy


class Shopper(NamedTuple):
    """A user: `slot` is when they are due, 0 for never; `waits` for their list to be rewritten."""

    name: str
    route: int
    slot: int
    denied: int
    waits: bool


slots = st.integers(1, 200).map(lambda second: BEGINNING // MINUTE_MS * MINUTE_MS + second * SECOND)
shoppers = st.lists(
    st.builds(
        Shopper,
        st.integers(0, 10**6).map(lambda number: f"p{1 + number % 2}.user-{number}"),
        st.integers(0, 2**32 - 1),
        st.just(0) | slots,
        st.integers(0, 3),
        st.booleans(),
    ),
    max_size=40,
    unique_by=lambda shopper: shopper.name,
)
counts = st.integers(1, 12)


def states_of(users: Sequence[Shopper], buckets: int) -> dict[int, BucketState]:
    """The state of a job whose buckets have something of everything."""
    found = {}
    for bucket in range(buckets):
        mine = [user for user in users if user.route % buckets == bucket]
        account = Account(accepted=bucket + 1, duplicates=2, rejected={"malformed": bucket, "too_late": 1}, denied=3)
        book = Book(
            bucket, ChainHead(7, 10 + bucket, f"{bucket:064}", 10), {u.name: u.denied for u in mine if u.denied}
        )
        pages: dict[str, bytes] = {}
        for user in mine:
            if user.slot:
                page = pages.get(str(user.slot))
                pages[str(user.slot)] = user.name.encode() if page is None else page + b"\n" + user.name.encode()
                pages[f"m{user.slot // MINUTE_MS * MINUTE_MS}"] = b"3 %d" % (BEGINNING + MINUTE_MS)
        waiting = "\n".join(user.name for user in mine if user.waits).encode()
        found[bucket] = BucketState(
            {
                ACCOUNT: encode_account(account),
                AUDIT: encode_book(book),
                GENERATION: encode_caught(Caught("now")),
                ROLLOUT: encode_plan(Plan(4, bucket, "v2", "v1")),
                SEGMENTS: encode_known(KnownSegments(5, {"all": bucket, f"country:{bucket}": 1})),
                KIDS: encode_kids(Counter(kid_of(user.name) for user in mine)),
            },
            {name: [b"%d" % bucket, b"2"] for name in LISTS},
            {name: held for name, held in {DUE: pages, REBUILD: {"0/1": waiting} if waiting else {}}.items() if held},
            {user.slot for user in mine if user.slot} | {BEGINNING - 1},
        )
    return found


def rebucketed(
    states: dict[int, BucketState], users: Sequence[Shopper], before: int, after: int
) -> dict[int, BucketState]:
    routes = {user.name: user.route for user in users}
    divided = DividedUsers()
    for user in users:
        divided.add(user.route % after, user.name, kid_of(user.name), user.slot)

    def place(name: str, bucket: int) -> int | None:
        assert routes[name] % before == bucket
        return routes[name] % after

    return divide(states, before, after, divided, place)


def total(states: dict[int, BucketState]) -> tuple[Account, Counter[str]]:
    """The sum of all accounts, and of what was rejected by reason."""
    sums, rejected = Account(), Counter[str]()
    for state in states.values():
        if ACCOUNT in state.values:
            one = decode_account(state.values[ACCOUNT])
            rejected.update(one.rejected)
            sums.accepted, sums.duplicates = sums.accepted + one.accepted, sums.duplicates + one.duplicates
            sums.denied += one.denied
    return sums, rejected


def names_in(pages: dict[str, bytes], wanted: Callable[[str], bool]) -> dict[str, set[str]]:
    return {key: set(page.decode().split("\n")) for key, page in pages.items() if wanted(key)}


@given(users=shoppers, before=counts, after=counts)
def test_users_are_due_counted_and_rewritten_in_the_bucket_where_ingest_looks(
    users: list[Shopper], before: int, after: int
) -> None:
    found = rebucketed(states_of(users, before), users, before, after)
    for bucket in range(after):
        mine = [user for user in users if user.route % after == bucket]
        state = found[bucket]
        slots = names_in(state.maps.get(DUE, {}), str.isdigit)
        assert slots == {str(at): {u.name for u in mine if u.slot == at} for at in {u.slot for u in mine if u.slot}}
        assert {int(at) for at in slots} <= state.timers, "every slot has a timer"
        assert {int(key[1:]) for key in state.maps.get(DUE, {}) if key[0] == "m"} <= state.timers
        waiting = set().union(*names_in(state.maps.get(REBUILD, {}), lambda key: True).values())
        assert waiting == {user.name for user in mine if user.waits}
        kids = decode_kids(state.values.get(KIDS)) or Counter()
        assert kids == Counter(kid_of(user.name) for user in mine)
        denied = decode_book(state.values[AUDIT]).denied
        assert denied == {user.name: user.denied for user in mine if user.denied}


@given(users=shoppers, before=counts, after=counts)
def test_totals_and_what_the_second_has_counted_add_up(users: list[Shopper], before: int, after: int) -> None:
    states = states_of(users, before)
    found = rebucketed(states, users, before, after)
    assert total(found) == total(states)
    for name in LISTS:
        held = Counter(raw for state in states.values() for raw in state.lists[name])
        assert Counter(raw for state in found.values() for raw in state.lists.get(name, [])) == held


@given(users=shoppers)
def test_4_buckets_are_the_same_after_8(users: list[Shopper]) -> None:
    before = states_of(users, 4)
    after = rebucketed(rebucketed(before, users, 4, 8), users, 8, 4)
    for bucket, state in before.items():
        assert decode_account(after[bucket].values[ACCOUNT]) == decode_account(state.values[ACCOUNT])
        assert decode_book(after[bucket].values[AUDIT]) == decode_book(state.values[AUDIT])
        for name in (GENERATION, ROLLOUT, SEGMENTS):
            assert after[bucket].values[name] == state.values[name], name
        assert names_in(after[bucket].maps.get(DUE, {}), str.isdigit) == names_in(state.maps.get(DUE, {}), str.isdigit)


@given(before=counts, after=counts, route=st.integers(0, 2**32 - 1))
def test_a_bucket_says_where_its_users_may_go(before: int, after: int, route: int) -> None:
    assert route % before in sources_of(route % after, before, after)
    if is_settled(before, after):
        assert route % before % after == route % after


def test_a_new_chain_begins_where_one_ends_and_has_nothing_to_sign() -> None:
    found = rebucketed(states_of([], 2), [], 2, 4)
    for bucket in (2, 3):
        parent, book = decode_book(found[bucket - 2].values[AUDIT]), decode_book(found[bucket].values[AUDIT])
        assert (book.bucket, book.head.hash, book.head.seq) == (bucket, parent.head.hash, parent.head.seq)
        assert book.head.signed_seq == book.head.seq
        assert decode_plan(found[bucket].values[ROLLOUT]).bucket == bucket


def test_only_ends_of_chains_that_nobody_goes_on_with_are_left_to_sign() -> None:
    states = states_of([], 4)
    states[2].values[AUDIT] = encode_book(Book(2, ChainHead(7, 12, "", 12)))
    assert [bucket for bucket, _ in ended_chains(states, 2)] == [3]
    assert ended_chains(states, 8) == []


def test_bucket_from_others_that_disagree_on_the_generation_proves_nothing() -> None:
    states = states_of([], 2)
    states[1].values[GENERATION] = encode_caught(Caught("later"))
    found = rebucketed(states, [], 2, 1)
    assert decode_caught(found[0].values[GENERATION]).proven == ""


def test_segments_of_all_sources_stay_known() -> None:
    found = rebucketed(states_of([], 2), [], 2, 1)
    assert decode_known(found[0].values[SEGMENTS]).seen == {"all": 1, "country:0": 1, "country:1": 1}


def test_denied_interactions_of_users_who_are_dropped_are_counted_without_a_name() -> None:
    users = [Shopper("p1.ada", 0, 0, 2, False)]
    found = divide(states_of(users, 1), 1, 2, DividedUsers(), lambda name, bucket: None)
    assert decode_book(found[0].values[AUDIT]).denied == {"": 2}


class Pages(dict[str, bytes]):
    """A dictionary as Flink's MapState."""

    def put(self, key: str, value: bytes) -> None:
        self[key] = value

    def remove(self, key: str) -> None:
        del self[key]

    def is_empty(self) -> bool:
        return not self


def test_index_of_a_new_bucket_forgets_its_minutes_as_they_pass() -> None:
    users = [Shopper(f"p1.{n}", n, BEGINNING // MINUTE_MS * MINUTE_MS + n * SECOND, 0, False) for n in range(1, 5)]
    [_, odd] = rebucketed(states_of(users, 1), users, 1, 2).values()
    pages = Pages(odd.maps[DUE])
    index = DueIndex(pages, 50, Pages())
    for at in sorted(odd.timers):
        index.take(at)
    assert not pages


def test_every_state_of_personalise_has_a_rule_of_its_kind() -> None:
    states = Bucket().keyed.states
    kinds = {Value: VALUES, Appended: LISTS, DictState: MAPS}
    assert {name: type(state) for name, state in states.items()} == {
        name: kind for kind, names in kinds.items() for name in names
    }
