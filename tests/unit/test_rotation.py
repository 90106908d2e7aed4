"""When a rotation may end, and which users `relink` names."""

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.secrets.key_rings import begin_rotation, end_rotation, new_key_ring
from privacy.consent_topic import read_record
from privacy.rotation import oldest_snapshot_ms
from privacy.rules.rotation import why_not_ended
from schemas.pseudonyms import KeyRing
from schemas.wire.codecs import json_codec
from tests.support.vocabulary import BEGINNING, DAY, HOUR, a_raw_consent

pytestmark = pytest.mark.privacy

KEPT = 7 * DAY
RING = begin_rotation(new_key_ring(), BEGINNING)


def relinked(at: int) -> KeyRing:
    return msgspec.structs.replace(RING, relinked_at=at)


@given(
    old_users=st.integers(0, 2),
    relinked_at=st.sampled_from([0, BEGINNING]),
    now=st.integers(0, 10 * DAY).map(lambda ms: BEGINNING + ms),
    oldest=st.none() | st.integers(-DAY, DAY).map(lambda ms: BEGINNING + ms),
)
def test_rotation_ends_only_without_users_or_snapshots_under_the_old_key(
    old_users: int, relinked_at: int, now: int, oldest: int | None
) -> None:
    reason = why_not_ended(relinked(relinked_at), {"1": old_users, "2": 5}, KEPT, now, oldest)
    snapshots_are_newer = (now - KEPT if oldest is None else oldest) >= BEGINNING
    assert (reason is None) == (old_users == 0 and relinked_at > 0 and snapshots_are_newer)


def test_each_reason_names_the_next_step() -> None:
    assert why_not_ended(end_rotation(RING), {}, KEPT, BEGINNING, None) == "no rotation is under way"
    assert "3 users are still known under key 1" in str(why_not_ended(RING, {"1": 3}, KEPT, BEGINNING, None))
    assert "run `relink`" in str(why_not_ended(RING, {}, KEPT, BEGINNING, None))
    assert "for another 6.0 days" in str(why_not_ended(relinked(BEGINNING), {}, KEPT, BEGINNING + DAY, None))
    assert "delete it first" in str(why_not_ended(relinked(BEGINNING), {}, KEPT, BEGINNING + DAY, BEGINNING - 1))


def test_oldest_snapshot_is_found_in_any_subfolder(tmp_path: Path) -> None:
    for name, at in (("chk-1", BEGINNING + HOUR), ("deep/er/savepoint-2", BEGINNING)):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "_metadata").write_bytes(b"")
        os.utime(folder / "_metadata", (at / 1000, at / 1000))
    assert oldest_snapshot_ms([tmp_path]) == BEGINNING
    assert oldest_snapshot_ms([tmp_path / "chk-1", tmp_path / "none"]) == BEGINNING + HOUR
    assert oldest_snapshot_ms([tmp_path / "none"]) > BEGINNING + HOUR, "now"


def test_users_are_read_from_the_value_and_a_foreign_key() -> None:
    codec = json_codec()

    def users_of(key: bytes | None, value: bytes | None) -> list[str]:
        return [said.change.user_id for said in read_record(codec, key, value, BEGINNING)]

    assert users_of(b"bob", a_raw_consent("ada").value) == ["ada", "bob"], "both withdraw, so both are known"
    assert users_of(None, a_raw_consent("ada").value) == ["ada"]
    assert users_of(b"bob", None) == ["bob"]
    for key, value in ((None, None), (b"\xff", None), (None, b"{"), (b"\0", b"")):
        assert users_of(key, value) == []
    assert users_of(b"cyd", b"{") == users_of(b"cyd", b"") == ["cyd"], (
        "what cannot be read is a withdrawal of whom it names"
    )
