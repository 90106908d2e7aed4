"""The stack of `freshet up`, `freshet status` and `freshet down`: one per checkout, controlled from any shell."""

from __future__ import annotations

import fcntl
import json
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple, TextIO

from deploy.flink_profiles import Demand, State, flink_settings
from deploy.local.errors import StackError
from deploy.local.files import write_atomically
from deploy.local.flink_config import read_flat
from deploy.local.flink_reporter import SWITCHED_ON
from deploy.local.local_job import LocalJob, latest_snapshot, newest_job
from deploy.local.paths import LOCAL, ROOT
from deploy.local.signals import handle_signals, ignore_signals, interrupt
from deploy.local.stack import LocalStack, is_up
from schemas.errors import RestError, SettingsError

WITH_JOB = "run/with-job"
"""This file exists if the stack should have a job."""
KEPT = ("key-ring.json", "signing-key", "tenant.toml", "freshet.toml", "gateway.toml", "versions", "log")
"""What `freshet down` keeps: keys, settings, versions of models and logs."""
RUNNING = "RUNNING"


PARTS = ("redis", "kafka", "jobmanager", "taskmanager-1")


def up(task_managers: int, with_job: bool, more: str = "", state: str | None = None) -> None:
    """Start the stack and, unless disabled, the product on it.

    If the stack is up already, restart only the parts that have ended: Kafka, Redis, the gateway and the job keep their
    data, and the job its settings. `more` are tables to add to them at the start. `state` is where Flink keeps
    state, on the heap by default; a stack keeps it until it is down.
    """
    with _one_at_a_time():
        if with_job:
            write_atomically(LOCAL / WITH_JOB, "")
        if not is_up(LOCAL):
            _start(task_managers, with_job, more, State(state or State.HEAP))
        elif more:
            raise StackError(
                "it is up already, with its settings: change .local/freshet.toml and run `freshet upgrade`"
            )
        elif state is not None and state != (running := _state_of(LOCAL)):
            raise StackError(f"it is up already, with --state {running}: `freshet down` ends it and deletes its state")
        else:
            _resume(with_job)


def _state_of(directory: Path) -> State:
    """Where the stack below `directory` keeps state."""
    placed = read_flat((directory / "flink" / "conf" / "config.yaml").read_text(encoding="utf-8"))
    return State.ROCKSDB if json.loads(placed["state.backend.type"]) == "rocksdb" else State.HEAP


def _start(task_managers: int, with_job: bool, more: str, state: State) -> None:
    begun = time.monotonic()
    settings = {**flink_settings(Demand(state, task_managers=task_managers)), **SWITCHED_ON}
    stack = LocalStack(LOCAL, task_managers, settings, report=_say)
    if not with_job:
        (LOCAL / WITH_JOB).unlink(missing_ok=True)
    _say(f"starting Kafka, Redis and Flink below {LOCAL.relative_to(ROOT)}")
    stack.start()
    try:
        if with_job:
            _start_product(stack, more=more)
        else:
            stack.publish_endpoints()
    except BaseException:
        stack.stop()
        raise
    _say(f"up after {time.monotonic() - begun:.1f} s; addresses: {stack.endpoints_path.relative_to(ROOT)}")


def _resume(with_job: bool) -> None:
    stack = LocalStack(LOCAL, report=_say)
    if missing := _never_started(stack, PARTS):
        raise StackError(f"a start was interrupted before {', '.join(missing)}: `freshet down`, then `freshet up`")
    ended = stack.ended()
    if lost := stack.restart(ended):
        _say(f"{', '.join(lost)} cannot be started again without losing state: `freshet down`, then `freshet up`")
    elif not (with_job and _resume_product(stack)) and not ended:
        _say("it is up already; `freshet down` ends it")


def _resume_product(stack: LocalStack) -> bool:
    """Submit the job from the last snapshot if none runs, and start a missing gateway; returns whether it did."""
    stack.wait_ready()
    job = newest_job(stack.rest, _job_name(stack))
    begins = job is None or job.has_ended()
    if not begins and not _never_started(stack, [stack.gateway.name]):
        return False
    if not begins or "settings" not in stack.endpoints():
        _start_product(stack, job if not begins else None)
        return True
    snapshot = latest_snapshot(stack.rest, job) if job else None
    _say(f"no job runs: submitting it, {f'from {snapshot}' if snapshot else 'with empty state'}")
    _start_product(stack, LocalJob(_submit_again(stack, snapshot), "CREATED"))
    return True


def _submit_again(stack: LocalStack, snapshot: str | None) -> str:
    from deploy.local import product

    return product.submit(stack, stack.directory / "freshet.toml", ("-s", snapshot) if snapshot else ())


def _start_product(stack: LocalStack, job: LocalJob | None = None, more: str = "") -> None:
    """Start the job, with the items of the simulated shop in the `catalogue` topic, and the gateway.

    If `job` is given, it was already submitted and is used instead. A running gateway is kept.
    """
    from deploy.demo.producer import Producer
    from deploy.demo.shop import CATALOGUE
    from deploy.local import product
    from deploy.local.gateway_product import curl_line, start_gateway

    if job is None:
        running = product.start(stack, report=_say, more_settings=more)
    else:
        running = product.publish_when_running(stack, job.id)
    if _never_started(stack, [stack.gateway.name]):
        start_gateway(stack, running)
        _say(f"the gateway takes requests: {curl_line(stack, 'ada', str(ROOT))}")
    producer = Producer(running.settings.kafka)
    for item in CATALOGUE:
        producer.send_item(item)
    producer.flush()
    producer.close()


def _never_started(stack: LocalStack, names: Iterable[str]) -> list[str]:
    """Those of `names` that have no process, running or ended; any TaskManager counts as the first."""
    known = {"taskmanager-1" if one.name.startswith("taskmanager-") else one.name for one in stack.processes()}
    return [name for name in names if name not in known]


def _job_name(stack: LocalStack) -> str:
    from jobs.settings import JobSettings, load_settings

    published = stack.endpoints().get("settings")
    return load_settings(Path(published)).job.name if published else JobSettings().name


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    lock = LOCAL / "run" / "up.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        if not any(_locked(held) for _ in range(5)):  # `freshet status` holds it for a moment
            raise StackError("another `freshet up` is under way")
        yield


def _locked(held: TextIO) -> bool:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(0.05)
        return False
    return True


def down() -> None:
    """End everything that `up` started, from any shell, and delete data and token. Does nothing if nothing runs."""
    from deploy.local.gateway_product import forget_token

    was_up = is_up(LOCAL)
    begun = time.monotonic()
    LocalStack(LOCAL).stop()
    (LOCAL / WITH_JOB).unlink(missing_ok=True)
    forget_token(LOCAL)
    _say(f"down after {time.monotonic() - begun:.1f} s" if was_up else "nothing was up")
    if kept := [name for name in KEPT if (LOCAL / name).exists()]:
        _say(f"kept below {LOCAL.name}: {', '.join(kept)}")


class Status(NamedTuple):
    """The state of the stack: whether each part runs, the process ids, and the addresses.

    `job` is the state of the job in Flink, `none` or `unknown`; None if the stack should have no job.
    """

    running: dict[str, bool]
    pids: dict[str, int]
    addresses: dict[str, str]
    job: str | None = None
    starting: bool = False
    """Whether a `freshet up` is under way."""

    def is_up(self) -> bool:
        """Whether there is a stack and all its parts run, including the job if there should be one."""
        return bool(self.running) and all(self.running.values()) and self.job in (None, RUNNING)


def status() -> Status:
    """The current state of the stack; empty if it is down."""
    stack = LocalStack(LOCAL)
    records = stack.processes()
    running = {record.name: record.is_running() for record in records}
    if not any(running.values()):
        return Status({}, {}, {})
    has_job = (LOCAL / WITH_JOB).exists()
    names = (*PARTS, stack.gateway.name) if has_job else PARTS
    running |= dict.fromkeys(_never_started(stack, names), False)
    pids = {record.name: record.pid for record in records}
    return Status(running, pids, stack.endpoints(), _job_state(stack) if has_job else None, _is_starting())


def _is_starting() -> bool:
    lock = LOCAL / "run" / "up.lock"
    if not lock.exists():
        return False
    with lock.open() as held:
        try:
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _job_state(stack: LocalStack) -> str:
    try:
        job = newest_job(stack.rest, _job_name(stack))
    except (RestError, SettingsError):
        return "unknown"
    return job.state if job else "none"


def describe_stack(found: Status) -> list[str]:
    """The state as lines of text.

    >>> describe_stack(Status({}, {}, {}))
    ['The stack is down. `freshet up` starts it.']
    """
    if not found.running:
        return ["The stack is down. `freshet up` starts it."]
    lines = [
        f"  {name:<14} {'running' if runs else 'ENDED':<8} pid {found.pids[name]}"
        if name in found.pids
        else f"  {name:<14} NEVER STARTED"
        for name, runs in found.running.items()
    ]
    lines += [f"  {'job':<14} {found.job}"] if found.job else []
    width = max(14, *map(len, found.addresses)) if found.addresses else 14
    lines += [f"  {name:<{width}} {address}" for name, address in found.addresses.items()]
    if found.is_up():
        return lines
    if found.starting:
        return [*lines, "`freshet up` is under way: not all parts are ready yet."]
    if all(found.running.values()):
        return [*lines, "The job does not run. `freshet up` submits it where it has ended, from its last snapshot."]
    return [
        *lines,
        "A part has ended; its log is below .local/log. `freshet up` starts Kafka, Redis and the gateway again with "
        "their data; for any other part, `freshet down` and `freshet up` start over.",
    ]


@contextmanager
def interrupted_once() -> Iterator[None]:
    """The first signal interrupts the block; later ones do not interrupt the cleanup that follows."""
    handle_signals(_interrupt_once)
    yield


def _interrupt_once(number: int, frame: FrameType | None) -> None:
    ignore_signals()
    interrupt(number)


def _say(line: str) -> None:
    print(f"stack: {line}", file=sys.stderr, flush=True)
