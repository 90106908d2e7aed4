"""Events per CPU-second of the job and of the plain consumer on the same events, in the same run.

Order of a repeat: consents are produced and the job applies them; warm-up events are produced and drained; the events
to be measured are produced inside an open Kafka transaction, which the job cannot see. CPU times are read, the
transaction is committed, the job drains it, and the measurement ends with a checkpoint that commits everything. Then
the job is cancelled, Redis is emptied, and the plain consumer drains the same topics, with the same warm-up not
counted.
"""

import json
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec

from adapters.secrets.key_rings import load_key_ring
from bench.clients import hide, producer, send_all
from bench.cpu import CpuMeter, Seconds, difference, thread_seconds
from bench.figures import median
from bench.progress import Progress
from bench.testbed import BenchTenant, Testbed, python
from bench.workload import (
    USERS,
    Record,
    Workload,
    consent_records,
    event_records,
    final_versions,
    make_workload,
    user_id,
)
from schemas.pseudonyms import Pseudonymiser
from schemas.store import user_keys

WARM_UP_SHARE: Final = 0.3
SAMPLED_USERS: Final = 2_000
PROVEN_S: Final = 120
SEED: Final = 20_260_101
TASK_MANAGER: Final = "taskmanager-1"


class Side(NamedTuple):
    """The results of one side in one repeat: events, wall seconds and CPU seconds after the warm-up.

    `cpu` is by process; `threads` by group of threads in the TaskManager, if there is one.
    """

    events: int
    wall_s: float
    cpu: Seconds
    threads: Seconds

    @property
    def cpu_us_per_event(self) -> float:
        """CPU microseconds of all processes of the side per event."""
        return sum(self.cpu.values()) / self.events * 1e6

    @property
    def events_per_cpu_second(self) -> float:
        """Events per CPU-second of all processes of the side."""
        return self.events / sum(self.cpu.values())


def measure(testbed: Testbed, name: str, events: int, online: bool = False) -> tuple[Side, Side]:
    """One repeat on topics of its own: (job, bare). Both sides must produce what the workload requires.

    With `online`, both learn their model from the events.
    """
    warm_up = int(events * WARM_UP_SHARE)
    tenant = testbed.tenant(name, online=online)
    begin_ms = time.time_ns() // 1_000_000 - 3_600_000
    workload = make_workload(events, begin_ms, SEED)
    testbed.empty_redis()
    job = drain(testbed, tenant, event_records(workload), warm_up, events, testbed.submit)
    in_redis = check_versions(testbed, tenant, workload, "job")
    testbed.empty_redis()
    bare = _bare(testbed, tenant, warm_up, events)
    of_bare = check_versions(testbed, tenant, workload, "plain consumer")
    # While a model is empty, users have no list, and the two sides do not learn at the same moments.
    if of_bare != in_redis and not online:
        raise AssertionError("the sides have written lists of different numbers of users")
    testbed.empty_redis()
    return job, bare


def drain(
    testbed: Testbed,
    tenant: BenchTenant,
    records: Iterator[Record],
    warm_up: int,
    events: int,
    submit: Callable[[BenchTenant], str],
) -> Side:
    """Run the job that `submit` starts on `records`, of which the first `warm_up` do not count, and cancel it."""
    names, servers, say = tenant.settings.topic_names(), testbed.servers, testbed.say
    ids = [user_id(user) for user in range(USERS)]
    say(f"producing {USERS:,} consents")
    sending = producer(servers)
    send_all(sending, names.consents, consent_records(ids, time.time_ns() // 1_000_000))
    say("submitting the job")
    job, progress = submit(tenant), Progress(tenant)
    try:
        progress.wait(consents=USERS)
        _wait_until_proven(testbed, tenant)
        say(f"job: {warm_up:,} events of warm-up")
        send_all(sending, names.interactions, islice(records, warm_up))
        sending.close()
        progress.wait(sent=warm_up)
        say(f"producing {events - warm_up:,} events in an open transaction")
        hidden = hide(servers, names.interactions, records)
        testbed.stack.rest.checkpoint(job)
        say("job: draining")
        pids = testbed.pids("taskmanager", "jobmanager", "kafka", "redis")
        meter, threads = CpuMeter(pids, [TASK_MANAGER]), thread_seconds(pids[TASK_MANAGER])
        begun, elements = time.monotonic(), progress.elements
        hidden.commit_transaction()
        progress.wait(sent=events)
        testbed.stack.rest.checkpoint(job)
        cpu, wall_s = meter.since_begin(), time.monotonic() - begun
        threads = difference(thread_seconds(pids[TASK_MANAGER]), threads)
        hidden.close()
        say(f"job: {(events - warm_up) / (progress.elements - elements):.1f} events an element")
    finally:
        progress.close()
    testbed.stack.rest.cancel(job)
    return Side(events - warm_up, wall_s, cpu, threads)


def _wait_until_proven(testbed: Testbed, tenant: BenchTenant) -> None:
    """Wait until the consents count in Redis: they are older than the job, which rewrites such consents gradually.

    Until then no list is written, and the two sides would not do the same work.
    """
    pseudonymiser = Pseudonymiser(load_key_ring(tenant.settings.privacy.key_ring))
    keys = [user_keys("", pseudonymiser.user(user_id(user)))[1] for user in range(0, USERS, USERS // SAMPLED_USERS)]
    end_s = time.monotonic() + PROVEN_S
    while not all(raw and b'"generation"' in raw for raw in testbed.redis.mget(keys)):
        if time.monotonic() > end_s:
            raise TimeoutError(f"after {PROVEN_S} s not all consents count in Redis")
        time.sleep(0.5)


def _bare(testbed: Testbed, tenant: BenchTenant, warm_up: int, events: int) -> Side:
    testbed.say("plain consumer: warm-up")
    options: dict[str, int] = {"--consents": USERS, "--events": events, "--pause-after": warm_up}
    words = [word for option, number in options.items() for word in (option, str(number))]
    with python("-m", "bench.bare", "--settings", str(tenant.path), *words) as process:
        _next_line(process)
        testbed.say("plain consumer: draining")
        pids = {"consumer": process.pid, **testbed.pids("kafka", "redis")}
        meter, begun = CpuMeter(pids), time.monotonic()
        _answer(process)
        _next_line(process)
        cpu, wall_s = meter.since_begin(), time.monotonic() - begun
        _answer(process)
        process.wait(30)
    return Side(events - warm_up, wall_s, cpu, {})


def _next_line(process: Any) -> Any:
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("the plain consumer ended early")
    return json.loads(line)


def _answer(process: Any) -> None:
    process.stdin.write("go on\n")
    process.stdin.flush()


class _Head(msgspec.Struct):
    v: int


def check_versions(testbed: Testbed, tenant: BenchTenant, workload: Workload, side: str) -> int:
    """Raise if a sampled user's list lacks the version that the workload requires; returns the number of lists."""
    pseudonymiser = Pseudonymiser(load_key_ring(tenant.settings.privacy.key_ring))
    sample = dict(islice(final_versions(workload).items(), SAMPLED_USERS))
    keys = [user_keys("", pseudonymiser.user(user_id(user)))[0] for user in sample]
    lists, learns = testbed.redis.mget(keys), tenant.settings.model.frozen_directory() is None
    for wanted, raw in zip(sample.values(), lists, strict=True):
        found = None if raw is None else msgspec.json.decode(raw, type=_Head).v
        if found != wanted and not (learns and found is None):
            raise AssertionError(f"{side}: a list of version {found} where {wanted} must stand")
    return sum(1 for _ in testbed.redis.scan_iter("*:list", count=10_000))


def figures(repeats: list[tuple[Side, Side]], part: str = "throughput") -> dict[str, Any]:
    """The entries of bench.json: medians over the repeats; the ratio is the median of the repeats' ratios."""
    jobs, bares = [job.events_per_cpu_second for job, _ in repeats], [bare.events_per_cpu_second for _, bare in repeats]
    ratios = [job / bare for job, bare in zip(jobs, bares, strict=True)]
    prefix = "" if part == "throughput" else f"{part}_"
    return {
        f"{part}_ratio": round(median(ratios), 3),
        f"{prefix}events_per_cpu_second": {"job": round(median(jobs)), "bare": round(median(bares))},
    }
