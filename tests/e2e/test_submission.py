"""The commands that give the job to a cluster, as the README types them."""

import json
import os
import subprocess
import sys

from tests.support.live import Live
from tests.support.readme import shell_line


def typed(live: Live, beginning: str, *more: str) -> subprocess.CompletedProcess[str]:
    """The README's command that begins so, at this stack."""
    real = {
        "http://…:8081": live.stack.flink.url,
        "freshet.toml": str(live.product.settings_path),
        "s3://…": str(live.stack.directory / "upgrades"),
        "2": "1",
    }
    words = [real.get(word, word) for word in shell_line(beginning).split()]
    environment = os.environ | live.stack.flink.environment()
    return subprocess.run([sys.executable, "-m", *words, *more], env=environment, capture_output=True, text=True)


def test_submit_reaches_the_cluster_which_refuses_a_second_job(live: Live):
    done = typed(live, "freshet submit")
    assert done.returncode == 2
    [told] = [line for line in done.stderr.splitlines() if line.startswith("freshet: not done: ")]
    assert f"job {live.job_id} (RUNNING) is of this deployment: stop it first" in told


def test_upgrade_goes_on_from_the_savepoint_that_it_stopped_the_job_with(live: Live):
    live.consent(["nell"])
    live.interact("nell", "item-00001")
    live.wait_for_version("nell", 2)
    before = live.states(["nell"])
    done = typed(live, "freshet upgrade", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["before"] == live.job_id and "/upgrades/savepoint-" in told["savepoint"]
    live.job_id = told["job"]
    live.stack.rest.wait_running(live.job_id)
    assert live.states(["nell"]) == before != {}
    live.interact("nell", "item-00002")
    live.wait_for_version("nell", 3)
