"""`python -m deploy.local up | down | status`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from types import FrameType

from deploy.local.errors import StackError
from deploy.local.paths import LOCAL, ROOT
from deploy.local.stack import LocalStack, is_up


def up(task_managers: int, with_job: bool) -> int:
    """Start the stack and, unless told otherwise, the product on it. Says so and does nothing if it is up already."""
    if is_up(LOCAL):
        print("The stack is up already. `make down` ends it.")
        return status()
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
    return status()


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


def down() -> int:
    """End everything that `up` started, from any shell. Harmless if nothing runs."""
    was_up = is_up(LOCAL)
    begun = time.monotonic()
    LocalStack(LOCAL).stop()
    _say(f"down after {time.monotonic() - begun:.1f} s" if was_up else "nothing was up")
    return 0


def status() -> int:
    """Print each process and the addresses. 0 = all run, 1 = some have ended, 3 = the stack is down."""
    records = LocalStack(LOCAL).processes()
    if not any(record.is_running() for record in records):
        print("The stack is down. `make up` starts it.")
        return 3
    for record in records:
        print(f"  {record.name:<14} {'running' if record.is_running() else 'ENDED':<8} pid {record.pid}")
    endpoints = LOCAL / "endpoints.json"
    if endpoints.exists():
        for name, address in json.loads(endpoints.read_text()).items():
            print(f"  {name:<14} {address}")
    if all(record.is_running() for record in records):
        return 0
    print("A part has ended; its log is below .local/log. `make down`, then `make up`, begins anew.")
    return 1


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and do what it says."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up_parser = commands.add_parser("up", help="start Kafka, Redis and Flink, and the product on them")
    up_parser.add_argument("--task-managers", type=int, default=1, metavar="N", help="of one slot each (default 1)")
    up_parser.add_argument("--no-job", action="store_true", help="only the stack, no topics and no job")
    commands.add_parser("down", help="end all of it and forget its data")
    commands.add_parser("status", help="what runs, and where it listens")
    options = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt_once)
    try:
        if options.command == "up":
            return up(options.task_managers, with_job=not options.no_job)
        return down() if options.command == "down" else status()
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing was left running", file=sys.stderr)
        return 130


def _interrupt_once(number: int, frame: FrameType | None) -> None:
    """Interrupt the start, but not the cleaning up that follows, which has a bound of its own."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def _say(line: str) -> None:
    print(f"stack: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
