"""Take-overs as a pure rule: which of two jobs writes what follows from a record, and what a clock causes.

Each record has one append time, which both jobs read from Kafka. So exactly one of them writes what follows from it,
whatever the brokers' clocks say and in whatever order the jobs read.
"""

from typing import Any, Final, NamedTuple

from schemas.handover import FOREVER, Handover
from udfs.elements import Element


class Term(NamedTuple):
    """A job writes what follows from records appended from `begin_ms` on and before `end_ms`.

    `undecided`: at the finite one of these it has to wait for the decision. `is_over`: another job has followed it,
    and it must end.
    """

    begin_ms: int = 0
    end_ms: int = FOREVER
    undecided: bool = False
    is_over: bool = False

    def writes(self, at_ms: int) -> bool:
        """Whether the job writes what follows from a record appended at `at_ms`."""
        return self.begin_ms <= at_ms < self.end_ms

    def writes_now(self, now_ms: int) -> bool:
        """Whether the job writes what the clock causes; until a take-over is decided, the former job does."""
        return self.begin_ms == 0 if self.undecided else self.writes(now_ms)

    @property
    def cut_ms(self) -> int:
        """Where the turn begins, or else where it ends."""
        return self.begin_ms or self.end_ms


ALWAYS: Final = Term()
NEVER: Final = Term(FOREVER, FOREVER)


def term_of(handover: Handover | None, epoch: int, is_silent: bool) -> Term:
    """The turn of the job of `epoch`, which was submitted to take over if it `is_silent`.

    >>> term_of(None, 5, False) == ALWAYS, term_of(None, 8, True) == NEVER
    (True, True)
    >>> term_of(Handover(5, 8, 90, "agreed"), 5, False), term_of(Handover(5, 8, 90, "agreed"), 8, True).begin_ms
    (Term(begin_ms=0, end_ms=90, undecided=False, is_over=False), 90)
    """
    if handover is None or handover.to < epoch:
        return NEVER if is_silent else ALWAYS
    undecided = handover.state == "announced"
    if handover.to == epoch:
        return NEVER if handover.state == "dropped" else Term(handover.at, FOREVER, undecided)
    if handover.since > epoch:  # a job that an earlier take-over ended
        return Term(FOREVER, FOREVER, is_over=True)
    if handover.since < epoch:  # neither of the two: a later submission, or one that never took over
        return NEVER if is_silent else ALWAYS
    if handover.state == "dropped":
        return ALWAYS
    return Term(0, handover.at, undecided, handover.state == "done")


def split(element: Element, cut_ms: int) -> tuple[Element | None, Element | None]:
    """The records of `element` appended before `cut_ms`, and the others; None for no records.

    Marks go with the later ones: a mark comes after everything that it vouches for.
    """
    if newest(element) < cut_ms:
        return element, None
    links = element.links
    before = Element(element.bucket, links=links).counted_like(element)
    after = Element(element.bucket, links=links)
    for event in element.events:
        (before if event.append_ts < cut_ms else after).events.append(event)
    for change in element.consents:
        (before if change.append_ts < cut_ms else after).consents.append(change)
    for reject in element.rejects:
        (before if reject.origin.append_ts < cut_ms else after).rejects.append(reject)
    controlled = before if element.control_at < cut_ms else after
    controlled.commands, controlled.accesses = element.commands, element.accesses
    controlled.access_requests, controlled.control_at = element.access_requests, element.control_at
    after.marks = element.marks
    if not _records_of(before):
        return None, after.counted_like(element)
    return before, (after if _records_of(after) else None)


def newest(element: Element) -> int:
    """When the newest record of `element` was appended, in ms."""
    times = [event.append_ts for event in element.events]
    times += [change.append_ts for change in element.consents]
    times += [reject.origin.append_ts for reject in element.rejects]
    return max(times, default=0) if not element.control_at else max([*times, element.control_at])


def _records_of(element: Element) -> list[Any]:
    controlled = [*element.commands, *element.accesses, *element.access_requests]
    return [*element.events, *element.consents, *element.rejects, *controlled, *element.marks]
