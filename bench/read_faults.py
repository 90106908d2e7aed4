"""What frontends see of the gateway while Redis is killed, paused, flushed, read-only or slow, and how it recovers."""

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import redis

from bench.figures import percentile
from bench.http_load import Loaded, ask_for
from bench.read_testbed import ReadTestbed

CONNECTIONS: Final = 16
SLOW_S: Final = 2.0
NOBODY: Final = 1
"""A port on which nothing listens."""


class ReadOutage(NamedTuple):
    """`failed`: statuses other than 200; `p99_ms`: of the outage; `recovered_s`: until all lists are own again."""

    answers: int
    failed: int
    p99_ms: float
    recovered_s: float


class Phases(NamedTuple):
    """Seconds of requests before, during and after the outage of Redis."""

    before_s: float = 1.0
    down_s: float = 4.0
    after_s: float = 4.0


PHASES: Final = Phases()


class Fault(NamedTuple):
    """How an outage of Redis begins and ends, and how long its effect lasts after that."""

    begin: Callable[[ReadTestbed], None]
    end: Callable[[ReadTestbed], None]
    lasts_s: float = 0.0


def _execute(testbed: ReadTestbed, *commands: tuple[Any, ...]) -> None:
    with redis.Redis.from_url(testbed.redis_url, socket_timeout=60) as client:
        for command in commands:
            client.execute_command(*command)


class _Slow:
    """Every response takes two seconds: the server sleeps for that long, repeatedly."""

    def __init__(self) -> None:
        self._over = threading.Event()

    def begin(self, testbed: ReadTestbed) -> None:
        self._over.clear()
        threading.Thread(target=self._sleep_again, args=(testbed,), daemon=True).start()

    def end(self, testbed: ReadTestbed) -> None:
        self._over.set()

    def _sleep_again(self, testbed: ReadTestbed) -> None:
        while not self._over.is_set():
            _execute(testbed, ("DEBUG", "SLEEP", str(SLOW_S)))


def _signalled(number: signal.Signals) -> Callable[[ReadTestbed], None]:
    return lambda testbed: os.kill(testbed.redis_pid(), number)


def _executing(*commands: tuple[Any, ...]) -> Callable[[ReadTestbed], None]:
    return lambda testbed: _execute(testbed, *commands)


def _started_and_filled(testbed: ReadTestbed) -> None:
    """A restarted Redis may have lost its latest writes: the job writes consents and lists again."""
    testbed.start_redis()
    testbed.fill()


def _promoted_and_filled(testbed: ReadTestbed) -> None:
    """The same applies to one that was a replica meanwhile."""
    _execute(testbed, ("REPLICAOF", "NO", "ONE"))
    testbed.fill()


_SLOW: Final = _Slow()
FAULTS: Final[dict[str, Fault]] = {
    "killed": Fault(ReadTestbed.kill_redis, _started_and_filled),
    "paused": Fault(_signalled(signal.SIGSTOP), _signalled(signal.SIGCONT)),
    "flushed": Fault(_executing(("FLUSHALL",), ("SCRIPT", "FLUSH")), ReadTestbed.fill),
    "read-only": Fault(_executing(("REPLICAOF", "127.0.0.1", NOBODY)), _promoted_and_filled),
    "slow": Fault(_SLOW.begin, _SLOW.end, lasts_s=SLOW_S),
}


def seen_while(testbed: ReadTestbed, fault: Fault, phases: Phases = PHASES) -> ReadOutage:
    """Send requests before, during and after the fault; evaluate the answers."""
    found: list[Loaded] = []
    load = threading.Thread(
        target=lambda: found.extend(
            ask_for(testbed.port, [(testbed.requests(), CONNECTIONS)], sum(phases) + fault.lasts_s)
        )
    )
    load.start()
    time.sleep(phases.before_s)
    began_s = time.monotonic()
    fault.begin(testbed)
    time.sleep(phases.down_s)
    fault.end(testbed)
    ended_s = time.monotonic() + fault.lasts_s
    load.join()
    answers = found[0].answers
    during = [answer.seconds for answer in answers if began_s <= answer.at_s <= ended_s]
    others = [answer.at_s for answer in answers if not answer.own and answer.at_s > ended_s]
    return ReadOutage(
        len(answers),
        sum(answer.status != 200 for answer in answers),
        round(1e3 * percentile(during, 99), 1),
        round(max(others, default=ended_s) - ended_s, 2),
    )
