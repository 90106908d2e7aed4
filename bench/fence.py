"""Measures the time from Kafka's acknowledgement of a withdrawal to the fence in Redis and the receipt, under load.

Withdrawals are sent through the topic only; with `serving/consents.py`, the fence is set before the call returns. Each
withdrawal belongs to a different user with a list, and is sent at a random moment, regardless of earlier delays. One
clock is read three times: in the producer's callback; when Redis reports that the consent key has changed to level
none; and when a consumer gets the receipt.
"""

import random
import threading
import time
from typing import Any, Final, NamedTuple

import msgspec
import redis

from adapters.secrets.key_rings import load_key_ring
from bench.clients import light_consumer, light_producer, producer, send_all
from bench.figures import median, percentiles
from bench.latency import WARM_UP_RATE, loaded
from bench.probes import probe_value
from bench.progress import Progress
from bench.testbed import BenchTenant, Testbed
from bench.watching import WatchedKeys
from bench.workload import USERS, Record, consent_records, user_id
from schemas import topics
from schemas.consents import Level
from schemas.pseudonyms import Pseudonymiser
from schemas.receipts import ConsentReceipt, decode_receipt
from schemas.store import consent_value, user_keys

RATES: Final = (500, 2_000)
PER_S: Final = 8
SETTLE_S: Final = 5
SPARE_S: Final = 10
"""The load runs this much longer than withdrawals take on average."""
LOST_AFTER_S: Final = 60.0
OWN_ROUNDS: Final = 200
PARTITIONER: Final = "murmur2_random"
"""The one of Java and kafka-python, which wrote the grants: a user's records must stay in one partition."""
_WITHDRAWN: Final = consent_value(Level.NONE, 0, 0, 0, 0).partition(b',"at"')[0]
_CONSENT_RECEIPT: Final = b'{"kind":"consent"'


class FencePlan(NamedTuple):
    """The number of withdrawals at each rate, and seconds of warm-up before the first."""

    withdrawals: int
    warm_up_s: int


class Fence(NamedTuple):
    """Results for one rate: milliseconds from the acknowledgement to the fence and to the receipt, for each withdrawal.

    A fence may be set before the producer receives the acknowledgement: this gives a negative value.
    """

    rate: int
    fence_ms: list[float]
    receipt_ms: list[float]
    load_late_s: float


class Fences(NamedTuple):
    """The results for all rates, and the measurement overhead: the median time to see a change in Redis, in ms."""

    rates: list[Fence]
    own_ms: float


def withdrawing_user(number: int) -> str:
    """The raw id of the user of this withdrawal."""
    return f"withdrawing-{number:05d}"


def withdrawal(user: str, ts: int) -> Record:
    """The record with which `user` withdraws at `ts` (ms)."""
    change = {"user_id": user, "level": "none", "ts": ts, "method": "settings"}
    return user.encode(), msgspec.json.encode(change)


def withdrawn_name(receipt: bytes) -> str | None:
    """The pseudonym whose withdrawal the receipt confirms; None for every other receipt."""
    if not receipt.startswith(_CONSENT_RECEIPT):
        return None
    told = decode_receipt(receipt)
    if isinstance(told, ConsentReceipt) and (told.level, told.outcome) == ("none", "in_force"):
        return told.pseudonym
    return None


def measure(testbed: Testbed, plan: FencePlan) -> Fences:
    """Measure all rates, in one run of the product."""
    tenant = testbed.tenant("fence")
    testbed.empty_redis()
    users = [withdrawing_user(number) for number in range(plan.withdrawals * len(RATES))]
    job = testbed.submit(tenant)
    _consent(testbed, tenant, users)
    found = []
    with _Withdrawals(tenant, users) as withdrawals:
        testbed.say(f"warming up for {plan.warm_up_s} s at {WARM_UP_RATE:,} events/s")
        with loaded(tenant, WARM_UP_RATE, plan.warm_up_s, seed=1):
            pass
        seconds = SETTLE_S + plan.withdrawals // PER_S + SPARE_S
        for rate in RATES:
            testbed.say(f"{rate:,} events/s: {plan.withdrawals} withdrawals")
            with loaded(tenant, rate, seconds, seed=rate) as late_s:
                time.sleep(SETTLE_S)
                begun = len(withdrawals.sent)
                withdrawals.run(plan.withdrawals)
            found.append(Fence(rate, *withdrawals.since(begun), late_s()))
        own_ms = withdrawals.own_ms()
    testbed.stack.rest.cancel(job)
    return Fences(found, own_ms)


def _consent(testbed: Testbed, tenant: BenchTenant, users: list[str]) -> None:
    """Let everybody consent, and let those who will withdraw interact, so that they have lists to be removed."""
    names, now_ms = tenant.settings.topic_names(), time.time_ns() // 1_000_000
    ids = [*(user_id(user) for user in range(USERS)), *users]
    testbed.say(f"producing {len(ids):,} consents")
    sending, progress = producer(testbed.servers), Progress(tenant)
    send_all(sending, names.consents, consent_records(ids, now_ms))
    progress.wait(consents=len(ids))
    views = ((user.encode(), probe_value(user, place, "first", place, now_ms)) for place, user in enumerate(users))
    send_all(sending, names.interactions, views)
    sending.close()
    progress.wait(sent=len(users), consents=len(ids))
    progress.close()


class _Withdrawals:
    """Sends withdrawals. Records when each is acknowledged, fenced and receipted, in ns of one clock, by pseudonym."""

    def __init__(self, tenant: BenchTenant, users: list[str]) -> None:
        settings = tenant.settings
        pseudonymiser = Pseudonymiser(load_key_ring(settings.privacy.key_ring))
        self._users = {pseudonymiser.user(user): user for user in users}
        self._left = iter(self._users)
        self._key_of = {name: user_keys(settings.redis.prefix, name)[1] for name in self._users}
        self._name_of = {key: name for name, key in self._key_of.items()}
        self._topic = settings.topic_names().consents
        servers = settings.kafka.bootstrap_servers
        self._sending = light_producer(servers, linger_ms=0, partitioner=PARTITIONER)
        self._receipts = light_consumer(servers, settings.kafka.topic(topics.RECEIPTS))
        self._keys = WatchedKeys(settings.redis.urls[0], bytes_max=len(_WITHDRAWN))
        self._redis_url = settings.redis.urls[0]
        self._random = random.Random(1)  # noqa: S311
        self._has_ended = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._note_acks, self._note_receipts)]
        self.sent: list[str] = []
        self._acknowledged: dict[str, int] = {}
        self._fenced: dict[str, int] = {}
        self._receipted: dict[str, int] = {}

    def __enter__(self) -> "_Withdrawals":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._has_ended.set()
        for thread in self._threads:
            thread.join()
        self._sending.flush()
        self._receipts.close()
        self._keys.close()

    def run(self, count: int) -> None:
        """Send `count` withdrawals at random moments and wait until each has all three times; raise if one is lost."""
        end_at, next_at, left = 0.0, time.monotonic(), count
        noted = (self._acknowledged, self._fenced, self._receipted)
        while left or any(len(moments) < len(self.sent) for moments in noted):
            now = time.monotonic()
            if left and now >= next_at:
                self._send()
                left -= 1
                next_at += self._random.expovariate(PER_S)
                end_at = now + LOST_AFTER_S
            elif not left and now > end_at:
                raise TimeoutError("a withdrawal was never acknowledged, seen in Redis or in the receipts")
            self._wait_for_change(max(0.0, next_at - now) if left else 0.05)

    def _send(self) -> None:
        name = next(self._left)
        self._keys.watch([self._key_of[name]])
        self.sent.append(name)
        key, value = withdrawal(self._users[name], time.time_ns() // 1_000_000)
        self._sending.produce(self._topic, value, key, on_delivery=lambda error, _: self._note_ack(name, error))

    def _note_ack(self, name: str, error: Any) -> None:
        if error is None:
            self._acknowledged[name] = time.monotonic_ns()

    def _wait_for_change(self, seconds: float) -> None:
        """Sleep until a consent key changes, at most `seconds`."""
        changed = self._keys.changed(seconds)
        now_ns = time.monotonic_ns()
        for key, value in zip(changed, self._keys.watch(changed), strict=True):
            if value == _WITHDRAWN:
                self._fenced.setdefault(self._name_of[key], now_ns)

    def _note_acks(self) -> None:
        while not self._has_ended.is_set():
            self._sending.poll(0.1)

    def _note_receipts(self) -> None:
        while not self._has_ended.is_set():
            record = self._receipts.poll(0.1)
            now_ns = time.monotonic_ns()
            if record is not None and not record.error() and (name := withdrawn_name(record.value())):
                self._receipted.setdefault(name, now_ns)

    def since(self, begun: int) -> tuple[list[float], list[float]]:
        """Milliseconds from the acknowledgement to (fence, receipt) of all that were sent after the first `begun`."""
        names = self.sent[begun:]
        return self._after_ack(self._fenced, names), self._after_ack(self._receipted, names)

    def _after_ack(self, moments: dict[str, int], names: list[str]) -> list[float]:
        return [(moments[name] - self._acknowledged[name]) / 1e6 for name in names]

    def own_ms(self) -> float:
        """How long a change written here takes to be seen here: the overhead of the method, including a round trip."""
        ways = []
        with redis.Redis.from_url(self._redis_url) as client:
            for _ in range(OWN_ROUNDS):
                self._keys.watch(["own"])
                begun = time.monotonic_ns()
                client.set("own", "1")
                while not self._keys.changed(1.0):
                    pass
                ways.append((time.monotonic_ns() - begun) / 1e6)
        return median(ways)


def figures(fences: Fences) -> dict[str, Any]:
    """The entries of bench.json."""
    return {
        "ack_to_fence_ms": {str(fence.rate): spread(fence.fence_ms) for fence in fences.rates},
        "ack_to_receipt_ms": {str(fence.rate): spread(fence.receipt_ms) for fence in fences.rates},
        "fence_method_ms": round(fences.own_ms, 2),
    }


def spread(values_ms: list[float]) -> dict[str, float]:
    """p50, p95, p99 and maximum, to a tenth of a millisecond."""
    return {**percentiles(values_ms), "max": round(max(values_ms), 1)}
