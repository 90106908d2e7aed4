"""Exports on real parts: they contain permitted events only, and lose them when consent ends."""

import json

import msgspec
import pytest

from adapters.files.export_parts import part_events, read_manifest
from adapters.secrets.key_rings import load_key_ring
from freshet.cli.main import run
from privacy.export import export, rewrite
from privacy.history import history
from schemas import topics
from schemas.exports import LeftOut
from schemas.pseudonyms import ExportHashes
from tests.support.live import Live, until

ITEMS = [f"item-{number:05d}" for number in range(1, 60)]
STAYS, LEAVES, ERASED, NO_TRAIN, TOOK_BACK = (
    "nora-of-note",
    "otto-of-note",
    "pia-of-note",
    "quinn-of-note",
    "ria-of-note",
)


@pytest.fixture(scope="module")
def shopped(live: Live) -> dict[str, str]:
    """Five shoppers have shopped under consent, and their events are published; user → name in training exports."""
    live.consent([STAYS, LEAVES, ERASED, TOOK_BACK])
    live.consent([NO_TRAIN], denied=["train"])
    for user in (STAYS, LEAVES, ERASED, NO_TRAIN, TOOK_BACK):
        for item in ITEMS[:3]:
            live.interact(user, item, session_id="session-of-note", request_id="request-of-note")
        live.wait_for_version(user, 4)
    live.checkpoint()
    mine = {live.pseudonymiser.user(user) for user in (STAYS, LEAVES, ERASED, NO_TRAIN, TOOK_BACK)}

    def published():
        return sum(json.loads(record.value)["pseudonym"] in mine for record in live.records(topics.EVENTS)) == 15

    until(published, "clean events")
    live.consent([TOOK_BACK], denied=["train"])
    live.consent([TOOK_BACK])
    hashes = ExportHashes(load_key_ring(live.settings.privacy.key_ring), "train")
    return {user: hashes.user(user) for user in (STAYS, LEAVES, ERASED, NO_TRAIN, TOOK_BACK)}


def lines(folder):
    return [msgspec.to_builtins(event) for part in read_manifest(folder).parts for event in part_events(folder, part)]


def counts(folder, names):
    seen = [line["pseudonym"] for line in lines(folder)]
    return {user: seen.count(name) for user, name in names.items()}


@pytest.mark.promise("export-consent")
def test_export_honours_current_consent_and_rewrite_later_changes(live: Live, shopped, tmp_path):
    out = tmp_path / "export"
    said: list[str] = []
    before = export(live.settings, out, "train", said.append)
    assert counts(out, shopped) == {STAYS: 3, LEAVES: 3, ERASED: 3, NO_TRAIN: 0, TOOK_BACK: 0}
    assert before.read == before.events + sum(before.left_out.values()) >= 15
    assert before.left_out[LeftOut.NOT_GRANTED_NOW] >= 3 and before.left_out[LeftOut.BEFORE_CONSENT] >= 3
    text = json.dumps(lines(out)) + (out / "manifest.json").read_text()
    assert "of-note" not in text
    assert not any(live.pseudonymiser.user(user) in text for user in shopped)

    live.consent([LEAVES], level="none")
    live.consent([ERASED], level="none", erase=True)
    after = rewrite(live.settings, out, said.append)
    assert after is not None
    assert counts(out, shopped) == {STAYS: 3, LEAVES: 0, ERASED: 0, NO_TRAIN: 0, TOOK_BACK: 0}
    assert after.removed == {LeftOut.WITHDRAWN: 3, LeftOut.ERASED: 3}
    again = rewrite(live.settings, out)
    assert again is not None and (again.parts, again.removed) == (after.parts, after.removed)

    live.consent([LEAVES])
    export(live.settings, tmp_path / "later", "train")
    assert counts(tmp_path / "later", shopped)[LEAVES] == 0, (
        "what was taken back does not come back with a later consent"
    )


def test_measure_and_train_exports_are_permitted_separately(live: Live, shopped, tmp_path):
    command = ["export", "write", "--settings", str(live.product.settings_path)]
    assert run([*command, "--out", str(tmp_path / "measure"), "--purpose", "measure"]) == 0
    manifest = read_manifest(tmp_path / "measure")
    hashes = ExportHashes(load_key_ring(live.settings.privacy.key_ring), "measure")
    found = counts(tmp_path / "measure", {user: hashes.user(user) for user in shopped})
    assert found[NO_TRAIN] == found[TOOK_BACK] == 3
    assert manifest.purpose == "measure" and not set(shopped.values()) & {
        line["pseudonym"] for line in lines(tmp_path / "measure")
    }


def test_history_and_export_share_a_rule_and_train_a_model(live: Live, shopped, tmp_path):
    crowd = [f"crowd-{number}" for number in range(12)]
    live.consent(crowd)
    for user in crowd:
        for item in ITEMS[10:15]:
            live.interact(user, item)
    for user in crowd:
        live.wait_for_version(user, 6)
    live.checkpoint()
    until(lambda: sum(1 for _ in history(live.settings)) >= 60, "the crowd's events")
    manifest = export(live.settings, tmp_path / "export", "train")
    events = list(history(live.settings))
    assert len(events) == manifest.events
    assert not any(live.pseudonymiser.user(user).encode() in b"".join(events) for user in (NO_TRAIN, TOOK_BACK))
    assert run(["model", "train", str(tmp_path / "export"), "--out", str(tmp_path / "model")]) == 0
