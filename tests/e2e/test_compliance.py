"""The compliance report of a running product, and its metrics as Prometheus would read them."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adapters.secrets.signing_keys import load_signing_key
from freshet.cli import main as freshet
from privacy import audit_verification
from schemas import topics
from schemas.metrics import PRIVACY, WITHDRAWAL
from tests.support.live import Live, until
from tests.support.scraping import scraped


def metric_of(live: Live, name: str) -> float:
    return sum(value for found, _, value in scraped(live.stack.directory) if found == name)


@pytest.fixture(scope="module")
def lived(live: Live) -> Live:
    """Twelve users consent; eleven of them withdraw, and ten are erased."""
    users = [f"reported-{n}" for n in range(12)]
    live.consent(users, jurisdiction="CH", method="<script>alert(1)</script>")
    live.consent(users[:11], level="none")
    live.consent(users[:10], level="none", erase=True)
    live.checkpoint()
    names = [live.pseudonymiser.user(user).encode() for user in users]

    def told() -> bool:
        mine = [r.value for r in live.records(topics.AUDIT) if any(name in r.value for name in names)]
        return len(mine) >= 12 + 11 + 10

    until(told, "their consents, withdrawals and erasures in the trail", pause_s=0.2)
    key = load_signing_key(live.settings.audit.signing_key)

    def proved() -> bool:
        live.checkpoint()
        return not audit_verification.verification(live.settings, [key.public], []).unproved

    until(proved, "a signed head of the last of them: what is not proved is in no figure", pause_s=1)
    return live


def run(live: Live, out: Path, *more: str) -> int:
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).date().isoformat()
    options = ["report", "--settings", str(live.product.settings_path), "--out", str(out), "--to", tomorrow]
    return freshet.run([*options, *more])


def test_report_covers_events_and_intact_trail(lived: Live, tmp_path: Path):
    assert run(lived, tmp_path) == 0
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# Compliance report, ")
    assert "The trail is whole" in text
    figures = re.search(r"\| all days \| (\d+) \| (\d+) \| (\d+) ", text)
    assert figures is not None
    consents, withdrawals, erasures = map(int, figures.groups())
    assert consents >= 12 and withdrawals >= 11 and erasures >= 10
    assert re.search(r"\| withdrawals \| \d+ \| \d+ \| \d+ \| \d+ \|", text), "how long they took"
    assert "| CH | " in text or "(withheld, together)" in text, "others on this stack may be too few beside it"
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    told = {record.value.decode() for record in lived.records(topics.AUDIT)}
    pseudonym = lived.pseudonymiser.user("reported-0")
    assert any(pseudonym in record for record in told)
    assert not any(name in out for name in ("p1.", "reported-") for out in (text, page))


def test_damaged_trail_is_reported_first_with_exit_code(
    lived: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    lived.checkpoint()
    until(lambda: (lived.checkpoint(), any(True for _ in lived.records(topics.AUDIT_HEADS)))[1], "a head", pause_s=1)
    monkeypatch.setattr(audit_verification, "PAUSE_S", 0)
    assert run(lived, tmp_path, "--public-key", "00" * 32) == 1
    assert (tmp_path / "report.md").read_text().splitlines()[0].startswith("**THE AUDIT TRAIL IS NOT WHOLE: ")
    assert "not intact" in capsys.readouterr().err


def test_prometheus_counts_consents_withdrawals_and_erasures(lived: Live):
    found = {metric.name: metric_of(lived, metric.full_name) for metric in PRIVACY}
    assert found["consents_granted_total"] >= 12
    assert found["consents_withdrawn_total"] >= 11
    assert found["users_erased_total"] >= 10
    assert found["audit_records_total"] >= 33
    assert metric_of(lived, f"{WITHDRAWAL.full_name}_count") == found["consents_withdrawn_total"]
