"""Random histories of one bucket against a naive oracle: never a personalised list without valid consent."""

import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from schemas.lists import RecommendationList
from tests.support.oracle import FULL, NONE, SESSION, purpose_names, standing
from tests.support.redis_server import RealRedis, running_redis
from tests.support.vocabulary import ALL_PURPOSES, DAY, HOUR, MINUTE, SECOND
from tests.support.world import InMemory, InRedis, World, of_an_earlier_release
from udfs.kids import count_kids, decode_kids

pytestmark = pytest.mark.privacy

HISTORIES = int(os.environ.get("FRESHET_HISTORIES", "60"))
STEPS = 40
USERS = ("ada", "bob")
DUE_WITHIN_MS = 3 * MINUTE
"""An expired consent comes due with its minute, and a full minute passes some on to the next."""

users = st.sampled_from(USERS)
sizes = st.sampled_from([0, 1, 1, 2, 3, 100])
purposes = st.sampled_from([ALL_PURPOSES, ALL_PURPOSES, 0b001, 0b011, 0b101])
a_while_ago = st.sampled_from([0, 0, 0, 1, 2, 4, 8, 1000])
sessions = st.sampled_from(["s1", "s2", None])


class Histories(RuleBasedStateMachine):
    """The events that may happen, in any order, and the invariants after each step."""

    backing: Callable[[], Any] = InMemory

    def __init__(self) -> None:
        super().__init__()
        self.world = World(type(self).backing())
        self.fences: list[tuple[Any, bool]] = []
        self.shown: dict[str, tuple[Any, tuple[int, int]]] = {}

    # what users do

    @rule(user=users, session=sessions, late=st.sampled_from([0, 0, SECOND, HOUR]))
    def click(self, user: str, session: str | None, late: int) -> None:
        self.world.click(user, session, late)

    @rule(user=users, session=sessions, clicks=st.integers(1, 3))
    def visit(self, user: str, session: str | None, clicks: int) -> None:
        for _ in range(clicks):
            self.world.click(user, session, 0)
        self.world.read_all()

    @precondition(lambda self: self.world.clicks)
    @rule(back=st.integers(1, 6))
    def click_again(self, back: int) -> None:
        self.world.click_again(max(0, len(self.world.clicks) - back))

    @rule()
    def click_badly(self) -> None:
        self.world.click_badly()

    @rule(user=users, level=st.sampled_from([FULL, FULL, SESSION]), purposes=purposes, ago=a_while_ago, data=st.data())
    def grant(self, user: str, level: int, purposes: int, ago: int, data: Any) -> None:
        ends = [0, 0, MINUTE, HOUR, 2 * DAY] if self.world.backing.has_time else [0]
        expires_in = data.draw(st.sampled_from(ends), label="expires_in")
        self.world.say(user, level, ago, expires_in, purposes=purposes)

    @rule(user=users, purposes=st.sampled_from([0b010, 0b100, 0b110]), ago=a_while_ago, data=st.data())
    def grant_all_but_personalisation(self, user: str, purposes: int, ago: int, data: Any) -> None:
        ends = [0, 0, MINUTE, HOUR] if self.world.backing.has_time else [0]
        expires_in = data.draw(st.sampled_from(ends), label="expires_in")
        self.world.say(user, NONE, ago, expires_in, purposes=purposes)

    @rule(user=users, ago=a_while_ago, how=st.sampled_from(["none", "erase", "absent"]))
    def end(self, user: str, ago: int, how: str) -> None:
        absent = how == "absent"
        self.world.say(user, NONE, 0 if absent else ago, erase=how == "erase", absent=absent)

    @rule(user=users, erase=st.booleans(), then=st.sampled_from(["acknowledged", "appended", "later", "never"]))
    def end_directly(self, user: str, erase: bool, then: str) -> None:
        fence = self.world.withdraw_directly(user, erase)
        if then in ("acknowledged", "appended"):
            self.world.append_withdrawal(fence, placed=then == "acknowledged")
        elif then == "later":
            self.fences.append((fence, erase))

    @precondition(lambda self: self.fences)
    @rule(placed=st.booleans())
    def append_what_waited(self, placed: bool) -> None:
        self.world.append_withdrawal(self.fences.pop(0)[0], placed)

    @rule(user=users, erase=st.booleans(), ago=a_while_ago, kept=st.booleans())
    def leave_and_return(self, user: str, erase: bool, ago: int, kept: bool) -> None:
        if kept:
            self.world.savepoint()
        self.world.say(user, NONE, erase=erase)
        self.world.say(user, FULL, ago, purposes=ALL_PURPOSES)
        self.world.read_all()

    # what the job does

    @rule(clicks=sizes, consents=sizes, control=sizes)
    def read(self, clicks: int, consents: int, control: int) -> None:
        self.world.read(clicks, consents, control)

    @precondition(lambda self: self.world.backing.has_time)
    @rule(ms=st.sampled_from([0, SECOND, MINUTE, 31 * MINUTE, 3 * HOUR, DAY]))
    def pass_time(self, ms: int) -> None:
        self.world.pass_time(ms)

    @rule()
    def checkpoint(self) -> None:
        self.world.checkpoint()

    @rule()
    def crash(self) -> None:
        self.world.crash()

    @rule()
    def savepoint(self) -> None:
        self.world.savepoint()

    @precondition(lambda self: self.world.savepoints)
    @rule(which=st.integers(0, 5))
    def restore(self, which: int) -> None:
        kept = self.world.savepoints
        self.world.submit(kept[which % len(kept)])

    @precondition(lambda self: self.world.savepoints)
    @rule(which=st.integers(0, 5))
    def restore_what_an_earlier_release_kept(self, which: int) -> None:
        kept = self.world.savepoints
        self.world.submit(of_an_earlier_release(kept[which % len(kept)]))

    @precondition(lambda self: self.world.savepoints)
    @rule(user=users, back=st.integers(0, 2))
    def restore_and_click(self, user: str, back: int) -> None:
        """The job reads consents later than the clicks after them."""
        self.world.click(user, "s1", 0)
        kept = self.world.savepoints
        self.world.submit(kept[max(0, len(kept) - 1 - back)])
        self.world.read(len(self.world.clicks), 0, 0)

    @rule(faults=st.lists(st.sampled_from(["before", "after"]), min_size=1, max_size=4))
    def lose_calls(self, faults: list[str]) -> None:
        self.world.store.faults += faults

    @precondition(lambda self: self.world.backing.has_time)
    @rule()
    def outlive_tombstones(self) -> None:
        self.world.outlive_tombstones()

    # what Redis does

    @precondition(lambda self: self.world.backing.has_time)
    @rule()
    def dump(self) -> None:
        self.world.dump()

    @precondition(lambda self: self.world.dumps)
    @rule(which=st.integers(0, 3), watched=st.booleans())
    def redis_goes_back(self, which: int, watched: bool) -> None:
        self.shown.clear()
        self.world.redis_goes_back(which)
        if watched:
            self.world.watch()

    @precondition(lambda self: self.world.backing.has_time)
    @rule(user=users, erase=st.booleans())
    def redis_forgets_that_a_user_left(self, user: str, erase: bool) -> None:
        """The job has read neither the grant nor the later, acknowledged withdrawal."""
        self.world.read_all()
        self.what_must_hold()
        self.world.say(user, FULL, purposes=ALL_PURPOSES)
        self.world.dump()
        self.end_directly(user, erase, "acknowledged")
        self.redis_goes_back(len(self.world.dumps) - 1, watched=True)
        self.world.click(user, "s1", 0)
        self.world.read(clicks=1, consents=1, control=0)

    @precondition(lambda self: self.world.dumps)
    @rule(clicks=sizes, consents=sizes)
    def watch(self, clicks: int, consents: int) -> None:
        self.world.watch()
        self.world.read(clicks, consents, 0)
        self.world.pass_time(SECOND)

    # rotation

    @precondition(lambda self: self.world.ring.previous is None)
    @rule()
    def start_rotation(self) -> None:
        self.world.start_rotation()

    @precondition(lambda self: self.world.ring.previous is None)
    @rule(user=users, erase=st.booleans(), ago=a_while_ago)
    def leave_before_a_rotation_and_return_after(self, user: str, erase: bool, ago: int) -> None:
        self.world.say(user, NONE, erase=erase)
        self.world.read_all()
        self.world.start_rotation()
        self.world.savepoint()
        self.world.submit(self.world.savepoints[-1])
        self.world.say(user, FULL, ago, purposes=ALL_PURPOSES)
        self.visit(user, "s1", 1)

    @precondition(lambda self: self.world.job_ring.previous is not None)
    @rule()
    def relink(self) -> None:
        self.world.relink()

    @precondition(lambda self: self.world.may_end_rotation())
    @rule()
    def end_rotation(self) -> None:
        self.world.end_rotation()

    # what must hold

    @invariant()
    def what_must_hold(self) -> None:
        self.no_list_without_consent_in_force()
        self.nothing_kept_without_consent()
        self.nothing_is_left_of_the_erased()
        self.clean_events_are_consented()
        self.the_account_adds_up()
        self.users_are_counted_and_stand_in_one_place()

    def no_list_without_consent_in_force(self) -> None:
        for user in USERS:
            found = [raw for name in self.world.ring.names(user) if (raw := self.world.backing.read(name)) is not None]
            if not found:
                self.shown.pop(user, None)
            for listed in found:
                self._is_allowed(user, listed)
            if found:
                self._does_not_go_back(user, found[0])

    def _is_allowed(self, user: str, listed: RecommendationList) -> None:
        allowed = standing(self.world.known(user))
        assert allowed.level > NONE and not allowed.ended_by(self.world.now), f"{user} has a list and no consent"
        assert listed.reason == ("session" if allowed.level == SESSION else "personalised")
        sent = [self.world.appended(item.id) for item in listed.items]
        for clicks in sent:
            assert clicks[0].user == user, "a list of somebody else's items"
            assert any(click.at >= allowed.since for click in clicks), "an item from before the consent in force"
        if allowed.level == SESSION:
            assert len({clicks[0].session for clicks in sent}) == 1, "more than one session in a list"

    def _does_not_go_back(self, user: str, listed: RecommendationList) -> None:
        under = [self.world.backing.consent(name) for name in self.world.ring.names(user)]
        place, version = (listed.epoch, under), (listed.epoch, listed.v)
        if user in self.shown and self.shown[user][0] == place:
            assert version >= self.shown[user][1], "readers saw a later version before"
        self.shown[user] = place, version

    def nothing_kept_without_consent(self) -> None:
        world = self.world
        for user, state in world.states():
            if state.profile is None or not state.profile.event_ids:
                continue
            allowed = standing(world.read_of(user))
            assert allowed.level > NONE or allowed.alone, f"a profile of {user} without consent"
            profile = state.profile
            assert allowed.level > NONE or not (profile.recents or profile.session or any(profile.counts)), "a taste"
            for item, _, _ in state.profile.recents:
                assert any(click.at >= allowed.since for click in world.appended(item)), "an item from a denied period"
            assert not allowed.ended_by(world.fired_at - DUE_WITHIN_MS), "a profile after the consent's end"

    def nothing_is_left_of_the_erased(self) -> None:
        world = self.world
        for user in USERS:
            read = [change for change in world.consents[: world.position.consents] if change.user == user]
            if read and read[-1].erase and user in world.named:
                assert f".{user}".encode() not in world.everything_kept(), f"something of {user} in state"

    def clean_events_are_consented(self) -> None:
        for clean in self.world.emitted_clean:
            user = clean["pseudonym"].partition(".")[2]
            allowed = standing(self.world.read_of(user))
            purposes = allowed.purposes if allowed.level == FULL else allowed.alone
            assert purposes & 0b110, f"a clean event of {user} without consent"
            assert clean["purposes"] == purpose_names(purposes)
            sent = self.world.appended(clean["item_id"])
            assert any(allowed.allows(click.at) for click in sent), "a clean event from a denied period"
        self.world.emitted_clean.clear()

    def the_account_adds_up(self) -> None:
        if self.world.position.clicks:
            assert self.world.bucket.account.sent == self.world.position.clicks

    def users_are_counted_and_stand_in_one_place(self) -> None:
        states = self.world.bucket.keyed.states
        kids = decode_kids(states["kids-v1"].value())
        assert kids is None or kids == count_kids(states["users-v1"].data)
        for key, page in states["due-v2"].data.items():
            for name in page.decode().split("\n") if key.isdigit() else []:
                state = self.world.bucket.user(name)
                assert state is not None and state.due_slot == int(key), "a name where nobody stands"

    def teardown(self) -> None:
        self.world.checkpoint()
        assert self.world.findings() == []


def run(backing: Callable[[], Any], histories: int) -> None:
    machine = type("Histories", (Histories,), {"backing": staticmethod(backing)})
    budget = settings(
        max_examples=histories,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    logging.disable(logging.WARNING)  # each lost call would be logged
    try:
        run_state_machine_as_test(machine, settings=budget)
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.promise("any-history", "redis-forgets")
def test_random_histories_keep_nothing_without_consent() -> None:
    run(InMemory, HISTORIES)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRedis]:
    with running_redis(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.mark.promise("any-history")
def test_random_histories_keep_nothing_without_consent_on_real_redis(server: RealRedis) -> None:
    run(lambda: InRedis(server), HISTORIES // 5)


def a_world(*grants: str) -> World:
    """Users who have consented and clicked, and have a list from that."""
    world = World(InMemory())
    for user in grants:
        world.say(user, FULL, purposes=ALL_PURPOSES)
        world.read_all()
        world.click(user, "s1", 0)
        world.read_all()
        assert world.backing.read(f"p1.{user}") is not None
    return world


def test_two_erasures_of_denied_user_in_one_element_are_applied() -> None:
    world = a_world()
    world.say("ada", NONE)
    world.click("ada", "s1", 0)
    world.read_all()
    world.say("ada", NONE, erase=True)
    world.say("ada", NONE, erase=True)
    world.read_all()
    assert b".ada" not in world.everything_kept()


@pytest.mark.parametrize("erase", [False, True])
def test_restore_from_before_grant_keeps_nothing_after_departure(erase: bool) -> None:
    world = World(InMemory())
    world.savepoint()
    world.say("ada", FULL, purposes=ALL_PURPOSES)
    world.click("ada", "s1", 0)
    world.read_all()
    assert len(world.emitted_clean) == 1
    world.say("ada", NONE, erase=erase)
    world.read_all()
    world.submit(world.savepoints[0])
    world.emitted_clean.clear()
    world.read(clicks=1, consents=1, control=0)
    assert world.emitted_clean == []
    assert [state.profile for _, state in world.states()] == [None]
    assert world.backing.read("p1.ada") is None


def test_early_restore_keeps_nothing_from_before_erasure_of_returned_user() -> None:
    world = World(InMemory())
    world.savepoint()
    world.say("ada", FULL, purposes=ALL_PURPOSES)
    world.click("ada", "s1", 0)
    world.say("ada", NONE, erase=True)
    world.say("ada", FULL, purposes=ALL_PURPOSES)
    world.read_all()
    world.submit(world.savepoints[0])
    world.read(clicks=1, consents=1, control=0)
    assert world.emitted_clean == []
    assert [state.profile for _, state in world.states()] == [None]


def test_regrant_after_withdrawal_is_served_when_replayed_in_one_batch() -> None:
    world = World(InMemory())
    world.say("ada", FULL, purposes=ALL_PURPOSES)
    world.say("ada", NONE)
    world.read_all()
    world.crash()
    world.say("ada", FULL, purposes=ALL_PURPOSES)
    world.click("ada", "s1", 0)
    world.read_all()
    assert world.backing.read("p1.ada") is not None


def test_grant_from_before_an_erasure_counts_after_redis_has_lost_both() -> None:
    world = World(InMemory())
    world.savepoint()
    world.dump()
    world.say("ada", NONE, erase=True)
    world.say("ada", FULL, 1, purposes=ALL_PURPOSES)
    world.read_all()
    world.redis_goes_back(0)
    world.watch()
    world.read_all()
    world.pass_time(SECOND)
    world.submit(world.savepoints[0])
    world.click("ada", "s1", 0)
    world.read_all()
    assert world.emitted_clean == []
    assert [state.profile for _, state in world.states()] == [None]
