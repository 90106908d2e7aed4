"""Measures how long lists are missing after Redis has lost everything (FLUSHALL), without new events.

From that moment, no personal list is served until the job has started a new generation, has read all decisions
acknowledged before, and has written consents and lists again.
"""

import random
import time
from typing import Any, Final, NamedTuple

from adapters.secrets.key_rings import load_key_ring
from bench.clients import producer, send_all
from bench.probes import probe_value
from bench.progress import Progress
from bench.testbed import BenchTenant, Testbed
from bench.workload import ITEMS, USERS, consent_records, user_id
from serving.reader import Reader

LOOK_EVERY_S: Final = 0.05
CHECKED: Final = 2_000
DEADLINE_S: Final = 300.0


class Rebuild(NamedTuple):
    """Seconds from FLUSHALL to the first list that a reader got, and to the last of `lists`."""

    lists: int
    first_s: float
    all_s: float


def measure(testbed: Testbed, users: int = USERS) -> Rebuild:
    """Measure one loss of everything, with one list for each of `users` users."""
    tenant = testbed.tenant("rebuild")
    testbed.empty_redis()
    job = testbed.submit(tenant)
    lists_for(testbed, tenant, users)
    reader = Reader(testbed.stack.redis.url, load_key_ring(tenant.settings.privacy.key_ring))
    try:
        found = _lose(testbed, reader, users)
    finally:
        reader.close()
    testbed.stack.rest.cancel(job)
    return found


def lists_for(testbed: Testbed, tenant: BenchTenant, users: int) -> None:
    """Let every user consent and send one event."""
    testbed.say(f"making {users:,} lists")
    names, now_ms = tenant.settings.topic_names(), time.time_ns() // 1_000_000
    ids = [user_id(user) for user in range(users)]
    sending, progress = producer(testbed.servers), Progress(tenant)
    send_all(sending, names.consents, consent_records(ids, now_ms))
    progress.wait(consents=users)
    clicks = ((who.encode(), probe_value(who, place % ITEMS, "first", place, now_ms)) for place, who in enumerate(ids))
    send_all(sending, names.interactions, clicks)
    sending.close()
    progress.wait(sent=users, consents=users)
    progress.close()


def _lose(testbed: Testbed, reader: Reader, users: int) -> Rebuild:
    everybody = range(users)
    some = random.Random(1).sample(everybody, CHECKED)  # noqa: S311
    waiting = [user for user in some if not _has_a_list(reader, user)]
    if waiting:
        raise AssertionError(f"{len(waiting)} of {CHECKED} users have no list before Redis loses any")
    keys = int(testbed.redis.dbsize())
    testbed.say(f"Redis holds {keys:,} keys; FLUSHALL")
    begun, first_s = time.monotonic(), 0.0
    testbed.redis.flushall()
    waiting = list(some)
    while waiting and time.monotonic() < begun + DEADLINE_S:
        waiting = [user for user in waiting if not _has_a_list(reader, user)]
        if len(waiting) < CHECKED and not first_s:
            first_s = time.monotonic() - begun
        time.sleep(LOOK_EVERY_S)
    all_s = time.monotonic() - begun
    missing = sum(not _has_a_list(reader, user) for user in everybody)
    if missing:
        raise AssertionError(f"{missing} of {users:,} lists did not come back within {all_s:.0f} s")
    return Rebuild(users, first_s, all_s)


def _has_a_list(reader: Reader, user: int) -> bool:
    return reader.recommend(user_id(user), 1).reason != "popular"


def figures(found: Rebuild) -> dict[str, Any]:
    """The entries of bench.json."""
    return {
        "rebuild_lists": found.lists,
        "rebuild_first_s": round(found.first_s, 2),
        "rebuild_all_s": round(found.all_s, 1),
    }


def body(found: Rebuild) -> str:
    """The section of RESULTS.md."""
    return (
        f"FLUSHALL with {found.lists:,} lists in Redis, and no event of any user behind it. The first list was back "
        f"after {found.first_s:.1f} s, the last of {CHECKED:,} drawn at random after {found.all_s:.1f} s."
    )
