"""The metrics of the operator `personalise` that follow from its elements."""

from collections.abc import Collection

from pyflink.datastream import RuntimeContext

from schemas import metrics
from schemas.store import WriteOutcome
from udfs.elements import Element, record_count
from udfs.operators.meters import Meters
from udfs.operators.outputs import AppliedElement


class ElementMeters:
    """The metrics of elements; `interactions` is the topic of their events.

    `counters` has :data:`schemas.metrics.PERSONALISE_COUNTERS`.
    """

    def __init__(self, context: RuntimeContext, interactions: str) -> None:
        self._interactions = interactions
        self.meters = meters = Meters(context)
        self.counters = {metric: meters.counter(metric) for metric in metrics.PERSONALISE_COUNTERS}
        self.unread_consent, self.unread_records = meters.gauge(metrics.UNREAD), meters.gauge(metrics.LAG)
        self._events, self._rejects = meters.counters(metrics.EVENTS), meters.counters(metrics.REJECTS)
        self._lists = {one: meters.counter(metrics.LISTS, name) for one, name in metrics.LIST_OUTCOMES.items()}
        self._to_list, self.scoring = meters.histogram(metrics.EVENT_TO_LIST), meters.histogram(metrics.SCORING)
        self._records = meters.histogram(metrics.ELEMENT)

    def count(self, metric: metrics.Metric, number: int) -> None:
        """Count `number`, usually 0: a call into Flink costs more than looking."""
        if number:
            self.counters[metric].inc(number)

    def gathered(self, elements: Collection[Element]) -> None:
        """Note the size of gathered elements, which are ranked and written together."""
        self._records.observe(sum(map(record_count, elements)))

    def applied(self, applied: AppliedElement, written_s: float, duplicates: int) -> None:
        """Count what an element has caused, and how late its lists were; `duplicates` are those among its events."""
        changes, outcomes = applied.changes, applied.written.lists
        rejected = sum([reject.origin.topic == self._interactions for reject in changes.rejects])
        numbers = len(changes.accepted) + len(changes.kept), duplicates, sum(changes.denied.values()), rejected
        for outcome, number in zip(metrics.EVENT_OUTCOMES, numbers, strict=True):
            if number:
                self._events[outcome].inc(number)
        for reject in changes.rejects:
            self._rejects[reject.reason.value].inc()
        for answer in set(outcomes):
            self._lists[answer].inc(outcomes.count(answer))
        observe, moved = self._to_list.observe, changes.moved
        for write, answer in zip(applied.lists, outcomes, strict=True):
            if answer == WriteOutcome.WRITTEN:
                # The broker's clock may be ahead of this one.
                observe(max(0.0, written_s - moved[write.pseudonym] / 1000))
