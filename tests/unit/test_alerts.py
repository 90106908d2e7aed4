"""Alert rules: Prometheus' own tool tests them where it is installed, and each leads to commands in the runbook."""

import shutil
import subprocess

import pytest
import yaml

from deploy.local.paths import ROOT
from schemas.metrics import FLINK, GATEWAY, JOB
from tests.support.dashboards import names_in
from tests.support.monitoring import quicker
from tests.support.runbook import alerts, commands_of, sections
from tests.support.scraping import renaming

ALERTS = ROOT / "deploy" / "alerts"
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is not installed"
)


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_each_alert_has_a_severity_a_summary_and_commands_in_the_runbook(rule: dict[str, dict[str, str]]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["summary"].endswith((".", "%."))
    page, _, section = rule["annotations"]["runbook"].partition("#")
    text = sections(ROOT / page)[section]
    assert commands_of(text)
    assert f"`{rule['alert']}`" in text


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_alerts_ask_for_listed_metrics_only(rule: dict[str, str]) -> None:
    listed = {name for metric in (*JOB, *GATEWAY) for name in metric.exported()} | FLINK.keys()
    assert names_in(rule["expr"])[0] <= listed | {"up"}


def test_each_alert_is_tested_by_promtool() -> None:
    cases = yaml.safe_load((ALERTS / "freshet_test.yml").read_text())["tests"]
    fires = [check["alertname"] for case in cases for check in case["alert_rule_test"] if check.get("exp_alerts")]
    assert sorted(fires) == sorted(str(rule["alert"]) for rule in alerts())


def test_only_durations_are_quicker_in_tests() -> None:
    rules = (ALERTS / "freshet.yml").read_text()
    changed = [pair for pair in zip(rules.split(), quicker(rules).split(), strict=True) if pair[0] != pair[1]]
    assert changed
    assert all("[" in before or before[:-1].isdigit() for before, _ in changed)


def test_labels_of_flinks_groups_leave_the_name() -> None:
    renamed = renaming()
    operator = "flink_taskmanager_job_task_operator_"
    assert renamed(f"{operator}freshet_audit_records_total") == "freshet_audit_records_total"
    assert renamed(f"{operator}le_freshet_redis_seconds_bucket") == "freshet_redis_seconds_bucket"
    assert renamed(f"{operator}model_arm_surface_freshet_feedback_lists_total") == "freshet_feedback_lists_total"
    assert renamed(f"{operator}numRecordsIn") == f"{operator}numRecordsIn"


@needs_promtool
def test_alerts_fire_and_resolve() -> None:
    done = subprocess.run(
        ["promtool", "test", "rules", str(ALERTS / "freshet_test.yml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_configuration_is_valid() -> None:
    config = str(ROOT / "deploy" / "prometheus" / "prometheus.yml")
    done = subprocess.run(
        ["promtool", "check", "config", "--syntax-only", config], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
