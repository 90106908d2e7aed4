"""The compliance report of a running product, and its metrics as Prometheus would read them."""

import re
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adapters.secrets.signing_keys import load_signing_key
from freshet.cli import main as freshet
from privacy import audit_verification
from schemas import topics
from tests.support.dashboards import LABELS_OF_PROMETHEUS, names_in, queries
from tests.support.live import Live, until
from udfs.audit_counts import PRIVACY_COUNTERS

SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
PREFIX = "flink_taskmanager_job_task_operator_freshet_"


def scraped(live: Live) -> list[tuple[str, dict[str, str], float]]:
    """The metrics of all processes of the cluster: name, labels, value. Their logs name the ports."""
    samples = []
    for log in (live.stack.directory / "log").glob("*manager*.log"):
        for port in re.findall(r"Started PrometheusReporter HTTP server on port (\d+)", log.read_text()):
            samples += [
                (name, dict(LABEL.findall(labels)), float(value))
                for name, labels, value in SAMPLE.findall(metrics_at(port))
            ]
    return samples


def metrics_at(port: str) -> str:
    """The metrics at this address; retries, because a busy process may drop the connection."""
    texts: list[str] = []

    def answered() -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
                texts.append(answer.read().decode())
        except ConnectionResetError:
            return False
        return True

    until(answered, f"metrics on port {port}")
    return texts[0]


def metric(live: Live, name: str) -> float:
    return sum(value for found, _, value in scraped(live) if found == PREFIX + name)


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
    found = until(lambda: {name: metric(lived, name) for name in PRIVACY_COUNTERS}, "metrics")
    assert found["consents_granted"] >= 12
    assert found["consents_withdrawn"] >= 11
    assert found["users_erased"] >= 10
    assert found["audit_records"] >= 33
    assert 0 < found["withdrawal_effect_ms_sum"] < found["consents_withdrawn"] * 60_000


def test_dashboard_queries_use_exported_metrics_and_labels(lived: Live):
    exported: dict[str, set[str]] = {}
    for name, labels, _ in scraped(lived):
        exported.setdefault(name, set()).update(labels)
    asked = list(queries())
    assert len(asked) > 10
    for query in asked:
        metrics, labels = names_in(query)
        assert metrics, query
        for name in metrics:
            assert name in exported, (query, sorted(n for n in exported if "freshet" in n))
            assert labels <= exported[name] | LABELS_OF_PROMETHEUS, query
