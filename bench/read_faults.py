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
BEFORE_S: Final = 1.0
DOWN_S: Final = 4.0
AFTER_S: Final = 4.0
SLOW_S: Final = 2.0
NOBODY: Final = 1
"""A port on which nothing listens."""


class Seen(NamedTuple):
    """`failed` answers were none of 200; `p99_ms` while Redis was away; `recovered_s` until all lists are own again."""

    answers: int
    failed: int
    p99_ms: float
    recovered_s: float


class Fault(NamedTuple):
    """What happens to Redis, and what ends it."""

    begin: Callable[[ReadStand], None]
    end: Callable[[ReadStand], None]


def _ask(stand: ReadStand, *commands: tuple[Any, ...]) -> None:
    with redis.Redis.from_url(stand.redis_url, socket_timeout=60) as client:
        for command in commands:
            client.execute_command(*command)


def _slow(stand: ReadStand) -> None:
    """Every answer takes two seconds: the server sleeps so long, again and again."""
    end = time.monotonic() + DOWN_S

    def sleep_again() -> None:
        while time.monotonic() < end:
            _ask(stand, ("DEBUG", "SLEEP", str(SLOW_S)))

    threading.Thread(target=sleep_again, daemon=True).start()


def _nothing(stand: ReadStand) -> None:
    pass


def _signalled(number: signal.Signals) -> Callable[[ReadStand], None]:
    return lambda stand: os.kill(stand.redis_pid(), number)


def _asked(*commands: tuple[Any, ...]) -> Callable[[ReadStand], None]:
    return lambda stand: _ask(stand, *commands)


FAULTS: Final[dict[str, Fault]] = {
    "killed": Fault(ReadStand.kill_redis, ReadStand.start_redis),
    "paused": Fault(_signalled(signal.SIGSTOP), _signalled(signal.SIGCONT)),
    "flushed": Fault(_asked(("FLUSHALL",), ("SCRIPT", "FLUSH")), ReadStand.fill),
    "read-only": Fault(_asked(("REPLICAOF", "127.0.0.1", NOBODY)), _asked(("REPLICAOF", "NO", "ONE"))),
    "slow": Fault(_slow, _nothing),
}


def seen_while(stand: ReadStand, fault: Fault) -> Seen:
    """Ask all the time, before, while and after; judge what came."""
    found: list[Loaded] = []
    asking = threading.Thread(
        target=lambda: found.extend(
            ask_for(stand.port, [(stand.requests(), CONNECTIONS)], BEFORE_S + DOWN_S + AFTER_S + SLOW_S)
        )
    )
    asking.start()
    time.sleep(BEFORE_S)
    began_s = time.monotonic()
    fault.begin(stand)
    time.sleep(DOWN_S)
    fault.end(stand)
    ended_s = time.monotonic() + (SLOW_S if fault.begin is _slow else 0.0)  # its last sleep goes on
    asking.join()
    answers = found[0].answers
    during = [answer.seconds for answer in answers if began_s <= answer.at_s <= ended_s]
    others = [answer.at_s for answer in answers if not answer.own and answer.at_s > ended_s]
    return Seen(
        len(answers),
        sum(answer.status != 200 for answer in answers),
        round(1e3 * percentile(during, 99), 1),
        round(max(others, default=ended_s) - ended_s, 2),
    )
