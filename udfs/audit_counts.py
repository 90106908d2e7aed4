"""Counters of audit events for monitoring; they contain no name or label of a person.

A counter starts at 0 with each start of a worker, and counts replayed records again after a failure: look at rates.
Exact figures are in the trail itself (`freshet report`).
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from schemas import metrics
from schemas.audit import (
    AuditEntry,
    ConsentEntry,
    DeniedEntry,
    ErasureEntry,
    ExpiryEntry,
    RefusedEntry,
    WithdrawalEntry,
)

COUNTER_OF: Final[dict[type, metrics.Metric]] = {
    ConsentEntry: metrics.CONSENTS_GRANTED,
    WithdrawalEntry: metrics.CONSENTS_WITHDRAWN,
    RefusedEntry: metrics.CONSENTS_REFUSED,
    ExpiryEntry: metrics.CONSENTS_EXPIRED,
    ErasureEntry: metrics.USERS_ERASED,
}


def counts_of(entries: Sequence[AuditEntry], records: int) -> Counter[metrics.Metric]:
    """How much each counter grows by `entries`, which were written as `records` records.

    >>> counts = counts_of([WithdrawalEntry("p1.ada", 1_000, 0, 7), DeniedEntry(3, "not_allowed", "p1.ada")], 2)
    >>> {metric.name: count for metric, count in counts.items()}
    {'audit_records_total': 2, 'consents_withdrawn_total': 1, 'events_denied_total': 3}
    """
    counts = Counter({metrics.AUDIT_RECORDS: records})
    for entry in entries:
        if metric := COUNTER_OF.get(type(entry)):
            counts[metric] += 1
        if isinstance(entry, DeniedEntry):
            counts[metrics.EVENTS_DENIED] += entry.events
    return counts


def withdrawals_s(entries: Sequence[AuditEntry], at_ms: int) -> list[float]:
    """How long each withdrawal among `entries` took to be in effect at `at_ms`, in seconds.

    >>> withdrawals_s([WithdrawalEntry("p1.ada", 1_000, 0, 7)], 1_025)
    [0.025]
    """
    # The broker's clock may be ahead of the worker's.
    return [max(0, at_ms - entry.consent_at) / 1000 for entry in entries if isinstance(entry, WithdrawalEntry)]
