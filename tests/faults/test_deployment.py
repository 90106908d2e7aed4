"""A deployment keeps its identity: changes that orphan its state are refused at submission and restore."""

import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from kafka import KafkaAdminClient
from kafka.admin import NewPartitions

from adapters.secrets.key_rings import begin_rotation, load_key_ring, new_key_ring, replace_key_ring
from deploy.local import product
from deploy.local.errors import SubmitError
from deploy.package import build
from jobs.registration import KEY, Registration, last_recorded, newest_readable
from schemas import topics
from schemas.errors import SettingsError
from schemas.store import owner_key
from tests.support.live import Live, start_live, until
from tests.support.vocabulary import MINUTE

pytestmark = pytest.mark.privacy
ADDED_S = 60.0
"""Flink's default would take five minutes, ours takes five seconds."""
CARELESS = Path(__file__).parents[1] / "support" / "careless_job.py"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    running = start_live(tmp_path_factory.mktemp("deployment"))
    try:
        running.consent(["ada"])
        yield running
    finally:
        running.close()
        running.stack.stop()


@pytest.fixture(scope="module")
def savepoint(live: Live) -> str:
    """Stops the job with a savepoint."""
    return live.stack.rest.stop_with_savepoint(live.job_id)


def changed(live: Live, old: str, new: str) -> Path:
    """A settings file with a changed text."""
    path = live.product.settings_path
    text = path.read_text()
    assert old in text
    other = path.with_name("changed.toml")
    other.write_text(text.replace(old, new, 1))
    return other


def of_tenant(live: Live, tenant: str) -> Path:
    """A settings file of a tenant with the same key ring."""
    file = live.product.settings_path.with_name("changed-tenant.toml")
    file.write_text(f"key_ring = {json.dumps(live.product.endpoints['key_ring'])}\n{tenant}\n")
    return changed(live, json.dumps(live.settings.tenant), json.dumps(str(file)))


def refusal(live: Live, path: Path, *options: str) -> str:
    """The error with which the submission is refused."""
    with pytest.raises(SubmitError) as caught:
        product.submit(live.stack, path, options)
    told = str(caught.value)
    assert "not submitted: " in told, told
    return told


def test_second_submission_of_running_job_is_refused(live: Live) -> None:
    found = refusal(live, live.product.settings_path)
    assert f"job {live.job_id} (RUNNING) belongs to this deployment: replace it with `freshet upgrade " in found


def test_withdrawal_in_added_partition_takes_effect_within_seconds(live: Live) -> None:
    live.consent(["late"])
    live.interact("late", "item-00001")
    live.wait_for_version("late", 2)
    topic, partitions = live.settings.kafka.topic(topics.CONSENTS), 2 * product.RAW_PARTITIONS
    admin = KafkaAdminClient(bootstrap_servers=live.settings.kafka.bootstrap_servers)
    sender = live.producer()
    try:
        admin.create_partitions({topic: NewPartitions(partitions)})
        said = {"user_id": "late", "level": "none", "ts": time.time_ns() // 1_000_000}
        until(lambda: len(sender.partitions_for(topic)) == partitions, "the partitions", ADDED_S, 0.5)
        sender.send(topic, json.dumps(said).encode(), b"late", partition=partitions - 1).get(10)
        until(lambda: live.list_of("late") is None, "the withdrawal", ADDED_S)
    finally:
        admin.close()
        sender.close()


BUCKETS = ("[model]\n", "[job]\nbuckets = 8\n\n[model]\n")


@pytest.mark.promise("deployment-identity")
def test_changed_bucket_count_is_refused_with_and_without_savepoint(live: Live, savepoint: str) -> None:
    path = changed(live, *BUCKETS)
    found = refusal(live, path, "-s", savepoint)
    assert "the snapshot was taken with job.buckets 4, and this submission has 8" in found
    assert "job.buckets is 8, and this deployment was last submitted with 4" in refusal(live, path)


@pytest.mark.promise("deployment-identity")
def test_changed_redis_prefix_is_refused(live: Live, savepoint: str) -> None:
    assert "redis.prefix is" in refusal(live, of_tenant(live, 'redis_prefix = "other:"'))


def test_redis_prefix_of_another_deployment_is_refused(live: Live, savepoint: str) -> None:
    owner = owner_key("")
    ours = live.redis.get(owner)
    assert ours, "the first submission has claimed it"
    live.redis.set(owner, "another-topic-id")
    said = refusal(live, live.product.settings_path, "-s", savepoint)
    live.redis.set(owner, ours)
    assert "belongs to another deployment" in said and "another-topic-id" in said


@pytest.mark.promise("deployment-identity")
def test_another_key_ring_is_refused_and_a_rotated_one_accepted(live: Live, savepoint: str) -> None:
    path = Path(live.product.endpoints["key_ring"])
    ring = load_key_ring(str(path))
    try:
        replace_key_ring(new_key_ring(), path)
        assert "the fingerprint of the routing key" in refusal(live, live.product.settings_path, "-s", savepoint)
        replace_key_ring(begin_rotation(ring, 1), path)
        rotated = product.submit(live.stack, live.product.settings_path, ("-s", savepoint))
        live.stack.rest.wait_running(rotated)
        live.stack.rest.cancel(rotated)
        replace_key_ring(ring, path)
        assert "pseudonyms were made with key 2" in refusal(live, live.product.settings_path, "-s", savepoint)
    finally:
        replace_key_ring(ring, path)
        forget_rotation(live)


def forget_rotation(live: Live) -> None:
    """Record the deployment as before the rotation, for later tests; no command does that."""
    with Registration(live.settings.kafka, MINUTE) as registration:
        recorded = registration.recorded
        assert recorded is not None
        kept = {kid: key for kid, key in recorded.users.items() if kid == "1"}
        registration.take(msgspec.structs.replace(recorded, current_key=1, users=kept), replace=True)


def test_consumer_group_of_another_deployment_is_refused(live: Live, savepoint: str) -> None:
    group = live.settings.kafka.group()
    other = of_tenant(live, 'topic_prefix = "other."')
    other.write_text(other.read_text().replace("[kafka]\n", f'[kafka]\ngroup_id = "{group}"\n', 1))
    product.create_local_topics(product.load_settings(other).kafka)
    assert "two jobs with one group abort each other's transactions" in refusal(live, other)


def test_epochs_increase_regardless_of_clocks(live: Live, savepoint: str) -> None:
    with Registration(live.settings.kafka, MINUTE) as registration:
        recorded = registration.recorded
        assert recorded is not None
        future = recorded.epoch + 10 * 365 * topics.DAY_MS
        live.send(topics.DEPLOYMENT, [(KEY, msgspec.json.encode(msgspec.structs.replace(recorded, epoch=future)))])
        registration.recorded = last_recorded(live.settings.kafka)
        assert registration.take(recorded, replace=False).epoch == future + 1
    live.send(topics.DEPLOYMENT, [(KEY, msgspec.json.encode(recorded))])


def test_first_of_two_concurrent_submissions_is_refused(live: Live, savepoint: str) -> None:
    with Registration(live.settings.kafka, MINUTE) as first:
        assert first.recorded is not None
        with Registration(live.settings.kafka, MINUTE) as second:
            with pytest.raises(SettingsError, match="another submission of this deployment started"):
                first.take(first.recorded, replace=False)
            taken = second.take(first.recorded, replace=False)
    assert last_recorded(live.settings.kafka) == taken


def test_prepared_submission_is_recorded_at_its_completion_unless_another_one_is(live: Live, savepoint: str) -> None:
    """The job that still runs remains the recorded one until then, for take-overs."""
    with Registration(live.settings.kafka, MINUTE) as prepared:
        before = prepared.recorded
        assert before is not None
        claimed = prepared.claim(before, replace=False)
        assert claimed.epoch > before.epoch and last_recorded(live.settings.kafka) == before
        prepared.record(claimed)
        assert last_recorded(live.settings.kafka) == claimed
        with Registration(live.settings.kafka, MINUTE) as another:
            taken = another.take(before, replace=False)
        with pytest.raises(SettingsError, match="another submission of this deployment started"):
            prepared.record(claimed)
    assert last_recorded(live.settings.kafka) == taken


def test_new_deployment_replaces_an_unreadable_record(live: Live, savepoint: str) -> None:
    path, before = live.product.settings_path, last_recorded(live.settings.kafka)
    assert before is not None
    live.send(topics.DEPLOYMENT, [(KEY, b"{")])
    assert "the last record in freshet.deployment cannot be read" in refusal(live, path, "-s", savepoint)
    words = ["submit", "--settings", str(path), "--flink", live.stack.flink.url, "--new-deployment", "--json"]
    environment = os.environ | live.stack.flink.environment()
    done = subprocess.run(
        [sys.executable, "-m", "freshet", *words], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    live.stack.rest.cancel(json.loads(done.stdout)["job"])
    now = newest_readable(live.settings.kafka)
    assert now.deployment is not None and not now.newest_is_unreadable
    assert now.deployment.epoch > before.epoch and now.deployment.pins() == before.pins()


def test_restore_within_transaction_timeout_is_not_reported(live: Live, savepoint: str) -> None:
    live.job_id = product.submit(live.stack, live.product.settings_path, ("-s", savepoint))
    try:
        live.stack.rest.wait_running(live.job_id)
        assert live.metric("restores_past_transactions_total") == 0
    finally:
        live.stack.rest.cancel(live.job_id)


def submit_carelessly(live: Live, path: Path, kept_ms: int, *options: str) -> str:
    zipped = live.stack.directory / "careless.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.write(CARELESS, CARELESS.name)
    packages = [build(live.stack.directory / "freshet.zip"), zipped]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_KEPT_MS", str(kept_ms))
        return product.submit_module(live.stack, path, CARELESS.stem, packages, options)


@pytest.mark.promise("deployment-identity")
def test_restore_with_other_bucket_count_fails_with_reason(live: Live, savepoint: str) -> None:
    job = submit_carelessly(live, changed(live, *BUCKETS), 10**12, "-s", savepoint)
    live.stack.rest.wait_state(job, "FAILED")
    assert "The snapshot was taken with job.buckets 4, and this job has 8" in live.stack.rest.exceptions(job, 100_000)


@pytest.mark.promise("deployment-identity")
def test_recovery_from_too_old_checkpoint_fails_with_reason(live: Live, savepoint: str) -> None:
    job = submit_carelessly(live, live.product.settings_path, 1)
    live.stack.rest.wait_running(job)
    until(lambda: live.stack.rest.checkpoints(job)["counts"]["completed"] >= 1, "a checkpoint")
    live.stack.kill_task_manager()
    live.stack.rest.wait_state(job, "FAILED")
    assert "hours old, and privacy.snapshots_kept_ms allows" in live.stack.rest.exceptions(job, 100_000)
