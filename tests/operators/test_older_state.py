"""State from before user counts and indexed pages: it restores and is migrated."""

import pytest

from schemas.receipts import KidsReceipt
from tests.support.bucket import Bucket, receipts
from tests.support.vocabulary import BEGINNING, DAY, HOUR, MINUTE, a_command, a_consent, an_erasure, an_interaction
from udfs.elements import BucketMark

pytestmark = pytest.mark.privacy

USERS = [f"p1.user-{number}" for number in range(30)]
SOMEWHERE_ELSE = str(BEGINNING + 3 * HOUR)


@pytest.fixture
def restored() -> Bucket:
    """Thirty users in pages of an earlier release, each of them also named in a second place."""
    bucket = Bucket()
    for user in USERS:
        bucket.take(a_consent(user, expires_at=BEGINNING + DAY), an_interaction(user))
    states = bucket.keyed.states
    older, pages = states["due-v1"], states["due-v2"]
    for key in list(pages.data):
        older.put(key, b"30" if key.startswith("m") else pages.data[key])
        pages.remove(key)
    older.put(SOMEWHERE_ELSE, "\n".join(USERS).encode())
    del states["kids-v1"]
    bucket.restart(bucket.keyed.snapshot())
    return bucket


def known(bucket: Bucket) -> bytes:
    return b"".join(key.encode() + value for key, value in bucket.pages.items())


def kids(bucket: Bucket) -> dict[str, int]:
    [receipt] = receipts(bucket.take(commands=[a_command("kids")]), KidsReceipt)
    users: dict[str, int] = receipt.users
    return users


@pytest.mark.parametrize("timers_first", [False, True])
def test_erased_user_is_removed_from_older_pages(restored: Bucket, timers_first: bool) -> None:
    if timers_first:
        restored.pass_time(MINUTE)
        assert restored.keyed.states["due-v1"].is_empty(), "moved over by the first timers"
    restored.take(an_erasure(USERS[7], BEGINNING + HOUR))
    names = known(restored).replace(b"\n", b" ").split()
    assert USERS[7].encode() not in names and USERS[8].encode() in names


def test_users_of_older_state_come_due_once(restored: Bucket) -> None:
    restored.pass_time(DAY + 2 * MINUTE)
    assert all(restored.user(user).profile is None for user in USERS)  # type: ignore[union-attr]
    restored.run_out_of_timers()
    assert restored.pages == {}


def test_users_of_older_state_are_counted_on_first_request(restored: Bucket) -> None:
    restored.take(a_consent("p1.eve"), an_erasure(USERS[0], BEGINNING + HOUR))
    assert kids(restored) == {"1": 30}
    restored.take(an_erasure(USERS[1], BEGINNING + HOUR), links={"p2.user-2": "p1.user-2"})
    assert kids(restored) == {"1": 28, "2": 1}


def test_rebuild_begun_by_earlier_release_continues_without_erased_users(restored: Bucket) -> None:
    restored.take(marks=[BucketMark("1" * 12, 0, 1)])
    rebuild = restored.keyed.states["rebuild-v1"]
    names = b"\n".join(rebuild.data.values()).split(b"\n")
    rebuild.data.clear()
    for place in range(3):
        rebuild.put(str(place), b"\n".join(names[place::3]))
    restored.take(an_erasure(USERS[7], BEGINNING + HOUR))
    left = b"\n".join(rebuild.data.values()).split(b"\n")
    assert sorted(left) == sorted(name for name in names if name != USERS[7].encode())
    restored.pass_time(MINUTE)
    assert rebuild.is_empty()
