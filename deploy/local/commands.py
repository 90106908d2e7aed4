"""The stack of `freshet up`, `freshet status` and `freshet down`: one for each checkout, started from any shell."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple

from deploy.local.paths import LOCAL, ROOT
from deploy.local.stack import LocalStack, is_up


def up(task_managers: int, with_job: bool) -> None:
    """Start the stack and, unless told otherwise, the product on it.

    If it is up already, this only starts the parts again that have ended and keep their data.
    """
    if is_up(LOCAL):
        _restart_ended()
        return
    begun = time.monotonic()
    stack = LocalStack(LOCAL, task_managers, report=_say)
    _say(f"starting Kafka, Redis and Flink below {LOCAL.relative_to(ROOT)}")
    stack.start()
    try:
        if with_job:
            _start_product(stack)
        else:
            stack.publish_endpoints()
    except BaseException:
        stack.stop()
        raise
    _say(f"up after {time.monotonic() - begun:.1f} s; addresses: {stack.endpoints_path.relative_to(ROOT)}")


def _restart_ended() -> None:
    stack = LocalStack(LOCAL, report=_say)
    ended = stack.ended()
    if not ended:
        _say("it is up already; `freshet down` ends it")
        return
    lost = stack.restart(ended)
    if lost:
        _say(f"{', '.join(lost)} cannot be started again without losing state: `freshet down`, then `freshet up`")


def _start_product(stack: LocalStack) -> None:
    """The job with the model of the simulated shop, whose items stand in the `catalogue` topic."""
    from deploy.demo.producer import Producer
    from deploy.demo.shop import CATALOGUE
    from deploy.demo.shop_model import ready_shop_model
    from deploy.local import product
    from deploy.local.gateway_product import curl_line, start_gateway

    running = product.start(stack, model_directory=ready_shop_model(LOCAL / "model", _say), report=_say)
    start_gateway(stack, running)
    _say(f"the gateway takes requests: {curl_line(stack, 'ada', str(ROOT))}")
    producer = Producer(running.settings.kafka)
    for item in CATALOGUE:
        producer.send_item(item)
    producer.flush()
    producer.close()


def down() -> None:
    """End everything that `up` started, from any shell. Harmless if nothing runs."""
    was_up = is_up(LOCAL)
    begun = time.monotonic()
    LocalStack(LOCAL).stop()
    _say(f"down after {time.monotonic() - begun:.1f} s" if was_up else "nothing was up")


class Status(NamedTuple):
    """What there is of the stack: whether each of its parts runs, their process ids, and the addresses."""

    running: dict[str, bool]
    pids: dict[str, int]
    addresses: dict[str, str]

    def is_up(self) -> bool:
        """Whether there is a stack, and each part of it runs."""
        return bool(self.running) and all(self.running.values())


def status() -> Status:
    """How the stack is now; empty where it is down."""
    records = LocalStack(LOCAL).processes()
    running = {record.name: record.is_running() for record in records}
    if not any(running.values()):
        return Status({}, {}, {})
    endpoints = LOCAL / "endpoints.json"
    addresses = json.loads(endpoints.read_text()) if endpoints.exists() else {}
    return Status(running, {record.name: record.pid for record in records}, addresses)


def describe_rotation(found: Status) -> list[str]:
    """The same as lines.

    >>> describe_rotation(Status({}, {}, {}))
    ['The stack is down. `freshet up` starts it.']
    """
    if not found.running:
        return ["The stack is down. `freshet up` starts it."]
    lines = [
        f"  {name:<14} {'running' if runs else 'ENDED':<8} pid {found.pids[name]}"
        for name, runs in found.running.items()
    ]
    lines += [f"  {name:<14} {address}" for name, address in found.addresses.items()]
    if found.is_up():
        return lines
    return [
        *lines,
        "A part has ended; its log is below .local/log. `freshet up` starts Kafka, Redis and the gateway again with "
        "their data; for any other part, `freshet down` and `freshet up` begin anew.",
    ]


@contextmanager
def interrupted_once() -> Iterator[None]:
    """The first signal interrupts what is done here; later ones do not interrupt the cleaning up that follows."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt_once)
    yield


def _interrupt_once(number: int, frame: FrameType | None) -> None:
    """Interrupt the start, but not the cleaning up that follows, which has a bound of its own."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def _say(line: str) -> None:
    print(f"stack: {line}", file=sys.stderr, flush=True)
