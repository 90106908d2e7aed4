"""The commands that give the job to a cluster, as the README types them."""

import json
import os
import subprocess
import sys

from tests.support.documented import commands
from tests.support.live import Live


def typed(live: Live, command: str, *more: str) -> subprocess.CompletedProcess[str]:
    """The documented command, at this stack."""
    real = {
        "http://flink:8081": live.stack.flink.url,
        "freshet.toml": str(live.product.settings_path),
        "s3://bucket/savepoints": str(live.stack.directory / "upgrades"),
        "2": "1",
    }
    words = next(words for words in commands("freshet") if words[0] == command and "http://flink:8081" in words)
    environment = os.environ | live.stack.flink.environment()
    line = [sys.executable, "-m", "freshet", *(real.get(word, word) for word in words), *more]
    return subprocess.run(line, env=environment, capture_output=True, text=True)


def test_submit_reaches_the_cluster_which_refuses_a_second_job(live: Live):
    done = typed(live, "submit")
    assert done.returncode == 2
    [told] = [line for line in done.stderr.splitlines() if line.startswith("freshet: not done: ")]
    assert f"job {live.job_id} (RUNNING) belongs to this deployment: stop it first" in told


def test_upgrade_continues_from_its_stop_savepoint(live: Live):
    live.consent(["nell"])
    live.interact("nell", "item-00001")
    live.wait_for_version("nell", 2)
    before = live.states(["nell"])
    done = typed(live, "upgrade", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["before"] == live.job_id and "/upgrades/savepoint-" in told["savepoint"]
    live.job_id = told["job"]
    live.stack.rest.wait_running(live.job_id)
    assert live.states(["nell"]) == before != {}
    live.interact("nell", "item-00002")
    live.wait_for_version("nell", 3)
