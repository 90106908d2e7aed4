"""The events of a file as steps, and which of them a protocol asks about and teaches.

A step is all that a user did at one moment, as a set of items, because the lines of a basket have no order; with
`in_order`, each line is a step of its own.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.interactions import Interactions
from schemas.errors import ModelError
from schemas.events import EVENT_TYPES, KIND_WEIGHTS
from udfs.profile import WEIGHT_OF_KIND

COUNTED_FROM: Final = 0.5
"""Prequential: learning from nothing does not count, so questions are those in the second half of the events."""
TEST_FROM: Final = 0.8
"""Global-time split: the share of the events that are taught."""
Ints = npt.NDArray[np.int64]


class Protocol(StrEnum):
    """Which steps are asked about, and which are taught.

    PREQUENTIAL: each step is first a question, then a lesson. GLOBAL_TIME: what is before a moment is taught, what is
    after it is asked; histories go on, models do not. LEAVE_ONE_OUT: the last step of each user is asked after all
    other steps were taught, also later ones of other users: its figures are too good for a stream.
    """

    PREQUENTIAL = "prequential"
    LEAVE_ONE_OUT = "leave-one-out"
    GLOBAL_TIME = "global-time"


class Step(NamedTuple):
    """What `user` did at `at_ms`: item codes, kinds and rows of the file, parallel.

    `at_ms` is when it is asked about: at the end of what was taught, if that is later than the step.
    """

    user: int
    ts_ms: int
    at_ms: int
    items: list[int]
    kinds: list[int]
    rows: list[int]
    asked: bool
    taught: bool


def steps_in_order(interactions: Interactions) -> list[Step]:
    """Each line as a step that is taught, and not asked about."""
    return list(_steps(interactions, True))


def moving(interactions: Interactions) -> Interactions:
    """The interactions that move lists: others are neither asked about nor taught, as in the job."""
    return interactions.where(np.array(WEIGHT_OF_KIND)[interactions.kinds] > 0)


def plan(interactions: Interactions, protocol: Protocol, in_order: bool = False) -> list[Step]:
    """The steps in the order in which they are to be replayed; raises :class:`ModelError` if none is to be asked."""
    steps = list(_steps(interactions, in_order))
    planned = _PLANS[protocol](steps) if steps else []
    if not any(step.asked for step in planned):
        kinds = ", ".join(KIND_WEIGHTS)
        raise ModelError(
            f"there is nothing to evaluate: no user of the {len(interactions):,} interactions of kinds that count "
            f"({kinds}) has a step after another one that the protocol {protocol.value} asks about"
        )
    return planned


def rows_before_questions(steps: list[Step]) -> list[int]:
    """The rows of the file that were taught before the first question: what a frozen model is trained on."""
    first = next(place for place, step in enumerate(steps) if step.asked)
    return [row for step in steps[:first] if step.taught for row in step.rows]


def _steps(interactions: Interactions, in_order: bool) -> Iterator[Step]:
    rows, ends = _in_order(interactions) if in_order else _in_sets(interactions)
    users, ts = interactions.users[rows].tolist(), interactions.ts_ms[rows].tolist()
    items, kinds, begin = interactions.items[rows].tolist(), interactions.kinds[rows].tolist(), 0
    numbers = rows.tolist()
    for end in ends.tolist():
        at = slice(begin, end)
        yield Step(users[begin], ts[begin], ts[begin], items[at], kinds[at], numbers[at], False, True)
        begin = end


def _in_order(interactions: Interactions) -> tuple[Ints, Ints]:
    rows = np.argsort(interactions.ts_ms, kind="stable")
    return rows, np.arange(1, len(rows) + 1)


def _in_sets(interactions: Interactions) -> tuple[Ints, Ints]:
    """(rows in the order of time; where each step ends). An item is in a step once, with its heaviest kind.

    Items of a step stay in the order of the file, in which the job would read them: it makes no difference to a
    question, and a difference to what is learned.
    """
    users, items, ts = interactions.users, interactions.items, interactions.ts_ms
    lightness = -np.array(WEIGHT_OF_KIND)[interactions.kinds]
    grouped = np.lexsort((np.arange(len(users)), lightness, items, users, ts))
    keys = np.stack([ts[grouped], users[grouped], items[grouped]])
    heaviest = grouped[np.r_[grouped[:1] >= 0, (np.diff(keys, axis=1) != 0).any(axis=0)]]
    rows = heaviest[np.lexsort((heaviest, users[heaviest], ts[heaviest]))]
    ends = np.flatnonzero(np.r_[(np.diff(users[rows]) != 0) | (np.diff(ts[rows]) != 0), rows[:1] >= 0])
    return rows, ends + 1


def _prequential(steps: list[Step]) -> list[Step]:
    half, seen, met = int(sum(len(step.items) for step in steps) * COUNTED_FROM), 0, set()
    planned = []
    for step in steps:
        planned.append(step._replace(asked=seen >= half and step.user in met))
        seen += len(step.items)
        met.add(step.user)
    return planned


def _global_time(steps: list[Step]) -> list[Step]:
    """Histories go on after the cut, as a job with a frozen model keeps them."""
    cut, met = float(np.quantile([step.ts_ms for step in steps for _ in step.items], TEST_FROM)), set()
    planned = []
    for step in steps:
        planned.append(step._replace(asked=step.ts_ms >= cut and step.user in met, taught=step.ts_ms < cut))
        met.add(step.user)
    return planned


def _leave_one_out(steps: list[Step]) -> list[Step]:
    last = {step.user: place for place, step in enumerate(steps)}
    first = {step.user: place for place, step in reversed(list(enumerate(steps)))}
    left_out = {place for user, place in last.items() if first[user] < place}
    taught = [step for place, step in enumerate(steps) if place not in left_out]
    end_ms = max((step.ts_ms for step in taught), default=0)
    asked = [steps[place] for place in sorted(left_out)]
    return taught + [step._replace(at_ms=max(step.ts_ms, end_ms), asked=True, taught=False) for step in asked]


_PLANS: Final = {
    Protocol.PREQUENTIAL: _prequential,
    Protocol.LEAVE_ONE_OUT: _leave_one_out,
    Protocol.GLOBAL_TIME: _global_time,
}


def kind_of(step: Step) -> str:
    """The heaviest kind of a step, by name."""
    return EVENT_TYPES[max(step.kinds, key=lambda kind: (WEIGHT_OF_KIND[kind], kind))]
