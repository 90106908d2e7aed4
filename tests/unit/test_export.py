"""Which events an export may contain: consent without a break since the event, under unlinkable names."""

import hmac
import json
from base64 import urlsafe_b64encode
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from adapters.files.export_parts import part_events, read_manifest
from adapters.secrets.key_rings import begin_rotation, load_key_ring, write_key_ring
from privacy.export import honour
from privacy.feature_export import deriving
from privacy.history import permitted
from privacy.standings import standings_of
from schemas.consents import PURPOSES, Purpose
from schemas.errors import SettingsError
from schemas.exploration import Exploration
from schemas.exports import LeftOut
from schemas.pseudonyms import ExportHashes, Pseudonymiser
from schemas.wire.codecs import json_codec
from tests.support.examples import examples
from tests.support.exports import (
    a_raw_record_of,
    an_event_as_published,
    an_export,
    naive_may_export,
    settings,
    standings,
)
from tests.support.vocabulary import (
    BEGINNING,
    DAY,
    HOUR,
    KEY_RING,
    MINUTE,
    PSEUDONYMISER,
    a_raw_consent,
    a_tombstone,
)
from udfs.ingest import RawRecord
from udfs.policy import UNRESTRICTED

NOW = BEGINNING + 40 * MINUTE

moments = st.integers(0, 40).map(lambda minutes: BEGINNING + minutes * MINUTE)
some_purposes = st.lists(st.sampled_from(PURPOSES), unique=True)
changes = st.fixed_dictionaries(
    {"level": st.sampled_from(["none", "session", "full", "full", "full"]), "ts": moments},
    optional={"granted": some_purposes, "denied": some_purposes, "expires_at": moments, "erase": st.booleans()},
)


@hypothesis_settings(max_examples=examples(400), deadline=None)
@given(
    st.lists(st.tuples(moments, changes | st.none()), max_size=5),
    moments,
    some_purposes,
    st.sampled_from(["train", "measure"]),
)
@pytest.mark.promise("export-consent")
def test_event_is_exported_if_purpose_was_granted_throughout(
    told: list, event_at: int, then: list, purpose: str
) -> None:
    told.sort(key=lambda one: one[0])
    appended, bodies = [at for at, _ in told], [body for _, body in told]
    records = [a_raw_record_of(body, "ada", at, offset) for offset, (at, body) in enumerate(told)]
    view = standings(records, purpose)
    reason = view.may_export(view.get(PSEUDONYMISER.user("ada")), then, event_at, NOW)
    assert (reason is None) == naive_may_export(bodies, appended, event_at, then, purpose, NOW), reason


def reason_for(*consents: RawRecord, appended: int = BEGINNING + HOUR, purposes: int = 0b111) -> LeftOut | None:
    left_out: Counter[LeftOut] = Counter()
    event = an_event_as_published("ada", appended, purposes)
    found = list(permitted([event], standings(list(consents)), BEGINNING + DAY, left_out))
    assert len(found) + left_out.total() == 1
    return next(iter(left_out), None)


LATER = BEGINNING + 2 * HOUR


@pytest.mark.parametrize(
    ("consents", "reason"),
    [
        ([], LeftOut.NO_CONSENT),
        ([a_raw_consent("bob")], LeftOut.NO_CONSENT),
        ([a_raw_consent()], None),
        ([a_raw_consent(), a_raw_consent(level="none", at=LATER, offset=1)], LeftOut.WITHDRAWN),
        ([a_raw_consent(), a_tombstone(at=LATER, offset=1)], LeftOut.WITHDRAWN),
        ([a_raw_consent(), a_raw_consent(level="none", at=LATER, offset=1, erase=True)], LeftOut.ERASED),
        ([a_raw_consent(expires_at=LATER)], LeftOut.EXPIRED),
        ([a_raw_consent(), a_raw_consent(level="session", at=LATER, offset=1)], LeftOut.SESSION_ONLY),
        ([a_raw_consent(denied=["train"])], LeftOut.NOT_GRANTED_NOW),
        ([a_raw_consent(denied=["personalise"])], None),
        ([a_raw_consent(denied=["personalise", "train"])], LeftOut.NOT_GRANTED_NOW),
        ([a_raw_consent(denied=["personalise"], level="session")], LeftOut.WITHDRAWN),
        ([a_raw_consent(denied=["personalise"], expires_at=LATER)], LeftOut.EXPIRED),
        ([a_raw_consent(at=LATER)], LeftOut.BEFORE_CONSENT),
        (
            [a_raw_consent(), a_raw_consent(level="none", at=LATER, offset=1), a_raw_consent(at=LATER + 1, offset=2)],
            LeftOut.BEFORE_CONSENT,
        ),
        (
            [
                a_raw_consent(),
                a_raw_consent(at=LATER, offset=1, denied=["train"]),
                a_raw_consent(at=LATER + 1, offset=2),
            ],
            LeftOut.BEFORE_CONSENT,
        ),
        ([a_raw_consent(), a_raw_consent(at=LATER, offset=1)], None),
        ([a_raw_consent(), RawRecord("t.consents", 0, 1, LATER, b"ada", b"not a record")], LeftOut.WITHDRAWN),
        ([a_raw_consent(), RawRecord("t.consents", 0, 1, LATER, None, b"not a record")], None),
        ([a_raw_consent(), RawRecord("t.consents", 0, 1, LATER, b"\xff", None)], None),
    ],
)
def test_omitted_events_have_a_reason(consents: list[RawRecord], reason: LeftOut | None) -> None:
    assert reason_for(*consents) == reason


def test_event_accepted_without_purpose_is_never_exported() -> None:
    assert reason_for(a_raw_consent(), purposes=0b011) == LeftOut.NOT_GRANTED_THEN


def test_unreadable_events_are_counted_and_older_events_use_record_time() -> None:
    event = json.loads(an_event_as_published("ada", BEGINNING).value)
    assert event.pop("appended") == BEGINNING
    old = SimpleNamespace(value=json.dumps(event).encode(), timestamp=BEGINNING + 5)
    broken = [SimpleNamespace(value=raw, timestamp=0) for raw in (None, b"{", b'{"x":' * 50_000, b"\xff", b"{}")]
    left_out: Counter[LeftOut] = Counter()
    [found] = permitted([*broken, old], standings([a_raw_consent()]), BEGINNING + DAY, left_out)
    assert found.appended == BEGINNING + 5
    assert left_out == {LeftOut.UNREADABLE: 5}


def test_late_event_is_dated_by_its_interaction() -> None:
    came_back = [a_raw_consent(level="none", at=LATER, offset=1), a_raw_consent(at=LATER + 1, offset=2)]
    event = an_event_as_published("ada", BEGINNING)
    event.timestamp = LATER + HOUR
    left_out: Counter[LeftOut] = Counter()
    assert not list(permitted([event], standings([a_raw_consent(), *came_back]), BEGINNING + DAY, left_out))
    assert left_out == {LeftOut.BEFORE_CONSENT: 1}


def test_both_pseudonyms_map_to_one_export_name_during_rotation() -> None:
    ring = begin_rotation(KEY_RING, now_ms=1)
    both, hashes = Pseudonymiser(ring), ExportHashes(ring, "train")
    records = [a_raw_consent(), a_raw_consent(level="none", at=LATER, offset=1)]
    view = standings_of(records, "train", json_codec(), UNRESTRICTED, both.all, hashes.user)
    new, old = (view.get(name) for name in both.all("ada"))
    assert new is old is not None
    assert old.export_name == ExportHashes(KEY_RING, "train").user("ada"), "a rotation changes no name"
    assert view.why_left_out(old, BEGINNING, NOW) == LeftOut.WITHDRAWN


ids = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@pytest.mark.parametrize("purpose", ["measure", "train"])
def test_draws_are_exported_to_measure_alone_and_survive_a_rewrite(purpose: Purpose, tmp_path: Path) -> None:
    drawn = Exploration(28, 0.25, ("tea", "cup"), BEGINNING)
    told = an_event_as_published("ada", BEGINNING + HOUR)
    told.value = b'{"exploration":%b,%b' % (msgspec.json.encode(drawn), told.value[1:])
    events = [told, an_event_as_published("ada", BEGINNING + HOUR), an_event_as_published("bob", BEGINNING + HOUR)]
    grants = [a_raw_consent("ada"), a_raw_consent("bob", offset=1)]
    an_export(tmp_path / "e", events, grants, NOW, purpose)
    leaves = a_raw_consent("bob", "none", BEGINNING + DAY, offset=2)
    users, derive = standings([*grants, leaves], purpose, True), deriving(settings(), tmp_path / "e")
    honour(tmp_path / "e", read_manifest(tmp_path / "e"), users, NOW + DAY, derive)
    [first, second] = [one for part in read_manifest(tmp_path / "e").parts for one in part_events(tmp_path / "e", part)]
    expected = (28, 0.25, ["tea", "cup"], BEGINNING) if purpose == "measure" else (None,) * 4
    assert (first.slot, first.propensity, first.pool, first.list_at) == expected
    assert second.propensity is None


@given(ids)
def test_export_names_follow_the_formula_and_differ_by_purpose(user_id: str) -> None:
    key = bytes.fromhex(KEY_RING.keys["export"]["1"])
    digest = hmac.digest(key, b"train\0user\0" + user_id.encode(), "sha256")
    name = ExportHashes(KEY_RING, "train").user(user_id)
    assert name == "x." + urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()
    assert name != ExportHashes(KEY_RING, "measure").user(user_id)
    assert name[2:] != PSEUDONYMISER.user(user_id)[3:]


def test_key_ring_without_export_key_serves_job_and_export_names_remedy(tmp_path) -> None:
    keys = {domain: kids for domain, kids in KEY_RING.keys.items() if domain != "export"}
    old = msgspec.structs.replace(KEY_RING, keys=keys)
    write_key_ring(old, tmp_path / "ring.json")
    ring = load_key_ring(str(tmp_path / "ring.json"))
    assert Pseudonymiser(ring).user("ada") == PSEUDONYMISER.user("ada")
    assert begin_rotation(ring, 1).current == 2
    with pytest.raises(SettingsError, match=r'add "export": \{"1": "<64 hex digits>"\} to its "keys"'):
        ExportHashes(ring, "train")


def test_invalid_export_key_is_refused(tmp_path) -> None:
    bad = msgspec.structs.replace(KEY_RING, keys={**KEY_RING.keys, "export": {"1": "5ec4e7"}})
    write_key_ring(bad, tmp_path / "ring.json")
    with pytest.raises(SettingsError, match="is not a key ring") as caught:
        load_key_ring(str(tmp_path / "ring.json"))
    assert "5ec4e7" not in str(caught.value)
