"""Aggregates receipts into rates, latencies, accounts and consent levels, and metrics into click rates. Pure."""

from collections import Counter, deque
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from schemas.receipts import ConsentReceipt, ElementReceipt, Receipt
from schemas.rejects import DeadLetter

WINDOW_MS: Final = 10_000
RATE_WINDOW_MS: Final = 5_000
LATENCIES_MAX: Final = 20_000
TREND_STEPS: Final = 60
STEP_MS: Final = 1_000
CONSENTS_TRACKED_MAX: Final = 200_000
SHOWN_WINDOW: Final = "5m"
"""The window of the topic `metrics` that is shown."""


class JobTotals(NamedTuple):
    """The totals of the whole job: the sum over its buckets."""

    sent: int = 0
    accepted: int = 0
    duplicates: int = 0
    denied: int = 0
    rejected: Mapping[str, int] = {}

    @property
    def rejects(self) -> int:
        """All rejected interactions."""
        return sum(self.rejected.values())

    @property
    def adds_up(self) -> bool:
        """Whether accepted, duplicates, denied and rejected add up to what was sent, which must always hold."""
        return self.accepted + self.duplicates + self.denied + self.rejects == self.sent


class ListLatency(NamedTuple):
    """Latency from Kafka's append of an event to its list in Redis, in ms, over the last seconds; None without data."""

    p50: float | None = None
    p99: float | None = None


class Feedback(NamedTuple):
    """What was seen and clicked in the lists of a model, over the last 5 minutes."""

    impressions: int = 0
    clicks: int = 0

    @property
    def ctr(self) -> float:
        """The click-through rate."""
        return self.clicks / max(1, self.impressions)


class MetricRecord(msgspec.Struct, frozen=True):
    """A record of the topic `metrics`, as far as the demo shows it."""

    kind: str
    at: int = 0
    window: str = ""
    model: str = ""
    arm: str = ""
    surface: str = ""
    impressions: int = 0
    clicks: int = 0


class OwnList(NamedTuple):
    """The last list written for the followed shopper: its version and latency."""

    version: int
    latency_ms: int
    event_at: int


class Watch:
    """The state of the product according to its receipts, read in order within each partition.

    Receipts arrive at least once. Repeated ones do no harm to totals and consent levels, but a repeated list write
    counts twice in the rate of lists.
    """

    def __init__(self, followed: str) -> None:
        self._followed = followed
        self._accounts: dict[int, ElementReceipt] = {}
        self._levels: dict[str, str] = {}
        self._latencies: deque[tuple[int, int]] = deque(maxlen=LATENCIES_MAX)
        self._events, self._lists = RateMeter(), RateMeter()
        self._feedback: dict[tuple[str, str, str], MetricRecord] = {}
        self.own: OwnList | None = None
        self.own_level: str | None = None
        self.lists_written = 0
        self.last_reject: DeadLetter | None = None
        self.levels: Counter[str] = Counter()

    def note(self, receipt: Receipt, now_ms: int) -> None:
        """Process one receipt."""
        if isinstance(receipt, ElementReceipt):
            self._note_element(receipt, now_ms)
        elif isinstance(receipt, ConsentReceipt):
            self._note_consent(receipt)

    def open(self) -> None:
        """Begin rates and latencies anew: what came before was sent in one go."""
        self._latencies.clear()
        self._events, self._lists = RateMeter(), RateMeter()

    def note_metric(self, record: MetricRecord) -> None:
        """Process one record of `metrics`; surfaces are few."""
        if (record.kind, record.window) == ("feedback", SHOWN_WINDOW):
            self._feedback[record.model, record.arm, record.surface] = record

    def feedback(self) -> dict[str, Feedback]:
        """By model, the one with most impressions first, according to the newest records."""
        newest = max((record.at for record in self._feedback.values()), default=0)
        found: dict[str, Feedback] = {}
        for record in self._feedback.values():
            if record.at == newest:
                seen, clicked = found.get(record.model, Feedback())
                found[record.model] = Feedback(seen + record.impressions, clicked + record.clicks)
        return dict(sorted(found.items(), key=lambda one: -one[1].impressions))

    def note_reject(self, letter: DeadLetter) -> None:
        """Process one dead letter."""
        self.last_reject = letter

    def _note_element(self, receipt: ElementReceipt, now_ms: int) -> None:
        known = self._accounts.get(receipt.bucket)
        before = known.account.sent if known else 0
        if known is None or (receipt.epoch, receipt.account.sent) >= (known.epoch, before):
            self._accounts[receipt.bucket] = receipt
        self._events.add(max(0, receipt.account.sent - before), now_ms)
        written = [write for write in receipt.lists if write.outcome == "written"]
        self._lists.add(len(written), now_ms)
        self.lists_written += len(written)
        for write in written:
            self._latencies.append((now_ms, receipt.at - write.event_at))
            if write.pseudonym == self._followed:
                self.own = OwnList(write.version, receipt.at - write.event_at, write.event_at)

    def _note_consent(self, receipt: ConsentReceipt) -> None:
        known = self._levels.get(receipt.pseudonym)
        if known is None and len(self._levels) >= CONSENTS_TRACKED_MAX:
            return
        if known is not None:
            self.levels[known] -= 1
        self.levels[receipt.level] += 1
        self._levels[receipt.pseudonym] = receipt.level
        if receipt.pseudonym == self._followed:
            self.own_level = receipt.level

    def totals(self) -> JobTotals:
        """The sum of the buckets' accounts."""
        accounts = [receipt.account for receipt in self._accounts.values()]
        rejected: Counter[str] = Counter()
        for account in accounts:
            rejected.update(account.rejected)
        return JobTotals(
            sum(account.sent for account in accounts),
            sum(account.accepted for account in accounts),
            sum(account.duplicates for account in accounts),
            sum(account.denied for account in accounts),
            rejected,
        )

    def latency(self, now_ms: int) -> ListLatency:
        """p50 and p99 over the last :data:`WINDOW_MS`."""
        while self._latencies and self._latencies[0][0] < now_ms - WINDOW_MS:
            self._latencies.popleft()
        values = sorted(latency for _, latency in self._latencies)
        if not values:
            return ListLatency()
        return ListLatency(quantile(values, 0.5), quantile(values, 0.99))

    def events_per_s(self, now_ms: int) -> float:
        """Interactions that the job counted, per second."""
        return self._events.per_s(now_ms)

    def lists_per_s(self, now_ms: int) -> float:
        """Lists written, per second."""
        return self._lists.per_s(now_ms)

    def trend(self, now_ms: int) -> list[int]:
        """Interactions in each of the last seconds, oldest first."""
        return self._events.steps(now_ms)


class RateMeter:
    """Counts per second for the last minute."""

    def __init__(self) -> None:
        self._steps: dict[int, int] = {}
        self._began: int | None = None

    def add(self, count: int, now_ms: int) -> None:
        """Add a count."""
        step = now_ms // STEP_MS
        self._began = step if self._began is None else self._began
        self._steps[step] = self._steps.get(step, 0) + count
        while len(self._steps) > TREND_STEPS + 1:
            del self._steps[min(self._steps)]

    def per_s(self, now_ms: int) -> float:
        """The rate over the last complete seconds."""
        step, window = now_ms // STEP_MS, RATE_WINDOW_MS // STEP_MS
        if self._began is None or self._began == step:
            return 0.0
        window = min(window, step - self._began)
        return sum(self._steps.get(step - back, 0) for back in range(1, window + 1)) * 1000 / (window * STEP_MS)

    def steps(self, now_ms: int) -> list[int]:
        """The counts of the last complete seconds since the first one, at most :data:`TREND_STEPS`, oldest first."""
        step = now_ms // STEP_MS
        if self._began is None:
            return []
        return [self._steps.get(each, 0) for each in range(max(self._began, step - TREND_STEPS), step)]


def quantile(ordered: list[int], share: float) -> float:
    """The nearest-rank quantile of sorted values.

    >>> quantile([1, 2, 3, 4], 0.5), quantile([1, 2, 3, 4], 0.99)
    (2, 4)
    """
    return ordered[max(0, -(-len(ordered) * int(share * 1000) // 1000) - 1)]
