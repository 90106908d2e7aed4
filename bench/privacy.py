"""Measures the cost of consent check and fence: the job with and without them (:mod:`bench.ablation`), in turns.

A pair is one run of each on the same events, as in :mod:`bench.throughput`. Pairs alternate in which side runs first,
so that slow changes of the machine affect both; use an even number of pairs.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from adapters.secrets.key_rings import load_key_ring
from bench.figures import median
from bench.testbed import BenchTenant, Testbed
from bench.throughput import SEED, WARM_UP_SHARE, Side, check_versions, drain
from bench.workload import Workload, event_records, make_workload, user_id
from schemas.pseudonyms import Pseudonymiser
from schemas.store import user_keys

PRODUCT: Final = "product"
ABLATION: Final = "ablation"


class Pair(NamedTuple):
    """The two sides of a pair."""

    product: Side
    ablation: Side

    @property
    def ratio(self) -> float:
        """CPU time per event with consent checks, divided by that without."""
        return self.product.cpu_us_per_event / self.ablation.cpu_us_per_event


def order(pairs: int) -> list[tuple[str, str]]:
    """The order of the two sides in each pair.

    >>> order(2)
    [('product', 'ablation'), ('ablation', 'product')]
    """
    return [(PRODUCT, ABLATION) if number % 2 == 0 else (ABLATION, PRODUCT) for number in range(pairs)]


def measure(testbed: Testbed, events: int, pairs: int, begin_ms: int) -> list[Pair]:
    """Run all pairs. Lists on both sides must have the versions that the workload requires, so both did the work."""
    workload = make_workload(events, begin_ms, SEED)
    measured = []
    for number, sides in enumerate(order(pairs), start=1):
        found = {side: _run(testbed, f"privacy-{number}-{side}", side, workload) for side in sides}
        measured.append(Pair(found[PRODUCT], found[ABLATION]))
        testbed.say(one_pair(measured[-1]))
    return measured


def _run(testbed: Testbed, name: str, side: str, workload: Workload) -> Side:
    events = len(workload.ts)
    tenant = testbed.tenant(name)
    testbed.empty_redis()
    submit = testbed.submit if side == PRODUCT else testbed.submit_ablation
    measured = drain(testbed, tenant, event_records(workload), int(events * WARM_UP_SHARE), events, submit)
    check_versions(testbed, tenant, workload, name)
    _check_fences(testbed, workload, tenant, side)
    testbed.empty_redis()
    return measured


def _check_fences(testbed: Testbed, workload: Workload, tenant: BenchTenant, side: str) -> None:
    """Raise if the wrong job ran: only the product puts consents into Redis."""
    pseudonymiser = Pseudonymiser(load_key_ring(tenant.settings.privacy.key_ring))
    _, consent, _ = user_keys(tenant.settings.redis.prefix, pseudonymiser.user(user_id(int(workload.user[0]))))
    if bool(testbed.redis.exists(consent)) != (side == PRODUCT):
        raise AssertionError(f"{side}: the job of the other side has run")


def one_pair(pair: Pair) -> str:
    """A pair as one line."""
    return (
        f"with consent {pair.product.cpu_us_per_event:.1f}, without {pair.ablation.cpu_us_per_event:.1f} µs of CPU "
        f"an event, ratio {pair.ratio:.3f}"
    )


def figures(pairs: Sequence[Pair]) -> dict[str, Any]:
    """The entries of bench.json: the median of the pairs' ratios, and all ratios."""
    ratios = [pair.ratio for pair in pairs]
    return {
        "privacy_cpu_ratio": round(median(ratios), 3),
        "privacy_cpu_ratios": [round(ratio, 3) for ratio in ratios],
    }
