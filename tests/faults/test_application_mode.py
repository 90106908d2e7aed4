"""Application mode: a JobManager that starts again goes on with its job, whatever is away or too old by then."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from deploy.local.processes import ProcessRecord
from jobs.registration import newest_readable
from schemas.topics import DAY_MS
from tests.support.application_cluster import ApplicationCluster, application_cluster
from tests.support.live import Live, start_live, until

FLINK = {"execution.checkpointing.interval": "1 s", "restart-strategy.exponential-delay.max-backoff": "2 s"}


class Application:
    """The job in application mode, begun from a savepoint of a session cluster."""

    def __init__(self, live: Live, cluster: ApplicationCluster, package: Path, savepoint: str) -> None:
        self.live, self.cluster, self.savepoint, self._package = live, cluster, savepoint, package
        self.clicks = 0

    def start(self) -> ProcessRecord:
        options = ("--fromSavepoint", self.savepoint)
        return self.cluster.start_application(self._package, self.live.product.settings_path, options)

    def wait_running(self, manager: ProcessRecord) -> str:
        """The job's id, once all its tasks run."""

        def runs() -> str | None:
            assert manager.is_running(), self.cluster.said(manager)[-3_000:]
            return self.cluster.running_job()

        return str(until(runs, "the job to run", pause_s=0.2))

    def wait_for_fresh_list(self) -> int:
        """The version of the list that a click leads to."""
        before = self.live.list_of("ada")
        self.clicks += 1
        self.live.interact("ada", f"item-{self.clicks:05d}")
        return self.live.wait_for_version("ada", 1 + (before.v if before else 0)).v

    def wait_for_checkpoint(self, job: str) -> None:
        done = self.cluster.rest.checkpoints(job)["counts"]["completed"]
        until(lambda: self.cluster.rest.checkpoints(job)["counts"]["completed"] > done, "a checkpoint", pause_s=0.2)

    def epoch(self) -> int:
        """That of the last recorded submission."""
        recorded = newest_readable(self.live.settings.kafka).deployment
        assert recorded is not None
        return recorded.epoch


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    directory = tmp_path_factory.mktemp("application")
    live = start_live(directory / "stack")
    try:
        live.consent(["ada"])
        savepoint = live.stack.rest.stop_with_savepoint(live.job_id)
        live.stack.kill_flink()
        with application_cluster(directory / "application", FLINK) as (cluster, package):
            yield Application(live, cluster, package, savepoint)
    finally:
        live.close()
        live.stack.stop()


@contextmanager
def changed(path: Path, text: str, new: str) -> Iterator[None]:
    """Replaces `text` in a file during the block."""
    before = path.read_text()
    path.write_text(before.replace(text, new, 1))
    yield
    path.write_text(before)


@pytest.mark.promise("manager-restarts")
def test_first_submission_waits_for_kafka_and_restarts_go_on(application: Application) -> None:
    live, cluster = application.live, application.cluster
    live.stack.kill_kafka()
    first = application.start()
    until(lambda: "not submitted yet, trying again in 5 s: Kafka at" in cluster.said(first), "a word on Kafka")
    live.stack.start_kafka()
    job = application.wait_running(first)
    version, epoch = application.wait_for_fresh_list(), application.epoch()
    application.wait_for_checkpoint(job)
    age_s = 8 * DAY_MS / 1_000
    os.utime(Path(urlsplit(application.savepoint).path, "_metadata"), (time.time() - age_s, time.time() - age_s))

    cluster.kill(first)
    second = application.start()
    assert application.wait_running(second) == job
    assert application.wait_for_fresh_list() > version, (
        "state is that of the newest checkpoint, not of the old savepoint"
    )
    until(lambda: f"job {job} was recovered as it was submitted" in cluster.said(second), "a word on the recovery")
    assert application.epoch() == epoch, "nothing was submitted"
    application.wait_for_checkpoint(job)

    live.stack.kill_kafka()
    cluster.kill(second)
    third = application.start()
    told = "the recovered job goes on, and a submission would be refused now: Kafka at"
    until(lambda: told in cluster.said(third), "a word on Kafka")
    live.stack.start_kafka()
    assert application.wait_running(third) == job
    application.wait_for_fresh_list()
    application.wait_for_checkpoint(job)

    with changed(live.product.settings_path, "[kafka]", "[kafka]\nno_such_setting = 1"):
        cluster.kill(third)
        fourth = application.start()
        assert application.wait_running(fourth) == job
        until(lambda: "would be refused now: settings file" in cluster.said(fourth), "a word on the settings")
    assert application.wait_for_fresh_list()
