"""Probes: events of dedicated users whose lists are watched in Redis from outside.

A probe's clock begins just before send() and stops when the user's list is of the version that covers the event.
Redis says when a watched list changes (client-side caching's invalidation messages): asking all the time would take a
tenth of a core from what is measured.
"""

import random
import time
from typing import Any, Final, NamedTuple

import redis

from bench.clients import light_producer
from bench.stand import Tenant
from bench.workload import ITEMS, item_id
from schemas.pseudonyms import Pseudonymiser, load_key_ring
from schemas.store import user_keys

PROBE: Final = b"probe-"
WARM_UP: Final = "warm-up"
USERS: Final = 600
PER_S: Final = 25
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
        self._sending = light_producer(settings.kafka.bootstrap_servers, linger_ms=0)
        self._lists = _WatchedLists(settings.redis.url)
        pseudonymiser = Pseudonymiser(load_key_ring(settings.privacy.key_ring))
        self._key_of = {user: user_keys("", pseudonymiser.user(user))[0] for user in probe_users()}
        self._users = list(self._key_of)
        self._versions = dict.fromkeys(self._key_of, 1)
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
            self._wait(min(next_at, end) - time.monotonic())

    def finish(self) -> None:
        """Wait for those that are still on their way; raise if any is lost."""
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
        """Sleep until a watched list changes, at most so long."""
        changed = self._lists.changed(max(seconds, 0.0))
        now_ns = time.monotonic_ns()
        known = [key for key in changed if key in self._waiting]
        for key, version in zip(known, self._lists.watch(known), strict=True):
            waiting = self._waiting[key]
            if version >= waiting.version:
                self.found.setdefault(waiting.phase, []).append((now_ns - waiting.sent_ns) / 1e6)
                del self._waiting[key]

    def close(self) -> None:
        """Leave Kafka and Redis."""
        self._sending.flush()
        self._lists.close()


class _WatchedLists:
    """Lists in Redis that are told of when they change: a key is watched from each reading of it until its next change.

    Two connections: one reads with tracking on, the other one gets the invalidation messages.
    """

    def __init__(self, url: str) -> None:
        pool = redis.Redis.from_url(url).connection_pool
        self._telling: Any = pool.get_connection("_")
        self._reading: Any = pool.get_connection("_")
        [told_to] = self._answers(self._telling, [("CLIENT", "ID")])
        self._answers(self._telling, [("SUBSCRIBE", "__redis__:invalidate")])
        self._answers(self._reading, [("CLIENT", "TRACKING", "ON", "REDIRECT", told_to)])

    def watch(self, keys: list[str]) -> list[int]:
        """The versions of the lists that stand there, 0 for none; each is watched from now on."""
        heads = self._answers(self._reading, [("GETRANGE", key, 0, 30) for key in keys])
        return [int(head[_VERSION_AT : head.index(b",")]) if head else 0 for head in heads]

    def changed(self, seconds: float) -> list[str]:
        """The keys that have changed; waits for the first of them, at most so long."""
        if not self._telling.can_read(timeout=seconds):
            return []
        _, _, keys = self._telling.read_response(disable_decoding=True)
        return [key.decode() for key in keys or ()]

    def close(self) -> None:
        """Leave Redis."""
        self._reading.disconnect()
        self._telling.disconnect()

    @staticmethod
    def _answers(connection: Any, commands: list[tuple[Any, ...]]) -> list[Any]:
        if not commands:
            return []
        connection.send_packed_command(connection.pack_commands(commands))
        return [connection.read_response(disable_decoding=True) for _ in commands]
