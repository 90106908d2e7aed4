"""Replays the steps of a file: each is asked about, then taught, as its protocol says, for all methods side by side."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

import numpy as np

from evaluation.job_twin import JobRules, Took, UsersTwin, bit_of
from evaluation.measures import Measured, QuestionTable
from evaluation.steps import Step, kind_of
from udfs.profile import RECENT_ITEMS_MAX, ProfileBounds
from udfs.state import UserState

HAD_MAX: Final = ProfileBounds().had_items_max
HISTORIES: Final = ((1, "1"), (4, "2-4"), (9, "5-9"), (19, "10-19"))


@dataclass
class Past:
    """A user's history as item codes, for methods without the job's rules: the last 20 items, and how often they met
    each of the last 512."""

    recents: list[int] = field(default_factory=list)
    had: dict[int, int] = field(default_factory=dict)

    def note(self, item: int) -> None:
        """An event."""
        if item in self.had:
            self.had[item] = self.had.pop(item) + 1
            if item in self.recents:
                self.recents.remove(item)
        else:
            self.had[item] = 1
            if len(self.had) > HAD_MAX:
                del self.had[next(iter(self.had))]
        self.recents.append(item)
        if len(self.recents) > RECENT_ITEMS_MAX:
            del self.recents[0]


class Asked(NamedTuple):
    """A step that is asked about: what a method may know. `name` and `state` are what the job keeps of the user."""

    user: int
    at_ms: int
    past: Past
    name: str
    state: UserState | None


class Method(Protocol):
    """A way of making lists."""

    def rank(self, asked: Asked) -> list[int]:
        """The list at a moment, as item codes, best first."""
        ...

    def learn(self, asked: Asked, items: list[int], took: Took) -> None:
        """What followed: item codes, and what the job's rules make of it."""
        ...


class Replayed(NamedTuple):
    """Measures by method, and labels of the questions by what they are labelled with: the history, the kind, …"""

    measured: dict[str, Measured]
    labels: dict[str, list[str]]
    times_ms: list[int]


def replay(
    steps: list[Step],
    methods: dict[str, Method],
    item_ids: list[str],
    rules: JobRules,
    column: tuple[str, list[str]] | None = None,
    report: Callable[[int], None] = lambda done: None,
) -> Replayed:
    """Ask and teach all `methods`. If `rules` leave out what users had, only items new to them are asked for.

    `column`: the name and the values, by row of the file, of what questions are to be labelled with. `report` is called
    with the number of steps done.
    """
    users, pasts = UsersTwin(rules.profile), dict[int, Past]()
    tallies = {name: QuestionTable(len(item_ids)) for name in methods}
    questions, counts, events = _Questions(column), np.zeros(len(item_ids)), 0
    for done, step in enumerate(steps, start=1):
        past, name = pasts.setdefault(step.user, Past()), f"user-{step.user}"
        wanted = {item for item in step.items if not rules.lists.exclude_had or item not in past.had}
        asked = Asked(step.user, step.at_ms, past, name, users.state_of(name))
        if step.asked and wanted and past.recents:
            for method, tally in tallies.items():
                tally.add(step.user, methods[method].rank(asked), wanted, counts, events)
            questions.note(step, past, wanted)
        took = users.take(name, step.ts_ms, [item_ids[item] for item in step.items], step.kinds, bit_of(step.user))
        if step.taught:
            for each in methods.values():
                each.learn(asked, step.items, took)
            counts[step.items] += 1
            events += len(step.items)
        for item in step.items:
            past.note(item)
        report(done)
    return Replayed({name: tally.close() for name, tally in tallies.items()}, questions.labels, questions.times_ms)


class _Questions:
    """Labels questions, so that measures can be shown by segment."""

    def __init__(self, column: tuple[str, list[str]] | None) -> None:
        self._column = column
        self.labels: dict[str, list[str]] = {"items in history": [], "what followed": [], "kind": []}
        self.times_ms: list[int] = []
        if column is not None:
            self.labels[column[0]] = []

    def note(self, step: Step, past: Past, wanted: set[int]) -> None:
        had = [item in past.had for item in wanted]
        followed = "had before" if all(had) else "new to the user" if not any(had) else "new and had"
        size = len(past.recents)
        history = next((label for limit, label in HISTORIES if size <= limit), f"{RECENT_ITEMS_MAX} or more")
        for dimension, label in (("items in history", history), ("what followed", followed), ("kind", kind_of(step))):
            self.labels[dimension].append(label)
        if self._column is not None:
            self.labels[self._column[0]].append(self._column[1][step.rows[0]])
        self.times_ms.append(step.at_ms)
