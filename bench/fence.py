"""From Kafka's acknowledgement of a withdrawal to the fence in Redis, and to the receipt, while interactions come in.

Withdrawals go through the topic alone; whoever uses `serving/consents.py` has the fence before the call returns. Each
is of a user of its own who has a list, at random moments, however late the ones before are. One clock is read three
times: in the producer's callback; when Redis says that the consent key has changed, which then reads as level none; and
when a consumer holds the receipt.
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
"""The load lasts so much longer than withdrawals take on average."""
LOST_AFTER_S: Final = 60.0
OWN_ROUNDS: Final = 200
PARTITIONER: Final = "murmur2_random"
"""Java's and kafka-python's, which wrote the grants: a user stays in a partition."""
_WITHDRAWN: Final = consent_value(Level.NONE, 0, 0, 0, 0).partition(b',"at"')[0]
_CONSENT_RECEIPT: Final = b'{"kind":"consent"'


class FencePlan(NamedTuple):
    """Withdrawals at each rate, and seconds of warm-up before the first."""

    withdrawals: int
    warm_up_s: int


class Fence(NamedTuple):
    """Of one rate: milliseconds from the acknowledgement to the fence and to the receipt, of each withdrawal.

    A fence may stand before the producer has heard the acknowledgement: that counts as it is, below 0.
    """

    rate: int
    fence_ms: list[float]
    receipt_ms: list[float]
    load_late_s: float


class Fences(NamedTuple):
    """All rates, and what watching Redis adds to each fence: the median way of a change to here, in ms."""

    rates: list[Fence]
    own_ms: float


def withdrawing_user(number: int) -> str:
    """The raw id of the user of a withdrawal."""
    return f"withdrawing-{number:05d}"


def withdrawal(user: str, ts: int) -> Record:
    """The record by which `user` withdraws at `ts` (ms)."""
    change = {"user_id": user, "level": "none", "ts": ts, "method": "settings"}
    return user.encode(), msgspec.json.encode(change)


def withdrawn_name(receipt: bytes) -> str | None:
    """Whose withdrawal a receipt says to be in force; None for every other receipt."""
    if not receipt.startswith(_CONSENT_RECEIPT):
        return None
    told = decode_receipt(receipt)
    if isinstance(told, ConsentReceipt) and (told.level, told.outcome) == ("none", "in_force"):
        return told.pseudonym
    return None


def measure(testbed: Testbed, plan: FencePlan) -> Fences:
    """All rates, in one run of the product."""
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
    """Everybody consents, and those who will withdraw do something, so that there is a list to take away."""
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
    """Sends withdrawals and notes when each is acknowledged, fenced and receipted, in ns of one clock, by pseudonym."""

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
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._hear_acks, self._hear_receipts)]
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
        """Send so many at random moments and wait until each has all three; raise if one is lost."""
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
            self._look(max(0.0, next_at - now) if left else 0.05)

    def _send(self) -> None:
        name = next(self._left)
        self._keys.watch([self._key_of[name]])
        self.sent.append(name)
        key, value = withdrawal(self._users[name], time.time_ns() // 1_000_000)
        self._sending.produce(self._topic, value, key, on_delivery=lambda error, _: self._hear_ack(name, error))

    def _hear_ack(self, name: str, error: Any) -> None:
        if error is None:
            self._acknowledged[name] = time.monotonic_ns()

    def _look(self, seconds: float) -> None:
        """Sleep until a consent key changes, at most so long."""
        changed = self._keys.changed(seconds)
        now_ns = time.monotonic_ns()
        for key, value in zip(changed, self._keys.watch(changed), strict=True):
            if value == _WITHDRAWN:
                self._fenced.setdefault(self._name_of[key], now_ns)

    def _hear_acks(self) -> None:
        while not self._has_ended.is_set():
            self._sending.poll(0.1)

    def _hear_receipts(self) -> None:
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
        """How long a change that was written here takes to be heard here: what the method adds, and a round trip."""
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
    """What goes into bench.json."""
    return {
        "ack_to_fence_ms": {str(fence.rate): spread(fence.fence_ms) for fence in fences.rates},
        "ack_to_receipt_ms": {str(fence.rate): spread(fence.receipt_ms) for fence in fences.rates},
        "fence_method_ms": round(fences.own_ms, 2),
    }


def spread(values_ms: list[float]) -> dict[str, float]:
    """p50, p95, p99 and the largest, to a tenth of a millisecond."""
    return {**percentiles(values_ms), "max": round(max(values_ms), 1)}
