"""The job on every kind of Redis while it fails: it waits, finds the new primary, and can be cancelled.

One stack, with one job after the other; each has its own topics, keys and prefix.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from adapters.kafka.settings import python_kafka_options
from adapters.redis.address import RedisAddress
from adapters.secrets.key_rings import load_key_ring
from deploy.local import product
from deploy.local.files import write_atomically
from deploy.local.stack import LocalStack
from jobs.settings import load_settings
from models.random_model import random_model
from serving.consents import Consents
from serving.reader import Reader
from tests.support.live import Live, until
from tests.support.redis_kinds import Watched, running_cluster

pytestmark = pytest.mark.privacy

CHECKPOINT_TIMEOUT_S = 2
CANCELLATION_TIMEOUT_S = 10
FLINK = {
    "execution.checkpointing.interval": "1 s",
    "execution.checkpointing.timeout": f"{CHECKPOINT_TIMEOUT_S} s",
    "execution.checkpointing.tolerable-failed-checkpoints": "0",
    "task.cancellation.timeout": str(1_000 * CANCELLATION_TIMEOUT_S),
    "restart-strategy.exponential-delay.attempts-before-reset-backoff": "20",
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    stack = LocalStack(tmp_path_factory.mktemp("stack"), 1, FLINK)
    with stack:
        random_model(stack.directory / "model", items=100)
        yield stack


class Running(Live):
    """A job with its own Redis, and a frontend's clients for it."""

    def __init__(self, stack: LocalStack, running: product.Product, address: RedisAddress) -> None:
        super().__init__(stack, running)
        ring, prefix = load_key_ring(running.endpoints["key_ring"]), self.settings.redis.prefix
        self.reader = Reader(address, ring, prefix)
        self.consents = Consents(
            address, python_kafka_options(self.settings.kafka), ring, tombstone_ms=self.settings.tombstone_ms(),
            topic_prefix=self.settings.kafka.topic_prefix, prefix=prefix,
        )  # fmt: skip

    def reason(self, user: str) -> str:
        """The reason of the list that a frontend gets for `user`."""
        return self.reader.recommend(user).reason

    def wait_until_personal(self, *users: str) -> None:
        """Wait until each of `users` has a personal list."""
        for user in users:
            until(lambda user=user: self.reason(user) == "personalised", f"the list of {user}", 120)

    def restarts(self) -> int:
        """How often Flink has restarted the job."""
        return len(self.stack.rest.get(f"/jobs/{self.job_id}/exceptions")["exceptionHistory"]["entries"])

    def failed_checkpoints(self) -> int:
        """The number of failed checkpoints."""
        return int(self.stack.rest.checkpoints(self.job_id)["counts"]["failed"])


@contextmanager
def away(stack: LocalStack) -> Iterator[None]:
    """Makes Redis unavailable during the block."""
    stack.kill_redis()
    try:
        yield
    finally:
        stack.start_redis()


@contextmanager
def job(stack: LocalStack, name: str, address: RedisAddress, **more: object) -> Iterator[Running]:
    """Runs the job on `address` during the block."""
    ring = stack.directory / name / "key-ring.json"
    ring.parent.mkdir(parents=True, exist_ok=True)
    product.make_keys(ring)
    of_redis = {"prefix": f"{name}:", "urls": list(address.urls), "kind": address.kind, **more}
    if address.service is not None:
        of_redis["service"] = address.service
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in of_redis.items())
    text = product.settings_text(stack, ring, stack.directory / "model")
    text = text.replace(f"url = {json.dumps(stack.redis.url)}\n", lines, 1)
    text = text.replace("[kafka]\n", f'[kafka]\ntopic_prefix = "{name}."\ngroup_id = "{name}"\n', 1)
    path = ring.with_name("freshet.toml")
    write_atomically(path, text)
    settings = load_settings(path)
    product.create_local_topics(settings.kafka)
    job_id = product.submit(stack, path)
    stack.rest.wait_running(job_id)
    running = Running(
        stack, product.Product({**stack.addresses, "key_ring": str(ring)}, settings, path, job_id), address
    )
    try:
        yield running
    finally:
        running.consents.close()
        running.reader.close()
        running.close()
        if stack.rest.state(job_id) == "RUNNING":
            stack.rest.cancel(job_id)


@pytest.mark.promise("redis-kinds")
def test_job_writes_to_cluster_and_withdrawals_hold_on_each_node(stack: LocalStack, tmp_path: Path) -> None:
    users = [f"user-{number}" for number in range(12)]
    with running_cluster(tmp_path) as nodes:
        address = RedisAddress((nodes[0].url,), kind="cluster", timeout_ms=2_000)
        with job(stack, "cluster", address) as running:
            running.consent(users)
            for user in users:
                running.interact(user, "item-00003")
            running.wait_until_personal(*users)
            assert all(node.client.dbsize() > 1 for node in nodes), "both nodes hold users"
            for user in users[:6]:
                running.consents.withdraw(user)
                assert running.reason(user) == "popular"
            assert [running.reason(user) for user in users[6:]] == ["personalised"] * 6
            assert running.restarts() == 0


@pytest.mark.promise("redis-kinds")
def test_sentinel_failover_restores_lists_and_keeps_acknowledged_withdrawals(stack: LocalStack, tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    try:
        address = RedisAddress((watched.sentinel.url,), kind="sentinel", service="lists", timeout_ms=2_000)
        with job(stack, "sentinel", address) as running:
            running.consent(["ada", "bob", "cyd"])
            for user in ("ada", "bob", "cyd"):
                running.interact(user, "item-00003")
            running.wait_until_personal("ada", "bob", "cyd")
            watched.replica.client.replicaof("127.0.0.1", 1)  # it lags from here on: it does not know of what follows
            time.sleep(0.5)
            running.consents.withdraw("bob")
            watched.primary.kill()
            watched.replica.client.replicaof("NO", "ONE")
            seen: set[str] = set()

            def ada_is_back() -> bool:
                seen.add(running.reason("bob"))
                return running.reason("ada") == "personalised" and running.reason("cyd") == "personalised"

            until(ada_is_back, "lists without a new event", 120)
            assert seen == {"popular"}, "the replica that was promoted had bob's list and consent"
            assert running.restarts() == 0
    finally:
        watched.end()


@pytest.mark.promise("redis-outage")
def test_long_redis_outage_restarts_nothing_and_allows_cancelling(
    stack: LocalStack,
) -> None:
    address = RedisAddress((stack.redis.url,), timeout_ms=2_000)
    with job(stack, "outage", address, outage_max_ms=300_000) as running:
        managers = [one["id"] for one in stack.rest.task_managers()]
        running.consent(["ada"])
        running.interact("ada", "item-00003")
        running.wait_until_personal("ada")
        with away(stack):
            running.interact("ada", "item-00004")
            before = running.failed_checkpoints()
            until(lambda: running.failed_checkpoints() >= before + 3, "checkpoints that fail", 60)
            assert (running.restarts(), stack.rest.state(running.job_id)) == (0, "RUNNING")
        running.interact("ada", "item-00005")
        running.wait_until_personal("ada")
        assert running.restarts() == 0
        with away(stack):
            running.interact("ada", "item-00006")
            failed = running.failed_checkpoints()
            until(lambda: running.failed_checkpoints() > failed, "an operator that waits", 60)
            stack.rest.cancel(running.job_id)
            time.sleep(CANCELLATION_TIMEOUT_S + 2)
        assert [one["id"] for one in stack.rest.task_managers()] == managers, "no watchdog has killed the TaskManager"


def test_redis_outage_beyond_limit_restarts_the_job(stack: LocalStack) -> None:
    address = RedisAddress((stack.redis.url,), timeout_ms=2_000)
    with job(stack, "too-long", address, outage_max_ms=3_000) as running:
        running.consent(["ada"])
        running.interact("ada", "item-00003")
        running.wait_until_personal("ada")
        with away(stack):
            running.interact("ada", "item-00004")
            until(lambda: running.restarts() >= 1, "a restart", 60)
            assert "cannot be reached" in stack.rest.exceptions(running.job_id)
        running.interact("ada", "item-00005")
        running.wait_until_personal("ada")


def test_revoked_redis_right_stops_the_job_with_a_remedy(stack: LocalStack) -> None:
    address = RedisAddress((stack.redis.url,), timeout_ms=2_000)
    with job(stack, "rights", address) as running:
        running.consent(["ada"])
        running.interact("ada", "item-00003")
        running.wait_until_personal("ada")
        running.redis.execute_command("ACL", "SETUSER", "default", "-evalsha", "-eval")
        try:
            running.interact("ada", "item-00004")
            until(lambda: running.restarts() >= 1, "a restart", 60)
            said = stack.rest.exceptions(running.job_id, 100_000)
            assert "StoreMisconfigured" in said and "NOPERM, keys rights:*" in said and "permissions.md" in said
            assert running.pseudonymiser.user("ada") not in said
        finally:
            running.redis.execute_command("ACL", "SETUSER", "default", "+@all")
        running.wait_until_personal("ada")
