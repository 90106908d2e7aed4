"""Probes: events of dedicated users whose lists are watched in Redis from outside.

A probe's clock begins just before send() and stops when the user's list is of the version that covers the event.
"""

import random
import time
from typing import Any, Final, NamedTuple

import redis

from bench.clients import producer
from bench.stand import Tenant
from bench.workload import ITEMS, item_id
from schemas.pseudonyms import Pseudonymiser, load_key_ring
from schemas.store import user_keys

PROBE: Final = b"probe-"
WARM_UP: Final = "warm-up"
USERS: Final = 600
PER_S: Final = 25
LOOK_EVERY_S: Final = 0.001
LOST_AFTER_S: Final = 120.0
_VERSION_AT: Final = len(b'{"v":')


def probe_users() -> list[str]:
    """Their raw ids."""
    return [f"{PROBE.decode()}{number:04d}" for number in range(USERS)]


def probe_value(user: str, item: int, phase: str, sent_ns: int, ts: int) -> bytes:
    """A view; the event id carries when it was sent, by the clock that all processes share, and the phase.

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
    """Sends and watches. Call consents first: each probe user must stand at version 1."""

    def __init__(self, tenant: Tenant) -> None:
        settings = tenant.settings
        self._topic = settings.topic_names().interactions
        self._sending = producer(settings.kafka.bootstrap_servers, linger_ms=0)
        self._connection: Any = redis.Redis.from_url(settings.redis.url).connection_pool.get_connection("_")
        pseudonymiser = Pseudonymiser(load_key_ring(settings.privacy.key_ring))
        self._keys = {user: user_keys("", pseudonymiser.user(user))[0] for user in probe_users()}
        self._users = list(self._keys)
        self._versions = dict.fromkeys(self._keys, 1)
        self._waiting: dict[str, _Waiting] = {}
        self._random = random.Random(1)  # noqa: S311
        self._number = 0
        self.found: dict[str, list[float]] = {}

    def run(self, phase: str, seconds: float) -> None:
        """Send probes for so long, at random moments (so that they keep step with nothing), and watch for them."""
        end = time.monotonic() + seconds
        next_at = time.monotonic()
        while (now := time.monotonic()) < end:
            if now >= next_at:
                self._send(phase)
                next_at += self._random.expovariate(PER_S)
            self._look()
            time.sleep(LOOK_EVERY_S)

    def finish(self) -> None:
        """Wait for those that are still on their way; raise if any is lost."""
        end = time.monotonic() + LOST_AFTER_S
        while self._waiting:
            self._look()
            if time.monotonic() > end:
                raise TimeoutError(f"{len(self._waiting)} probes were never seen in Redis")
            time.sleep(LOOK_EVERY_S)

    def _send(self, phase: str) -> None:
        user = self._users[self._number % USERS]
        self._number += 1
        if user in self._waiting:
            if phase == WARM_UP:
                return
            raise TimeoutError(f"the job does not keep up: a list is more than {USERS / PER_S:.0f} s late")
        self._versions[user] += 1
        item, ts = self._random.randrange(ITEMS), time.time_ns() // 1_000_000
        sent_ns = time.monotonic_ns()
        self._waiting[user] = _Waiting(sent_ns, self._versions[user], phase)
        self._sending.send(self._topic, probe_value(user, item, phase, sent_ns, ts), user.encode())

    def _look(self) -> None:
        """One round trip for all that are on their way."""
        if not self._waiting:
            return
        users, connection = list(self._waiting), self._connection
        connection.send_packed_command(
            connection.pack_commands([("GETRANGE", self._keys[user], 0, 30) for user in users])
        )
        heads = [connection.read_response(disable_decoding=True) for _ in users]
        now_ns = time.monotonic_ns()
        for user, head in zip(users, heads, strict=True):
            waiting = self._waiting[user]
            if head and int(head[_VERSION_AT : head.index(b",")]) >= waiting.version:
                self.found.setdefault(waiting.phase, []).append((now_ns - waiting.sent_ns) / 1e6)
                del self._waiting[user]

    def close(self) -> None:
        """Leave Kafka and Redis."""
        self._sending.close()
        self._connection.disconnect()
