"""What frontends see of the gateway while Redis is killed, paused, flushed, read-only or slow, and how soon it ends."""

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import redis

from bench.figures import percentile
from bench.http_load import Loaded, ask_for
from bench.read_stand import ReadStand

CONNECTIONS: Final = 16
SLOW_S: Final = 2.0
NOBODY: Final = 1
"""A port on which nothing listens."""


class ReadOutage(NamedTuple):
    """`failed` answers were none of 200; `p99_ms` while Redis was away; `recovered_s` until all lists are own again."""

    answers: int
    failed: int
    p99_ms: float
    recovered_s: float


class Phases(NamedTuple):
    """How long frontends ask before, while and after Redis is unavailable."""

    before_s: float = 1.0
    down_s: float = 4.0
    after_s: float = 4.0


PHASES: Final = Phases()


class Fault(NamedTuple):
    """What happens to Redis, what ends it, and how long it goes on after that."""

    begin: Callable[[ReadStand], None]
    end: Callable[[ReadStand], None]
    lasts_s: float = 0.0


def _ask(stand: ReadStand, *commands: tuple[Any, ...]) -> None:
    with redis.Redis.from_url(stand.redis_url, socket_timeout=60) as client:
        for command in commands:
            client.execute_command(*command)


class _Slow:
    """Every answer takes two seconds: the server sleeps so long, again and again."""

    def __init__(self) -> None:
        self._over = threading.Event()

    def begin(self, stand: ReadStand) -> None:
        self._over.clear()
        threading.Thread(target=self._sleep_again, args=(stand,), daemon=True).start()

    def end(self, stand: ReadStand) -> None:
        self._over.set()

    def _sleep_again(self, stand: ReadStand) -> None:
        while not self._over.is_set():
            _ask(stand, ("DEBUG", "SLEEP", str(SLOW_S)))


def _signalled(number: signal.Signals) -> Callable[[ReadStand], None]:
    return lambda stand: os.kill(stand.redis_pid(), number)


def _asked(*commands: tuple[Any, ...]) -> Callable[[ReadStand], None]:
    return lambda stand: _ask(stand, *commands)


def _started_and_filled(stand: ReadStand) -> None:
    """A Redis that has restarted may be older than it was: the job writes consents and lists anew."""
    stand.start_redis()
    stand.fill()


def _promoted_and_filled(stand: ReadStand) -> None:
    """So may one that was a replica meanwhile."""
    _ask(stand, ("REPLICAOF", "NO", "ONE"))
    stand.fill()


_SLOW: Final = _Slow()
FAULTS: Final[dict[str, Fault]] = {
    "killed": Fault(ReadStand.kill_redis, _started_and_filled),
    "paused": Fault(_signalled(signal.SIGSTOP), _signalled(signal.SIGCONT)),
    "flushed": Fault(_asked(("FLUSHALL",), ("SCRIPT", "FLUSH")), ReadStand.fill),
    "read-only": Fault(_asked(("REPLICAOF", "127.0.0.1", NOBODY)), _promoted_and_filled),
    "slow": Fault(_SLOW.begin, _SLOW.end, lasts_s=SLOW_S),
}


def seen_while(stand: ReadStand, fault: Fault, phases: Phases = PHASES) -> ReadOutage:
    """Ask all the time, before, while and after; judge what came."""
    found: list[Loaded] = []
    asking = threading.Thread(
        target=lambda: found.extend(ask_for(stand.port, [(stand.requests(), CONNECTIONS)], sum(phases) + fault.lasts_s))
    )
    asking.start()
    time.sleep(phases.before_s)
    began_s = time.monotonic()
    fault.begin(stand)
    time.sleep(phases.down_s)
    fault.end(stand)
    ended_s = time.monotonic() + fault.lasts_s
    asking.join()
    answers = found[0].answers
    during = [answer.seconds for answer in answers if began_s <= answer.at_s <= ended_s]
    others = [answer.at_s for answer in answers if not answer.own and answer.at_s > ended_s]
    return ReadOutage(
        len(answers),
        sum(answer.status != 200 for answer in answers),
        round(1e3 * percentile(during, 99), 1),
        round(max(others, default=ended_s) - ended_s, 2),
    )
