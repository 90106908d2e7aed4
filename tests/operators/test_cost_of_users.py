"""The number of state reads for one user does not depend on the number of users in the bucket."""

from collections.abc import Callable
from typing import Any

import pytest

from schemas.receipts import KidsReceipt
from tests.support.bucket import Bucket, receipts
from tests.support.vocabulary import BEGINNING, DAY, HOUR, MINUTE, a_command, a_consent, an_erasure, an_interaction
from udfs.elements import BucketMark

FEW, MANY = 40, 400


def a_bucket_of(users: int) -> Bucket:
    """Other users' consents end within days, and ada's within hours: they are all over the due index."""
    bucket = Bucket()
    names = ["p1.ada", *(f"p1.user-{number}" for number in range(users - 1))]
    for place, name in enumerate(names):
        bucket.take(a_consent(name, expires_at=BEGINNING + DAY + place * MINUTE), an_interaction(name))
    bucket.take(a_consent("p1.ada", expires_at=BEGINNING + HOUR, offset=2**20))
    return bucket


def in_a_rebuild(bucket: Bucket) -> Bucket:
    """Redis has lost everything, and all users must be rewritten."""
    bucket.take(marks=[BucketMark("1" * 12, 0, 1)])
    assert not bucket.keyed.states["rebuild-v1"].is_empty()
    return bucket


def erase(bucket: Bucket) -> None:
    bucket.take(an_erasure("p1.ada", BEGINNING + MINUTE, offset=2**21))
    assert bucket.user("p1.ada") is None
    assert b"p1.ada" not in b"".join(bucket.pages.values()), "nor where she stood before she became due earlier"


def erase_in_a_rebuild(bucket: Bucket) -> None:
    erase(bucket)
    assert b"p1.ada" not in b"".join(bucket.keyed.states["rebuild-v1"].data.values())


def rename(bucket: Bucket) -> None:
    bucket.take(links={"p2.ada": "p1.ada"})
    assert bucket.user("p2.ada") is not None


def become_due_earlier(bucket: Bucket) -> None:
    bucket.take(a_consent("p1.ada", "session", BEGINNING + MINUTE, offset=2**21))


def enter(bucket: Bucket) -> None:
    bucket.take(a_consent("p1.eve"), an_interaction("p1.eve"))


def ask_for_kids(bucket: Bucket) -> None:
    [receipt] = receipts(bucket.take(commands=[a_command("kids")]), KidsReceipt)
    assert sum(receipt.users.values()) == len(bucket.keyed.states["users-v1"].data)


def as_it_is(bucket: Bucket) -> Bucket:
    return bucket


def reads_of(done: Callable[[Bucket], None], bucket: Bucket) -> int:
    before = bucket.reads
    done(bucket)
    return bucket.reads - before


@pytest.mark.parametrize(
    ("begun", "done"),
    [
        (as_it_is, erase),
        (in_a_rebuild, erase_in_a_rebuild),
        (as_it_is, rename),
        (as_it_is, become_due_earlier),
        (as_it_is, enter),
        (as_it_is, ask_for_kids),
    ],
    ids=["erasure", "erasure in a rebuild", "rename", "becoming due earlier", "first consent", "kids"],
)
@pytest.mark.promise("bounded-users")
def test_state_reads_per_user_are_independent_of_bucket_size(begun: Any, done: Any) -> None:
    few, many = (reads_of(done, begun(a_bucket_of(users))) for users in (FEW, MANY))
    assert many <= few + 2, "two more where a minute is full"
    assert many <= 20
