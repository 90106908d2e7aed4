"""Pseudonyms follow the formula, and a key ring never shows its keys."""

import hashlib
import hmac
import stat
from base64 import urlsafe_b64encode
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.secrets.key_rings import (
    KEY_RING_VARIABLE,
    begin_rotation,
    end_rotation,
    load_key_ring,
    new_key_ring,
    replace_key_ring,
    write_key_ring,
)
from schemas.errors import SettingsError
from schemas.pseudonyms import DOMAINS, Domain, KeyRing, Pseudonymiser, keyed_hash, kid_of
from tests.support.examples import examples

pytestmark = pytest.mark.privacy

RING = new_key_ring()
ids = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def rotated(ring: KeyRing) -> KeyRing:
    return begin_rotation(ring, now_ms=7)


def digest(domain: Domain, text: str, ring: KeyRing = RING) -> bytes:
    key = bytes.fromhex(ring.keys[domain][str(ring.current)])
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


@settings(max_examples=examples(60), deadline=None)
@given(ids)
def test_pseudonym_follows_the_formula(user_id: str) -> None:
    expected = urlsafe_b64encode(digest("user", user_id)[:16]).rstrip(b"=").decode()
    assert Pseudonymiser(RING).user(user_id) == f"p1.{expected}"


@settings(max_examples=examples(30), deadline=None)
@given(ids)
def test_sessions_events_and_requests_have_separate_keys(text: str) -> None:
    hashes = Pseudonymiser(RING)
    assert hashes.session(text) == digest("session", text)[:8]
    assert hashes.event(text) == digest("event", text)[:8]
    assert hashes.request(text) == digest("request", text)[:8]
    assert len({hashes.session(text), hashes.event(text), hashes.request(text), digest("user", text)[:8]}) == 4


@settings(max_examples=examples(60), deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200))
def test_the_keyed_hash_is_hmac_sha_256(key: bytes, message: bytes) -> None:
    assert keyed_hash(key)(message) == hmac.digest(key, message, "sha256")


def test_the_keyed_hash_meets_the_test_vector_of_rfc_4231() -> None:
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert keyed_hash(b"Jefe")(b"what do ya want for nothing?").hex() == expected


def test_new_key_changes_pseudonym_but_not_bucket() -> None:
    before, after = Pseudonymiser(RING), Pseudonymiser(rotated(RING))
    for user in ("ada", "bob", "grüße", ""):
        assert after.user(user).startswith("p2.")
        assert after.user(user)[3:] != before.user(user)[3:]
        assert after.route(user) == before.route(user)


def test_rotation_knows_both_pseudonyms_until_it_ends() -> None:
    ring = rotated(RING)
    assert (ring.current, ring.previous, ring.rotating_since) == (2, 1, 7)
    during, before = Pseudonymiser(ring), Pseudonymiser(RING)
    assert during.all("ada") == [during.user("ada"), before.user("ada")]
    assert (kid_of(during.user("ada")), during.previous("ada")) == ("2", before.user("ada"))
    ended = end_rotation(ring)
    after = Pseudonymiser(ended)
    assert after.all("ada") == [during.user("ada")]
    assert RING.keys["user"]["1"] not in secrets_of(ended)
    assert begin_rotation(ended, 9).current == 3
    with pytest.raises(SettingsError, match="from key 1 to key 2 is under way"):
        begin_rotation(ring, 9)


@given(ids)
def test_a_rotation_renews_the_key_for_users_only(text: str) -> None:
    before, during, after = (
        Pseudonymiser(RING),
        Pseudonymiser(rotated(RING)),
        Pseudonymiser(end_rotation(rotated(RING))),
    )
    for hashes in (during, after):
        for domain in ("session", "event", "request"):
            assert getattr(hashes, domain)(text) == getattr(before, domain)(text)


def test_key_ring_is_replaced_atomically_with_owner_rights(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    write_key_ring(RING, path)
    ring = rotated(RING)
    replace_key_ring(ring, path)
    assert load_key_ring(str(path)) == ring
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["keys.json"]


def test_key_ring_with_missing_previous_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    write_key_ring(msgspec.structs.replace(RING, previous=9), path)
    with pytest.raises(SettingsError, match="is not a key ring"):
        load_key_ring(str(path))


def test_the_route_is_its_own_hash_and_fits_in_32_bits() -> None:
    expected = hmac.digest(bytes.fromhex(RING.routing), b"ada", "sha256")
    assert Pseudonymiser(RING).route("ada") == int.from_bytes(expected[:4], "big")
    assert new_key_ring().routing not in {key for kids in new_key_ring().keys.values() for key in kids.values()}


def test_users_spread_evenly_over_the_buckets() -> None:
    buckets, users = 64, 20_000
    route = Pseudonymiser(KeyRing(1, "07" * 32, RING.keys)).route
    counts = Counter(route(f"user-{user}") % buckets for user in range(users))
    expected = users / buckets
    chi_square = sum((counts[bucket] - expected) ** 2 / expected for bucket in range(buckets))
    assert chi_square < 103.4, "the 99.9 % quantile for 63 degrees of freedom"


def secrets_of(ring: KeyRing) -> list[str]:
    return [ring.routing, *(key for kids in ring.keys.values() for key in kids.values())]


def test_printed_key_ring_shows_key_ids_only() -> None:
    for text in (repr(RING), str(RING), f"{RING}", repr([RING]), repr(Pseudonymiser(RING))):
        assert not any(secret in text for secret in secrets_of(RING))
    assert repr(RING) == "KeyRing(current=1, kids=['1'])"


def test_every_key_of_a_new_ring_is_fresh() -> None:
    keys = secrets_of(new_key_ring()) + secrets_of(new_key_ring())
    assert len(set(keys)) == len(keys) == 2 * (len(DOMAINS) + 1)
    assert all(len(bytes.fromhex(key)) == 32 for key in keys)


def test_key_ring_is_written_with_owner_rights_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    write_key_ring(RING, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        write_key_ring(new_key_ring(), path)
    assert load_key_ring(str(path)) == RING


def test_a_key_ring_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_RING_VARIABLE, msgspec.json.encode(RING).decode())
    assert load_key_ring(None) == RING
    monkeypatch.delenv(KEY_RING_VARIABLE)
    with pytest.raises(SettingsError, match=KEY_RING_VARIABLE):
        load_key_ring(None)


SECRET = "5ec4e7" * 10
WHOLE = msgspec.to_builtins(RING)
BAD_RINGS = [
    SECRET.encode(),
    b"",
    b"\xff",
    b"[" * 100_000,
    msgspec.json.encode({"current": 1, "routing": SECRET}),
    msgspec.json.encode(WHOLE | {"current": SECRET}),
    msgspec.json.encode(WHOLE | {"routing": SECRET}),
    msgspec.json.encode(WHOLE | {"routing": "no hex digits " + SECRET}),
    msgspec.json.encode(WHOLE | {"current": 2}),
    msgspec.json.encode(WHOLE | {"keys": {SECRET: {"1": SECRET}}}),
    msgspec.json.encode(WHOLE | {"keys": {name: keys for name, keys in WHOLE["keys"].items() if name != "event"}}),
    msgspec.json.encode(WHOLE | {"keys": WHOLE["keys"] | {"event": {"1": SECRET}}}),
    msgspec.json.encode(WHOLE | {"keys": WHOLE["keys"] | {"event": {}}}),
]


@pytest.mark.parametrize("number", range(len(BAD_RINGS)))
def test_invalid_key_ring_is_refused_without_echo(number: int, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(BAD_RINGS[number])
    with pytest.raises(SettingsError) as caught:
        load_key_ring(str(path))
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__


def test_missing_key_ring_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_key_ring(str(tmp_path / "none.json"))


@pytest.mark.parametrize("changes", [{"current": 2}, {"keys": WHOLE["keys"] | {"event": {}}}])
def test_key_ring_without_current_key_is_refused(changes: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(msgspec.json.encode(WHOLE | changes))
    with pytest.raises(SettingsError) as caught:
        load_key_ring(str(path))
    assert str(path) in str(caught.value)
