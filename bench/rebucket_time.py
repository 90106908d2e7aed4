"""Measures what another number of buckets costs: how long `freshet rebucket` takes, and how much it writes.

Each user has consented and clicked once. From 4 buckets to 8 it reads `consents` as well, and back it does not.
"""

import tempfile
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.rebuild_time import lists_for
from bench.results import table
from bench.testbed import Testbed
from bench.workload import USERS
from jobs.locations import location_of
from jobs.rebucket import Rebucketed, rebucket
from privacy.user_routes import user_routes

MORE: Final = 8


class RebucketCost(NamedTuple):
    """Both directions, and the bytes of each savepoint that was written."""

    users: int
    steps: list[Rebucketed]
    written: list[int]


def measure(testbed: Testbed, users: int = USERS) -> RebucketCost:
    """Measure `users` users, each with a profile of one click."""
    tenant = testbed.tenant("rebucket")
    testbed.empty_redis()
    job = testbed.submit(tenant)
    lists_for(testbed, tenant, users)
    savepoint = testbed.stack.rest.stop_with_savepoint(job)
    before, steps, written = tenant.settings.job.buckets, list[Rebucketed](), list[int]()
    with tempfile.TemporaryDirectory() as folder:
        for number in (MORE, before):
            testbed.say(f"dividing {users:,} users among {number} buckets")
            target = Path(folder) / f"buckets-{number}"
            done = rebucket(
                tenant.settings, savepoint, location_of(target), number, lambda: user_routes(tenant.settings).of
            )
            steps.append(done)
            written.append(sum(path.stat().st_size for path in target.iterdir()))
            savepoint = done.savepoint
    return RebucketCost(users, steps, written)


def figures(found: RebucketCost) -> dict[str, Any]:
    """The entries of bench.json."""
    return {
        "rebucket_s_per_100_000": {f"{one.before}-{one.after}": _per_100_000(found, one) for one in found.steps},
    }


def _per_100_000(found: RebucketCost, one: Rebucketed) -> float:
    return round(one.seconds / found.users * 100_000, 1)


def body(found: RebucketCost) -> str:
    """The section of RESULTS.md."""
    rows = [
        [f"{one.before} → {one.after}", f"{one.seconds:.1f}", f"{_per_100_000(found, one):.1f}", f"{size / 1e6:,.0f}"]
        for one, size in zip(found.steps, found.written, strict=True)
    ]
    text = f"`freshet rebucket` on the savepoint of {found.users:,} users who have consented and clicked once."
    return "\n\n".join([text, table(["buckets", "s", "s for 100,000 users", "MB written"], rows)])
