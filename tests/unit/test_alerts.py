"""Alert rules: Prometheus' own tool tests them where it is installed, and each leads to a section of the runbook."""

import re
import shutil
import subprocess

import pytest

from deploy.local.paths import ROOT

ALERTS = ROOT / "deploy" / "alerts"


def test_each_alert_leads_to_a_section_of_the_runbook() -> None:
    rules = (ALERTS / "freshet.yml").read_text()
    links = re.findall(r"runbook: (\S+)#(\S+)", rules)
    assert len(links) == rules.count("- alert:") > 0
    for page, anchor in links:
        headings = re.findall(r"^## (.*)$", (ROOT / page).read_text(), re.MULTILINE)
        assert anchor in {re.sub(r"\W+", "-", heading.lower()).strip("-") for heading in headings}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is not installed")
def test_alerts_fire_and_resolve() -> None:
    done = subprocess.run(
        ["promtool", "test", "rules", str(ALERTS / "freshet_test.yml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
