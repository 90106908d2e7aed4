"""Formats the privacy part as text and tables. Pure."""

from collections.abc import Sequence

from bench.fence import FencePlan, Fences, spread
from bench.figures import median
from bench.privacy import Pair
from bench.results import table
from bench.throughput import WARM_UP_SHARE, Side
from bench.workload import USERS


def body(pairs: Sequence[Pair], events: int, fences: Fences, plan: FencePlan) -> str:
    """The privacy part."""
    return "\n\n".join([*_cost(pairs, events), *_fences(fences, plan)])


def _cost(pairs: Sequence[Pair], events: int) -> list[str]:
    """Each pair, and the CPU time of both sides by process."""
    warm_up = int(events * WARM_UP_SHARE)
    ratios = [pair.ratio for pair in pairs]
    text = (
        f"The job beside itself without the consent check and the fence (`bench/ablation.py`), on the same "
        f"{events:,} events of {USERS:,} users, who all consent. Either side is first by turns; the first "
        f"{warm_up:,} events of each run do not count. CPU time of all processes of a side."
    )
    rows = [
        [
            f"pair {number}",
            f"{pair.product.cpu_us_per_event:.1f}",
            f"{pair.ablation.cpu_us_per_event:.1f}",
            f"{pair.ratio:.3f}",
        ]
        for number, pair in enumerate(pairs, start=1)
    ]
    said = f"Ratio: {median(ratios):.3f} (median of {len(pairs)}, {min(ratios):.3f}–{max(ratios):.3f})."
    parts = [[part, *_both(pairs, part)] for part in pairs[0].product.cpu]
    head = ["µs of CPU per event", "with consent", "without"]
    return [text, table([*head, "ratio"], rows), said, table(head, parts)]


def _both(pairs: Sequence[Pair], part: str) -> list[str]:
    """Median microseconds per event of a process on both sides."""
    return [
        _per_event([pair.product for pair in pairs], part),
        _per_event([pair.ablation for pair in pairs], part),
    ]


def _per_event(sides: list[Side], part: str) -> str:
    return f"{median([side.cpu[part] / side.events * 1e6 for side in sides]):.1f}"


def _fences(fences: Fences, plan: FencePlan) -> list[str]:
    """The times from the acknowledgement of a withdrawal."""
    text = (
        f"Milliseconds from Kafka's acknowledgement of a withdrawal, sent to the topic alone, to level none in Redis "
        f"and to its receipt: {plan.withdrawals} withdrawals at each rate of interactions, of a user with a list each. "
        f"Watching Redis adds {fences.own_ms:.2f} ms (a change written and heard here, p50); "
        f"with `serving/consents.py` the fence stands before the call returns."
    )
    rows = []
    for fence in fences.rates:
        for name, values_ms in (("fence", fence.fence_ms), ("receipt", fence.receipt_ms)):
            shown = [f"{value:.1f}" for value in spread(values_ms).values()]
            rows.append([f"{fence.rate:,} events/s: acknowledged → {name}", *shown])
    late_ms = max(fence.load_late_s for fence in fences.rates) * 1000
    late = f"The load was never more than {late_ms:.0f} ms behind its plan."
    return [text, table(["", "p50", "p95", "p99", "max"], rows), late]
