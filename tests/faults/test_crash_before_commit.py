"""A crash after a checkpoint is complete and before the sinks have committed its transactions.

A proxy in front of the broker holds back the commit requests, so that this state lasts until the crash.
"""

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from kafka import KafkaAdminClient
from kafka.admin import TransactionDescription

from deploy.local import product
from deploy.local.stack import LocalStack
from freshet.cli import main as freshet
from schemas import topics
from tests.support.kafka_front import END_TXN, KafkaFront
from tests.support.live import Live, small_model, until

EXACTLY_ONCE = (topics.EVENTS, topics.AUDIT, topics.AUDIT_HEADS, topics.DEAD_LETTERS)
SHORT_MS = 30_000
CLICKS = 5
CLICKS_AND_MORE = CLICKS + 1
Records = dict[str, Counter[bytes]]


class Crash(NamedTuple):
    """The remaining checkpoint, its uncommitted records, and when Kafka will abort their transactions."""

    checkpoint: str
    written: Records
    aborted_ms: int


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaFront]:
    with KafkaFront(0) as front:
        yield front


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, front: KafkaFront) -> Iterator[Live]:
    """A stack whose only checkpoints are those that a test takes."""
    directory = tmp_path_factory.mktemp("crash")
    stack = LocalStack(directory, flink_settings={"execution.checkpointing.interval": "1 h"})
    front.lead_to(stack.kafka.port)
    stack.kafka.advertise(front.port)
    small_model(directory / "model")
    with stack:
        running = Live(stack, product.start(stack, model_directory=directory / "model"))
        yield running
        running.close()


def records(live: Live, isolation: str = "read_committed") -> Records:
    """The contents of the exactly-once topics."""
    found: Records = {topic: Counter() for topic in EXACTLY_ONCE}
    for record in live.records(*EXACTLY_ONCE, isolation=isolation):
        found[record.topic.removeprefix(live.settings.kafka.topic_prefix)][record.value] += 1
    return found


def less(found: Records, known: Records) -> Records:
    return {topic: found[topic] - known[topic] for topic in found}


def ongoing(live: Live) -> list[TransactionDescription]:
    """The job's open transactions."""
    admin = KafkaAdminClient(bootstrap_servers=live.settings.kafka.bootstrap_servers)
    try:
        listed = itertools.chain.from_iterable(admin.list_transactions().values())
        mine = [one.transactional_id for one in listed if one.transactional_id.startswith(live.settings.kafka.group())]
        return [one for one in admin.describe_transactions(mine).values() if one.state.value == "Ongoing"]
    finally:
        admin.close()


def live_a_little(live: Live, user: str) -> None:
    """Write something to each topic, and wait until the job has read it."""
    live.consent([user])
    for item in range(CLICKS):
        live.interact(user, f"item-0000{item}")
    live.interact(user, "item-00001", type="nonsense")
    live.wait_until_accounted(sum(1 for _ in live.records(topics.INTERACTIONS)))


def settle(live: Live) -> None:
    """Wait until everything that the job has written is committed."""

    def is_committed() -> bool:
        live.checkpoint()
        return not ongoing(live)

    until(is_committed, "the commit", pause_s=0.5)


def crash_before_commit(live: Live, front: KafkaFront, user: str) -> Crash:
    settle(live)
    before = records(live)
    with front.holding_back(END_TXN):
        live_a_little(live, user)
        until(lambda: all(less(records(live, "read_uncommitted"), before).values()), "something on each topic")
        live.checkpoint()
        until(front.has_held.is_set, "the commit")
        checkpoint = live.stack.rest.checkpoints(live.job_id)["latest"]["completed"]["external_path"]
        live.stack.kill_flink()
    left = ongoing(live)
    assert len(left) == len(EXACTLY_ONCE)
    assert records(live) == before
    aborted_ms = min(one.transaction_start_time_ms + one.transaction_timeout_ms for one in left)
    return Crash(checkpoint, less(records(live, "read_uncommitted"), before), aborted_ms)


def go_on(live: Live, path: Path, crash: Crash) -> None:
    live.stack.start_flink()
    live.job_id = product.submit(live.stack, path, ("-s", crash.checkpoint))
    live.stack.rest.wait_running(live.job_id)


def with_short_transactions(live: Live) -> Path:
    """Other settings for the same job. Heads are signed each second, so that no transaction is old before a crash."""
    path = live.product.settings_path
    text = path.read_text().replace("[kafka]\n", f"[kafka]\ntransaction_timeout_ms = {SHORT_MS}\n", 1)
    short = path.with_name("short.toml")
    short.write_text(text.replace("[audit]\n", "[audit]\nheads_every_ms = 1000\n", 1))
    return short


def log_of_task_managers(live: Live) -> str:
    return "".join(log.read_text() for log in (live.stack.directory / "log").glob("taskmanager*.log"))


def told_end_ms(crash: Crash) -> int:
    """The time from which a restore of the checkpoint is reported."""
    [told] = re.findall(rb"transactions-end=(\d+)", Path(urlsplit(crash.checkpoint).path, "_metadata").read_bytes())
    return int(told)


def verify(live: Live) -> int:
    return freshet.run(["audit", "verify", "--settings", str(live.product.settings_path)])


@pytest.mark.promise("crash-before-commit")
def test_uncommitted_records_are_committed_once_after_a_crash(live: Live, front: KafkaFront) -> None:
    crash = crash_before_commit(live, front, "ada")
    go_on(live, with_short_transactions(live), crash)
    assert less(crash.written, records(live)) == {topic: Counter() for topic in EXACTLY_ONCE}
    live_a_little(live, "bea")
    settle(live)
    account = live.wait_until_accounted(CLICKS_AND_MORE * 2)
    found = records(live)
    assert all(set(found[topic].values()) == {1} for topic in EXACTLY_ONCE)
    assert found[topics.EVENTS].total() == account["accepted"] == 2 * CLICKS
    assert found[topics.DEAD_LETTERS].total() == sum(account["rejected"].values()) == 2
    assert verify(live) == 0
    assert live.metric("failedCommittables") == live.metric("restores_past_transactions_total") == 0


def test_losses_of_timed_out_transactions_are_reported(
    live: Live, front: KafkaFront, capsys: pytest.CaptureFixture[str]
) -> None:
    crash = crash_before_commit(live, front, "cleo")
    assert told_end_ms(crash) <= crash.aborted_ms
    until(lambda: not ongoing(live), "Kafka to abort the transactions", pause_s=0.5)
    go_on(live, live.product.settings_path, crash)
    live_a_little(live, "cleo")
    settle(live)
    assert less(crash.written, records(live)) == crash.written, "the job goes on without it"
    # The job fails to commit while it starts, and Flink's REST shows a metric up to ten seconds late.
    until(lambda: live.metric("failedCommittables") == len(EXACTLY_ONCE), "the metric of lost transactions", pause_s=1)
    until(lambda: live.metric("restores_past_transactions_total") == 1, "the metric of a late restore", pause_s=1)
    log = log_of_task_managers(live)
    assert log.count("Unable to commit transaction") == len(EXACTLY_ONCE)
    assert log.count("Kafka ended the transactions of this snapshot") == 1
    assert verify(live) == 1
    found = capsys.readouterr().out
    last = max((json.loads(record) for record in crash.written[topics.AUDIT]), key=lambda record: record["seq"])
    [told] = [
        line for line in found.splitlines() if f"FOUND: bucket {last['bucket']} record {last['seq']}: missing" in line
    ]
    assert "Kafka aborted the transaction before the job committed it: the job was down for longer" in told
