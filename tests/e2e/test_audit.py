"""The audit trail on real parts, through the command that verifies it."""

import json
from pathlib import Path

import pytest

from adapters.secrets.signing_keys import load_signing_key
from freshet.cli import main as freshet
from jobs.trail import trail_id
from privacy import audit_verification
from privacy.rules.audit_proof import Line, Trust
from privacy.rules.audit_verify import Times, verify
from schemas import topics
from tests.support.forger import forged_segment
from tests.support.live import Live, until

pytestmark = pytest.mark.privacy


def run(live: Live, command: str, *more: str) -> int:
    return freshet.run(["audit", command, "--settings", str(live.product.settings_path), *more])


def trail_of(live: Live, user: str) -> list[dict]:
    mine = live.pseudonymiser.user(user)
    told = [json.loads(record.value) for record in live.records(topics.AUDIT)]
    return sorted((record for record in told if record.get("pseudonym") == mine), key=lambda record: record["seq"])


def test_audit_trail_records_user_history_in_order_and_verifies(
    live: Live, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    live.consent(["tess"], granted=["personalise", "measure"], notice_version="3", jurisdiction="GB", method="banner")
    live.interact("tess", "item-00001")
    live.wait_for_version("tess", 2)
    live.consent(["tess"], level="none", method="settings page")
    for _ in range(3):
        live.interact("tess", "item-00002")
    live.wait_until_accounted(sum(1 for _ in live.records(topics.INTERACTIONS)))
    live.consent(["tess"], erase=True, level="none")
    live.checkpoint()
    story = until(lambda: (found := trail_of(live, "tess")) and found[-1]["kind"] == "erasure" and found, "the trail")
    assert [record["kind"] for record in story] == ["consent", "withdrawal", "denied", "erasure"]
    assert story[0]["purposes"] == ["personalise", "measure"]
    assert (story[0]["notice_version"], story[0]["jurisdiction"], story[0]["method"]) == ("3", "GB", "banner")
    assert story[2]["events"] == 3
    assert all(record["at"] >= record["consent_at"] for record in story if "consent_at" in record)

    def signed() -> bool:
        live.checkpoint()
        return any(True for _ in live.records(topics.AUDIT_HEADS))

    until(signed, "a signed head", pause_s=1)
    kept = tmp_path / "heads.jsonl"
    capsys.readouterr()
    assert run(live, "save-heads", "--out", str(kept)) == 0
    assert run(live, "save-heads", "--out", str(kept)) == 0
    assert run(live, "verify", "--heads", str(kept)) == 0
    assert "all in place" in capsys.readouterr().out
    assert len(set(kept.read_bytes().splitlines())) == len(kept.read_bytes().splitlines())
    assert run(live, "public-key") == 0
    public = capsys.readouterr().out.strip()
    assert run(live, "verify", "--public-key", public) == 0
    monkeypatch.setattr(audit_verification, "PAUSE_S", 0)
    assert run(live, "verify", "--public-key", "00" * 32) == 1
    assert "not one of those given" in capsys.readouterr().out


@pytest.mark.promise("audit-tamper")
def test_altered_dropped_and_swapped_audit_records_are_found(live: Live):
    live.consent(["uma", "vic", "wes"])
    live.checkpoint()
    lines = [Line(r.partition, r.offset, r.value) for r in live.records(topics.AUDIT)]
    heads = [Line(r.partition, r.offset, r.value) for r in live.records(topics.AUDIT_HEADS)]
    trail = trail_id(live.settings.kafka)
    trust = Trust([load_signing_key(live.settings.audit.signing_key).public], [trail])
    assert verify(lines, heads, trust, Times(0)).findings == []
    openings = [json.loads(line.raw) for line in lines if b'"kind":"segment"' in line.raw]
    assert {opening["trail"] for opening in openings} == {trail} and "-" in trail, "Kafka's own id of the topic"
    forged = forged_segment(json.loads(lines[-1].raw), openings[-1]["epoch"] + 1, openings[-1]["at"], 2)
    put_in = [*lines, *(Line(0, lines[-1].offset + n, raw) for n, raw in enumerate(forged, start=1))]
    found = verify(put_in, heads, trust, Times(0))
    assert any("was not opened with a valid signature" in finding.text for finding in found.findings)
    assert not any(found.is_proved(0, line.offset) for line in put_in[len(lines) :])
    first, second = two_of_a_chain(lines)
    one, other = lines[first], lines[second]
    altered = other._replace(raw=other.raw.replace(b'"full"', b'"none"').replace(b'"at":1', b'"at":2', 1))
    for replaced in (
        {second: altered},
        {first: None},
        {first: one._replace(raw=other.raw), second: other._replace(raw=one.raw)},
    ):
        tampered = [line for n, kept in enumerate(lines) if (line := replaced.get(n, kept)) is not None]
        findings = verify(tampered, heads, trust, Times(0)).findings
        touched = {json.loads(line.raw)["seq"] for line in (one, other)}
        assert touched & {seq for _, seq, _ in findings} or touched & {seq - 1 for _, seq, _ in findings}


def two_of_a_chain(lines: list[Line]) -> tuple[int, int]:
    """The positions of a consent and of the record before it; records of different chains are not ordered."""
    chains = [(record["bucket"], record["epoch"]) for record in (json.loads(line.raw) for line in lines)]
    second = next(n for n, line in enumerate(lines) if b'"kind":"consent"' in line.raw)
    return max(n for n in range(second) if chains[n] == chains[second]), second
