"""How good the lists are that readers get, over lists made fresh at the moment of each question.

A list is made after an event, and by a schedule while its user is idle (:mod:`udfs.due`). Between two makings it ages;
when it has ended, its user gets what is popular. Idle profiles are deleted, and begin anew: a fresh list is made from
all that a user did. What steps teach is published one to two seconds later, for both.
"""

import copy
import heapq
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from evaluation.job_twin import JobRules, LearnerTwin, ListsTwin, UsersTwin, bit_of
from evaluation.measures import measure
from evaluation.steps import Step
from schemas.lists import decode_list
from udfs.due import Due, list_life_ms, next_due_ms, when_due
from udfs.state import UserState


class ServedQuality(NamedTuple):
    """nDCG@10 of questions, parallel float64[questions], of `users` int64[questions]; how many of them got a `popular`
    list; and how many lists were `written` since the first question, without which no list would be served."""

    users: npt.NDArray[np.int64]
    fresh: npt.NDArray[np.float64]
    served: npt.NDArray[np.float64]
    popular: int
    written: int

    def ratio(self) -> float:
        """Served over fresh."""
        return float(self.served.mean() / max(self.fresh.mean(), 1e-9))


class Making(NamedTuple):
    """When a list is made, and when it ends."""

    at_ms: int
    ends_ms: int


class ServedShop:
    """The users of a shop whose model learns, and their lists in Redis."""

    def __init__(self, item_ids: Sequence[str], rules: JobRules) -> None:
        self._ids, self._rules = item_ids, rules
        self._users, self._all = UsersTwin(rules.profile), UsersTwin(rules.profile)
        self._learner = LearnerTwin(rules)
        self._lists = ListsTwin(rules, self._learner.model)
        self._due: list[tuple[int, int, int]] = []
        self._stored: dict[int, tuple[int, list[str]]] = {}

    def pass_time(self, until_ms: int) -> None:
        """Make the lists that are due."""
        while self._due and self._due[0][0] <= until_ms:
            at_ms, user, ends_ms = heapq.heappop(self._due)
            self._stored[user] = ends_ms, self._made(self._users, user, at_ms)
        self._learner.follow(until_ms)

    def lists(self, user: int, now_ms: int) -> tuple[list[str], list[str], bool]:
        """What a reader gets, what a fresh list would be, and whether the former is only popular."""
        ends_ms, stored = self._stored.get(user, (0, []))
        is_popular = ends_ms <= now_ms or not stored
        served = list(self._lists.popular(now_ms).ids) if is_popular else stored
        return served, self._made(self._all, user, now_ms), is_popular

    def take(self, step: Step) -> None:
        """A step of a user."""
        items, bit = [self._ids[item] for item in step.items], bit_of(step.user)
        self._all.take(_name(step.user), step.ts_ms, items, step.kinds, bit)
        took = self._users.take(_name(step.user), step.ts_ms, items, step.kinds, bit)
        self._learner.learn(took, step.ts_ms)
        self._lists.note(took.accepted)

    def schedule(self, user: int, now_ms: int, until_ms: int) -> int:
        """Schedule what is left of the user's list at `until_ms`; returns how many lists are made until then."""
        state = self._users.state_of(_name(user))
        makings = list(self._makings(state, now_ms, until_ms))
        self._stored.pop(user, None)
        if state is not None and self._is_forgotten(copy.deepcopy(state), until_ms):
            self._users.forget(_name(user))
        elif makings and makings[-1].ends_ms > until_ms:
            heapq.heappush(self._due, (makings[-1].at_ms, user, makings[-1].ends_ms))
        return len(makings)

    def _makings(self, state: UserState | None, now_ms: int, until_ms: int) -> Iterator[Making]:
        """When lists of an idle user are made, by the rules of the job."""
        refresh, at_ms = self._rules.refresh, now_ms
        while state is not None:
            yield Making(at_ms, at_ms + list_life_ms(state, at_ms, refresh))
            due = next_due_ms(state, at_ms, self._rules.profile, refresh)
            if due is None or due >= until_ms:
                return
            if when_due(copy.deepcopy(state), due, self._rules.profile, refresh) != Due.REFRESH:
                return
            at_ms = due

    def _is_forgotten(self, state: UserState, now_ms: int) -> bool:
        return when_due(state, now_ms, self._rules.profile, self._rules.refresh) == Due.FORGET

    def _made(self, users: UsersTwin, user: int, now_ms: int) -> list[str]:
        self._learner.follow(now_ms)
        state = users.state_of(_name(user))
        writes = [] if state is None else self._lists.lists({_name(user): state}, now_ms)
        return [item.id for write in writes for item in decode_list(write.payload).items]


def served_over_fresh(
    steps: list[Step], item_ids: Sequence[str], rules: JobRules, report: Callable[[int], None] = lambda done: None
) -> ServedQuality:
    """Replay `steps` in the order of time; only those that are asked are compared."""
    shop, had = ServedShop(item_ids, rules), dict[int, set[int]]()
    nexts, begun, popular, written = _next_times(steps), False, 0, 0
    rows: list[tuple[int, float, float]] = []
    for place, step in enumerate(steps):
        known = had.setdefault(step.user, set())
        wanted = {item_ids[item] for item in step.items if not rules.lists.exclude_had or item not in known}
        shop.pass_time(step.ts_ms)
        if step.asked and wanted:
            begun = True
            served, fresh, is_popular = shop.lists(step.user, step.ts_ms)
            rows.append((step.user, _ndcg(fresh, wanted), _ndcg(served, wanted)))
            popular += is_popular
        shop.take(step)
        known.update(step.items)
        made = shop.schedule(step.user, step.ts_ms, nexts[place])
        written += made * begun
        report(place + 1)
    users, fresh_ndcg, served_ndcg = np.array(rows, np.float64).reshape(-1, 3).T
    return ServedQuality(users.astype(np.int64), fresh_ndcg, served_ndcg, popular, written)


def _next_times(steps: list[Step]) -> list[int]:
    """When the user of each step comes back; the end of the file for their last one."""
    end_ms, nexts, times = max(step.ts_ms for step in steps), dict[int, int](), list[int]()
    for step in reversed(steps):
        times.append(nexts.get(step.user, end_ms))
        nexts[step.user] = step.ts_ms
    return times[::-1]


def _ndcg(ranked: list[str], wanted: set[str]) -> float:
    codes = {item: code for code, item in enumerate({*ranked, *wanted})}
    return measure([codes[item] for item in ranked], {codes[item] for item in wanted})[0]


def _name(user: int) -> str:
    return f"user-{user}"
