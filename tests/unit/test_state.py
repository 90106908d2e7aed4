"""Stored bytes: all later releases read what this release writes. Golden files check it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas.errors import SchemaError
from schemas.exploration import ExploredList
from tests.support.vocabulary import BEGINNING, HOUR, MINUTE, a_consent, an_interaction
from udfs.account import Account, decode_account, encode_account
from udfs.consent import apply_consent
from udfs.popularity import (
    Popularity,
    PopularitySettings,
    PopularityTable,
    decode_popularity,
    encode_popularity,
    sum_by_segment,
    weighing,
)
from udfs.profile import ProfileBounds, take
from udfs.state import ShownList, UserState, decode_state, encode_state

GOLDEN = Path(__file__).parents[1] / "golden" / "state"


def ada() -> UserState:
    """A user with a value in every field."""
    state = UserState()
    apply_consent(state, a_consent(expires_at=BEGINNING + 1000 * HOUR, partition=2, offset=41))
    for n, kind in enumerate(["view", "click", "purchase", "search"]):
        event = an_interaction(
            at=BEGINNING + n * MINUTE, item=f"item-{n % 3}", kind=kind, session="s", appended=BEGINNING + HOUR
        )
        take(state, event, ProfileBounds())
    state.due_slot = BEGINNING + 20 * HOUR
    assert state.profile is not None
    state.profile.shown = [ShownList(b"list-one", "home", BEGINNING, 7, 2, 2)]
    state.profile.explored = [ExploredList(b"list-one", BEGINNING, ("tea", "cup"), ((5, 1, 0.5),))]
    return state


def withdrawn() -> UserState:
    """A user who has withdrawn."""
    state = ada()
    apply_consent(state, a_consent(level="none", partition=2, offset=42, at=BEGINNING + HOUR))
    return state


def account() -> Account:
    return Account(5, 4, 3, {"malformed": 2, "too_late": 1}, 7, 6, 8, 9, 10, 11, 12, 13)


def popularity() -> Popularity:
    table = PopularityTable(Popularity(), PopularitySettings())
    events = [an_interaction(f"u{n}", BEGINNING + n * HOUR, f"item-{n % 3}", user_bit=7 * n) for n in range(9)]
    table.merge(sum_by_segment(weighing(events), HOUR), BEGINNING + 9 * HOUR)
    return table.close()


CASES: list[tuple[str, Callable[[], Any], Callable[[Any], bytes], Callable[[bytes], Any]]] = [
    ("users-v1", ada, encode_state, decode_state),
    ("users-v1-withdrawn", withdrawn, encode_state, decode_state),
    ("account-v1", account, encode_account, decode_account),
    ("popularity-v1", popularity, encode_popularity, decode_popularity),
]
NAMES = [case[0] for case in CASES]


@pytest.mark.parametrize(("name", "made", "encode", "decode"), CASES, ids=NAMES)
def test_golden_bytes_are_read_and_written(name: str, made: Any, encode: Any, decode: Any) -> None:
    golden = (GOLDEN / f"{name}.bin").read_bytes()
    assert decode(golden) == made()
    assert encode(made()) == golden, "state of this release differs: new version, reader for the old one, State: line"


@pytest.mark.parametrize(("name", "made", "encode", "decode"), CASES, ids=NAMES)
def test_another_version_is_refused(name: str, made: Any, encode: Any, decode: Any) -> None:
    raw = encode(made())
    assert raw[0] == 1
    with pytest.raises(SchemaError, match="version 2, this release reads 1"):
        decode(b"\x02" + raw[1:])


def test_golden_bytes_from_before_a_field_was_added_are_read() -> None:
    older = ada()
    assert older.profile is not None
    older.profile.event_days = []
    assert decode_state((GOLDEN / "users-v1-without-event-days.bin").read_bytes()) == older
    older.profile.explored = []
    assert decode_state((GOLDEN / "users-v1-without-explored-lists.bin").read_bytes()) == older
    older.profile.shown = []
    assert decode_state((GOLDEN / "users-v1-without-lists-seen.bin").read_bytes()) == older
    older.profile.had = b""
    for fields in (10, 11, 12):
        assert decode_state((GOLDEN / f"users-v1-of-{fields}-fields.bin").read_bytes()) == older
    for fields in (11, 12):
        assert decode_state((GOLDEN / f"users-v1-withdrawn-of-{fields}-fields.bin").read_bytes()) == withdrawn()
    added = ("extra", "ignored", "segments_left_out", "consents_refused")
    for fields, missing in ((10, 2), (9, 3), (8, 4)):
        older_account = decode_account((GOLDEN / f"account-v1-of-{fields}-fields.bin").read_bytes())
        assert older_account == msgspec.structs.replace(account(), **dict.fromkeys(added[:missing], 0))


def test_missing_trailing_fields_get_defaults() -> None:
    assert decode_state(b"\x01\x92\x02\x07") == UserState(level=2, purposes=7)
    assert decode_account(b"\x01\x91\x05") == Account(accepted=5)


def test_fields_of_later_release_are_ignored() -> None:
    fields = UserState(level=2)
    raw = encode_state(fields)
    assert raw[1] == 0x90 + len(UserState.__struct_fields__), "as MessagePack's fixarray"
    assert decode_state(raw[:1] + bytes([raw[1] + 1]) + raw[2:] + b"\x2a") == fields


def test_users_share_nothing() -> None:
    first, second = ada(), UserState()
    apply_consent(second, a_consent())
    assert first.profile is not None and second.profile is not None
    assert (second.profile.recents, sum(second.profile.counts)) == ([], 0.0)


if __name__ == "__main__":
    for case_name, make, encode_it, _ in CASES:
        (GOLDEN / f"{case_name}.bin").write_bytes(encode_it(make()))
