"""A submission that is prepared while the job that it replaces runs on, and completed from that job's savepoint.

Nobody gets a fresh list between the stop of one job and the start of the next. So Flink's client makes all checks and
builds the graph first, and then waits for the savepoint: after the stop, it only records the submission and sends it.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pyflink.datastream import StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway

from adapters.flink.rest import FlinkRest
from jobs.clock import clock_ms
from jobs.running_jobs import rest_address
from jobs.snapshots import SnapshotUnreadable, read_snapshot
from jobs.state_report import JobPlan, judge
from schemas.errors import RestError, SettingsError

READY: Final = "checked: "
"""The prefix of the line that is printed before the savepoint is awaited."""
LOOKS: Final = 3
"""A checkpoint may be deleted while it is read, when a newer one completes."""


def check_newest_checkpoint(env: StreamExecutionEnvironment, job: str, plan: JobPlan) -> bool:
    """Whether the state of the running `job` could be examined. Raises :class:`SettingsError` if that of `plan` must
    not start from it.

    What the backend of a checkpoint alone can read does not count: a canonical savepoint will be in its place.
    """
    for _ in range(LOOKS):
        try:
            snapshot = read_snapshot(_newest_checkpoint(env, job))._replace(formats=frozenset())
        except (SnapshotUnreadable, RestError) as error:
            why = error
            continue
        if findings := judge(snapshot, plan, clock_ms()).findings:
            raise SettingsError(findings[0].why)
        return True
    print(f"{why}; the savepoint will be examined once job {job} is stopped", file=sys.stderr, flush=True)
    return False


def _newest_checkpoint(env: StreamExecutionEnvironment, job: str) -> str:
    address = rest_address(env)
    newest = FlinkRest(address).checkpoints(job)["latest"]["completed"] if address else None
    if newest is None:
        raise SnapshotUnreadable(f"job {job} has no completed checkpoint yet")
    return str(newest["external_path"])


def replace_job(
    env: StreamExecutionEnvironment, name: str, replaced: str, orders: Path, complete: Callable[[str], None]
) -> None:
    """Build the graph, await the savepoint, `complete` what only that allows, and submit the graph."""
    graph = env._generate_stream_graph(True, name)
    print(f"{READY}this submission will be accepted once job {replaced} is stopped", flush=True)
    savepoint = await_savepoint(orders)
    options = get_gateway().jvm.org.apache.flink.configuration.StateRecoveryOptions
    configuration = env._j_stream_execution_environment.getConfiguration()
    configuration.set(options.SAVEPOINT_PATH, savepoint)
    restore = get_gateway().jvm.org.apache.flink.runtime.jobgraph.SavepointRestoreSettings
    graph.setSavepointRestoreSettings(restore.fromConfiguration(configuration))
    complete(savepoint)
    env._j_stream_execution_environment.execute(graph)


def await_savepoint(orders: Path) -> str:
    """The savepoint that is written, as a line, to the named pipe `orders`. Raises :class:`SettingsError` if nobody
    writes one any more.
    """
    pipe = os.open(orders, os.O_RDONLY | os.O_NONBLOCK)  # never waits for a writer that has ended already
    os.set_blocking(pipe, True)
    with os.fdopen(pipe, encoding="utf-8") as lines:
        line = lines.readline()
    if not line.endswith("\n"):
        raise SettingsError("the upgrade ended before the job was stopped")
    return line.rstrip("\n")
