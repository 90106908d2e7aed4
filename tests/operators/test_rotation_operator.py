"""A rotation of the user key in the operator on fakes: each user moves completely and once."""

from typing import Any

import msgspec
import pytest

from schemas.receipts import KidsReceipt
from tests.support.bucket import Bucket, receipts
from tests.support.fakes import MemoryStore
from tests.support.vocabulary import (
    BEGINNING,
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    a_command,
    a_consent,
    an_erasure,
    an_interaction,
)
from udfs.elements import BucketMark
from udfs.state import UserState

pytestmark = pytest.mark.privacy

LINKS = {"p2.ada": "p1.ada", "p2.bob": "p1.bob"}


@pytest.fixture
def bucket() -> Bucket:
    """A bucket that knows Ada and Bob under their previous pseudonyms."""
    made = Bucket()
    for n, user in enumerate(("p1.ada", "p1.bob")):
        made.take(a_consent(user), *(an_interaction(user, BEGINNING + k * SECOND, f"i{n}{k}") for k in range(3)))
    return made


def relinked(bucket: Bucket, *users: str) -> list[Any]:
    """The effect of a `relink` command: an element that only names the users."""
    return bucket.take(links={user: LINKS[user] for user in users})


def but_for_the_slot(state: UserState | None) -> UserState:
    assert state is not None
    return msgspec.structs.replace(state, due_slot=0)


def test_rotation_keeps_profile_and_list_under_the_new_pseudonym(bucket: Bucket) -> None:
    state, found = but_for_the_slot(bucket.user("p1.ada")), bucket.list("p1.ada")
    for _ in range(2):
        relinked(bucket, "p2.ada")
        assert but_for_the_slot(bucket.user("p2.ada")) == state
        assert bucket.list("p2.ada") == found
        assert bucket.user("p1.ada") is None and not bucket.store.has_list_key("p1.ada")
        assert b"p1.ada" not in b"".join(bucket.pages.values())
    assert bucket.user("p1.bob") is not None, "who was not named stays"


def test_first_interaction_during_rotation_moves_its_user(bucket: Bucket) -> None:
    bucket.take(an_interaction("p2.ada", BEGINNING + MINUTE, "tea"), links=LINKS)
    state = bucket.user("p2.ada")
    assert state is not None and state.profile is not None
    assert [item for item, _, _ in state.profile.recents] == ["i00", "i01", "i02", "tea"]
    found = bucket.list("p2.ada")
    assert found is not None and found.v == state.version
    assert bucket.account.denied == 0


def test_duplicate_across_the_move_is_recognised(bucket: Bucket) -> None:
    again = an_interaction("p1.ada", BEGINNING + 2 * SECOND, "i02")
    bucket.take(msgspec.structs.replace(again, pseudonym="p2.ada"), links=LINKS)
    assert bucket.account.duplicates == 1


def test_withdrawal_during_rotation_finds_the_old_pseudonym(bucket: Bucket) -> None:
    bucket.take(a_consent("p2.ada", "none", BEGINNING + HOUR), links=LINKS)
    state = bucket.user("p2.ada")
    assert state is not None and state.profile is None and state.level == 0
    assert bucket.user("p1.ada") is None
    assert bucket.list("p2.ada") is None and bucket.list("p1.ada") is None


def test_erasure_during_rotation_removes_both_pseudonyms(bucket: Bucket) -> None:
    bucket.take(an_erasure("p2.ada", BEGINNING + HOUR), links=LINKS)
    assert bucket.user("p1.ada") is None and bucket.user("p2.ada") is None
    assert not bucket.store.has_list_key("p1.ada") and bucket.store.is_gone("p2.ada")
    assert b".ada" not in b"".join(bucket.pages.values())


def test_delayed_grant_does_not_restore_user_erased_before_rotation(bucket: Bucket) -> None:
    bucket.take(an_erasure("p1.ada", BEGINNING + HOUR))
    waited = a_consent("p2.ada", at=BEGINNING + 2 * HOUR, said_at=BEGINNING + HOUR)
    bucket.take(waited, an_interaction("p2.ada", BEGINNING + 2 * HOUR, "tea"), links=LINKS)
    assert bucket.list("p2.ada") is None
    state = bucket.user("p2.ada")
    assert state is None or state.profile is None


def test_restore_from_before_erasure_and_rotation_restores_nothing(bucket: Bucket) -> None:
    snapshot = bucket.keyed.snapshot()
    bucket.take(an_erasure("p1.ada", BEGINNING + HOUR))
    bucket.restart(snapshot)
    bucket.take(an_interaction("p2.ada", BEGINNING + 2 * MINUTE, "tea"), links=LINKS)
    assert bucket.user("p1.ada") is None and bucket.user("p2.ada") is None
    assert bucket.list("p2.ada") is None


def test_relink_after_restore_forgets_erased_users(bucket: Bucket) -> None:
    relinked(bucket, "p2.ada")
    snapshot = bucket.keyed.snapshot()
    bucket.take(an_erasure("p2.ada", BEGINNING + HOUR), links=LINKS)
    bucket.restart(snapshot)
    assert bucket.user("p2.ada") is not None
    relinked(bucket, "p2.ada")
    assert bucket.user("p2.ada") is None


@pytest.mark.parametrize("crash_after", range(4))
def test_crash_during_move_changes_nothing(bucket: Bucket, crash_after: int) -> None:
    expected = {
        name: (but_for_the_slot(bucket.user(f"p1.{name}")), bucket.list(f"p1.{name}")) for name in ("ada", "bob")
    }
    snapshot = bucket.keyed.snapshot()
    steps = ["p2.ada", "p2.bob", "p2.ada"]
    for user in steps[:crash_after]:
        relinked(bucket, user)
    bucket.restart(snapshot)
    for user in steps:
        relinked(bucket, user)
    for name, (state, found) in expected.items():
        assert but_for_the_slot(bucket.user(f"p2.{name}")) == state
        assert bucket.list(f"p2.{name}") == found
        assert bucket.user(f"p1.{name}") is None and not bucket.store.has_list_key(f"p1.{name}")


def test_due_entries_move_to_the_new_pseudonym(bucket: Bucket) -> None:
    relinked(bucket, "p2.ada", "p2.bob")
    bucket.pass_time(2 * DAY)
    assert bucket.list("p2.ada") is not None, "refreshed"
    bucket.run_out_of_timers()
    assert bucket.list("p2.ada") is None, "forgotten in the end"
    assert bucket.pages == {}


def test_job_reports_users_per_key(bucket: Bucket) -> None:
    def kids() -> dict[str, int]:
        [receipt] = receipts(bucket.take(commands=[a_command("kids")]), KidsReceipt)
        users: dict[str, int] = receipt.users
        return users

    assert kids() == {"1": 2}
    relinked(bucket, "p2.ada")
    assert kids() == {"1": 1, "2": 1}
    relinked(bucket, "p2.bob")
    assert kids() == {"2": 2}


def test_user_moved_during_rebuild_gets_consent_and_list_under_new_pseudonym(bucket: Bucket) -> None:
    found = bucket.list("p1.ada")
    bucket.store.go_back_to(MemoryStore(BEGINNING, lambda: 0).held())
    bucket.take(marks=[BucketMark(bucket.store.current_generation(), 0, 1)])
    relinked(bucket, "p2.ada")
    assert bucket.list("p2.ada") is None
    bucket.pass_time(MINUTE)
    again = bucket.list("p2.ada")
    assert again is not None and found is not None and again.items == found.items
    assert bucket.keyed.states["rebuild-v1"].is_empty()
