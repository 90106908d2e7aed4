"""Redis loses data: no user with a lost withdrawal is personalised, and lists return by themselves."""

import pytest

from tests.support.oracle import FULL, NONE
from tests.support.vocabulary import ALL_PURPOSES, SECOND
from tests.support.world import InMemory, World

pytestmark = pytest.mark.privacy


def a_world(*users: str) -> World:
    """Users with a list each, a dump of Redis at that time, and one of the empty Redis."""
    world = World(InMemory())
    world.dump()
    for user in users:
        world.say(user, FULL, purposes=ALL_PURPOSES)
        world.click(user, "s1", 0)
        world.read_all()
    world.dump()
    return world


EMPTY, FULL_OF_LISTS = 0, 1


def listed(world: World, *users: str) -> list[bool]:
    return [world.backing.read(f"p1.{user}") is not None for user in users]


def withdraw_acknowledged(world: World, user: str) -> None:
    """An acknowledged withdrawal that the job has not read."""
    world.append_withdrawal(world.withdraw_directly(user, erase=False), placed=True)


@pytest.mark.promise("redis-forgets")
def test_redis_losing_a_withdrawal_serves_no_list_around_the_rebuild() -> None:
    world = a_world("ada", "bob")
    withdraw_acknowledged(world, "ada")
    world.redis_goes_back(FULL_OF_LISTS)
    assert listed(world, "ada", "bob") == [False, False], "nothing is believed before the job has looked"
    world.watch()
    assert listed(world, "ada", "bob") == [False, False], "the old consents are there and count no more"
    world.click("ada", "s1", 0)
    world.read(clicks=1, consents=0, control=0)
    assert listed(world, "ada", "bob") == [False, False], "the bucket has not read the withdrawal yet"
    world.read_all()
    world.pass_time(SECOND)
    assert listed(world, "ada", "bob") == [False, True]


def test_grant_ended_by_lost_withdrawal_is_not_served_during_catch_up() -> None:
    world = a_world("ada")
    world.say("ada", FULL, purposes=ALL_PURPOSES)
    withdraw_acknowledged(world, "ada")
    world.redis_goes_back(FULL_OF_LISTS)
    world.watch()
    world.click("ada", "s1", 0)
    world.read(clicks=1, consents=1, control=0)
    assert listed(world, "ada") == [False], "the grant was read, and the withdrawal behind it was not"


@pytest.mark.promise("redis-forgets")
def test_lists_are_rebuilt_without_events_after_redis_data_loss() -> None:
    users = [f"user-{number}" for number in range(7)]
    world = a_world("ada", "eve", *users)
    world.say("eve", NONE)
    world.read_all()
    before = {user: world.backing.read(f"p1.{user}") for user in users}
    world.redis_goes_back(EMPTY)
    world.watch()
    world.read_all()
    world.pass_time(10 * SECOND)
    assert listed(world, "ada", *users) == [True] * 8
    assert {user: world.backing.read(f"p1.{user}").items for user in users} == {u: b.items for u, b in before.items()}
    assert listed(world, "eve") == [False]
    assert world.bucket.keyed.states["rebuild-v1"].is_empty()


def test_rebuild_continues_after_a_crash() -> None:
    users = [f"user-{number}" for number in range(9)]
    world = a_world(*users)
    world.redis_goes_back(EMPTY)
    world.watch()
    world.read_all()
    world.pass_time(SECOND // 4)
    assert 0 < sum(listed(world, *users)) < 9, "a bounded number at a time"
    world.checkpoint()
    world.crash()
    world.pass_time(10 * SECOND)
    assert listed(world, *users) == [True] * 9


def test_erased_user_is_in_no_rebuild_page() -> None:
    users = [f"user-{number}" for number in range(9)]
    world = a_world(*users)
    world.redis_goes_back(EMPTY)
    world.watch()
    world.read_all()
    for user in users:
        world.say(user, NONE, erase=True)
    world.read_all()
    assert b"user-" not in world.everything_kept()
    world.pass_time(10 * SECOND)
    assert listed(world, *users) == [False] * 9


def test_marks_are_requested_until_read() -> None:
    world = a_world("ada")
    world.redis_goes_back(EMPTY)
    asked = []
    for _ in range(3):
        world.bucket.watch()
        asked.append(len(world.bucket.marks_asked_for))
    assert asked == [1, 2, 3]
    world.watch()
    world.read_all()
    world.bucket.watch()
    assert world.bucket.marks_asked_for == []


def test_empty_bucket_is_not_watched() -> None:
    world = a_world("ada")
    world.say("ada", NONE, erase=True)
    world.read_all()
    world.bucket.keyed.timers.clear()
    world.watch()
    assert world.bucket.keyed.timers == set()
    world.say("ada", FULL, purposes=ALL_PURPOSES)
    world.read_all()
    assert world.bucket.keyed.timers != set()
