"""Probes: events of dedicated users whose lists are watched in Redis.

A probe's time starts just before send() and ends when the user's list has the version that includes the event. Redis
reports when a watched list changes (invalidation messages of client-side caching): polling would take a tenth of a core
from what is measured.
"""

import random
import time
from typing import Final, NamedTuple

from adapters.secrets.key_rings import load_key_ring
from bench.clients import light_producer
from bench.testbed import BenchTenant
from bench.watching import WatchedKeys
from bench.workload import ITEMS, item_id
from schemas.pseudonyms import Pseudonymiser
from schemas.store import user_keys

PROBE: Final = b"probe-"
WARM_UP: Final = "warm-up"
USERS: Final = 600
PER_S: Final = 25
LOST_AFTER_S: Final = 120.0
_VERSION_AT: Final = len(b'{"v":')


def probe_users() -> list[str]:
    """The raw ids of the probe users."""
    return [f"{PROBE.decode()}{number:04d}" for number in range(USERS)]


def probe_value(user: str, item: int, phase: str, sent_ns: int, ts: int) -> bytes:
    """A view; the event id contains the phase and the send time, by the clock that all processes share.

    >>> sent_and_phase(probe_value("probe-0001", 3, "500", 12, 1_700_000_000_000))
    (12, '500')
    """
    return (
        f'{{"event_id":"{sent_ns}-{phase}","type":"view","ts":{ts},"user_id":"{user}",'
        f'"item_id":"{item_id(item)}","surface":"home","schema_v":1}}'
    ).encode()


def sent_and_phase(value: bytes) -> tuple[int, str]:
    """When a probe was sent, in ns, and in which phase."""
    sent, _, phase = value[len(b'{"event_id":"') : value.index(b'","type"')].decode().partition("-")
    return int(sent), phase


class _Waiting(NamedTuple):
    sent_ns: int
    version: int
    phase: str


class Probes:
    """Sends probes and watches lists. Call consents first: each probe user must be at version 1."""

    def __init__(self, tenant: BenchTenant) -> None:
        settings = tenant.settings
        self._topic = settings.topic_names().interactions
        self._sending = light_producer(settings.kafka.bootstrap_servers, linger_ms=0)
        self._lists = WatchedKeys(settings.redis.urls[0], bytes_max=31)
        pseudonymiser = Pseudonymiser(load_key_ring(settings.privacy.key_ring))
        self._key_of = {user: user_keys("", pseudonymiser.user(user))[0] for user in probe_users()}
        self._users = list(self._key_of)
        self._versions = dict.fromkeys(self._key_of, 1)
        self._waiting: dict[str, _Waiting] = {}
        self._random = random.Random(1)  # noqa: S311
        self._number = 0
        self.found: dict[str, list[float]] = {}

    def run(self, phase: str, seconds: float) -> None:
        """Send probes for `seconds`, at random moments so as not to synchronise with anything; watch their lists."""
        end = time.monotonic() + seconds
        next_at = time.monotonic()
        while (now := time.monotonic()) < end:
            if now >= next_at:
                self._send(phase)
                next_at += self._random.expovariate(PER_S)
            self._wait(min(next_at, end) - time.monotonic())

    def finish(self) -> None:
        """Wait for outstanding probes; raise if any is lost."""
        end = time.monotonic() + LOST_AFTER_S
        while self._waiting:
            self._wait(1.0)
            if time.monotonic() > end:
                raise TimeoutError(f"{len(self._waiting)} probes were never seen in Redis")

    def _send(self, phase: str) -> None:
        user = self._users[self._number % USERS]
        self._number += 1
        key = self._key_of[user]
        if key in self._waiting:
            if phase == WARM_UP:
                return
            raise TimeoutError(f"the job does not keep up: a list is more than {USERS / PER_S:.0f} s late")
        self._versions[user] += 1
        self._lists.watch([key])
        item, ts = self._random.randrange(ITEMS), time.time_ns() // 1_000_000
        sent_ns = time.monotonic_ns()
        self._waiting[key] = _Waiting(sent_ns, self._versions[user], phase)
        self._sending.produce(self._topic, probe_value(user, item, phase, sent_ns, ts), user.encode())
        self._sending.poll(0)

    def _wait(self, seconds: float) -> None:
        """Sleep until a watched list changes, at most `seconds`."""
        changed = self._lists.changed(max(seconds, 0.0))
        now_ns = time.monotonic_ns()
        known = [key for key in changed if key in self._waiting]
        for key, head in zip(known, self._lists.watch(known), strict=True):
            waiting = self._waiting[key]
            if version_of(head) >= waiting.version:
                self.found.setdefault(waiting.phase, []).append((now_ns - waiting.sent_ns) / 1e6)
                del self._waiting[key]

    def close(self) -> None:
        """Disconnect from Kafka and Redis."""
        self._sending.flush()
        self._lists.close()


def version_of(head: bytes) -> int:
    """The version of a list that starts with `head`, 0 for none.

    >>> version_of(b'{"v":12,"epoch":1'), version_of(b"")
    (12, 0)
    """
    return int(head[_VERSION_AT : head.index(b",")]) if head else 0
