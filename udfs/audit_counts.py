"""Counters of audit events for monitoring; they contain no name or label of a person.

A counter starts at 0 with each start of a worker, and counts replayed records again after a failure: look at rates.
Exact figures are in the trail itself (`freshet report`).
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from schemas.audit import (
    AuditEntry,
    ConsentEntry,
    DeniedEntry,
    ErasureEntry,
    ExpiryEntry,
    RefusedEntry,
    WithdrawalEntry,
)

COUNTER_OF: Final[dict[type, str]] = {
    ConsentEntry: "consents_granted",
    WithdrawalEntry: "consents_withdrawn",
    RefusedEntry: "consents_refused",
    ExpiryEntry: "consents_expired",
    ErasureEntry: "users_erased",
}
PRIVACY_COUNTERS: Final = (*COUNTER_OF.values(), "events_denied", "withdrawal_effect_ms_sum", "audit_records")
"""`withdrawal_effect_ms_sum` over `consents_withdrawn` is the mean time, in ms, from append to effect: two counters,
because a Python distribution exports 0 in process mode. `events_denied` follows when the trail's head is signed."""


def counts_of(entries: Sequence[AuditEntry], records: int, at_ms: int) -> Counter[str]:
    """How much each counter grows by `entries`, which were written as `records` records at `at_ms`.

    >>> counts_of([WithdrawalEntry("p1.ada", 1_000, 0, 7), DeniedEntry(3, "not_allowed", "p1.ada")], 2, 1_025)
    Counter({'withdrawal_effect_ms_sum': 25, 'events_denied': 3, 'audit_records': 2, 'consents_withdrawn': 1})
    """
    counts = Counter({"audit_records": records})
    for entry in entries:
        if name := COUNTER_OF.get(type(entry)):
            counts[name] += 1
        if isinstance(entry, WithdrawalEntry):
            # The broker's clock may be ahead of the worker's, and a counter must not decrease.
            counts["withdrawal_effect_ms_sum"] += max(0, at_ms - entry.consent_at)
        elif isinstance(entry, DeniedEntry):
            counts["events_denied"] += entry.events
    return counts
