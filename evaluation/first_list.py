"""When an empty shop gives its first personal list.

A session resembles another if it has a pair of items that a session of another user had, too. The list is in time if it
is written by the end of the first such session. It can be only if a user who has one of the items that two users met
lacks another: lists leave out what their users had, and nothing is published that only one user met.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from evaluation.job_twin import JobRules, LearnerTwin, ListsTwin, UsersTwin, bit_of
from evaluation.steps import Step
from schemas.lists import decode_list


class FirstList(NamedTuple):
    """`events` and `session` up to the first personal list, 0 without one: sessions are numbered from 1 in the order in
    which they begin. `resembling` is the number of the first session that resembles another, `in_time` whether the list
    was written by its end, `possible` whether there was anything that a personal list could have had by then, for any
    user, and `event` the list's place among the events of its session."""

    events: int
    session: int
    event: int
    resembling: int
    in_time: bool
    possible: bool


class Sessions:
    """Numbers sessions, and finds the first that resembles another."""

    def __init__(self, gap_ms: int) -> None:
        self._gap_ms = gap_ms
        self._open: dict[int, tuple[int, int]] = {}
        self._items: dict[int, list[int]] = defaultdict(list)
        self._had: dict[int, set[int]] = defaultdict(set)
        self._pairs: dict[tuple[int, int], int] = {}
        self._met_by: dict[int, set[int]] = defaultdict(set)
        self.resembling, self.last_ms, self.possible_ms = 0, 0, 0

    def note(self, step: Step) -> int:
        """The number of the step's session."""
        number, newest_ms = self._open.get(step.user, (0, -self._gap_ms))
        if not number or step.ts_ms - newest_ms > self._gap_ms:
            number = len(self._items) + 1
        self._open[step.user] = number, step.ts_ms
        for item in step.items:
            self._had[step.user].add(item)
            self._met_by[item].add(step.user)
            self._note_pairs(step.user, number, item)
        known, had = {item for item, users in self._met_by.items() if len(users) > 1}, self._had[step.user]
        if not self.possible_ms and known & had and known - had:
            self.possible_ms = step.ts_ms
        if number == self.resembling:
            self.last_ms = step.ts_ms
        return number

    def place(self, number: int) -> int:
        """How many events the session has so far."""
        return len(self._items[number])

    def _note_pairs(self, user: int, number: int, item: int) -> None:
        for other in self._items[number]:
            pair = min(item, other), max(item, other)
            if self._pairs.setdefault(pair, user) != user and not self.resembling and item != other:
                self.resembling = number
        self._items[number].append(item)


def first_list(steps: Sequence[Step], item_ids: Sequence[str], rules: JobRules) -> FirstList:
    """Replay `steps` in an empty shop until both have been seen, and the session that resembles another has ended."""
    users, learner, sessions = UsersTwin(rules.profile), LearnerTwin(rules), Sessions(rules.profile.session_gap_ms)
    lists = ListsTwin(rules, learner.model)
    events, found, found_ms = 0, (0, 0, 0), 0
    for step in steps:
        if found[0] and sessions.resembling and step.ts_ms > sessions.last_ms + rules.profile.session_gap_ms:
            break
        number = sessions.note(step)
        learner.follow(step.ts_ms)
        items = [item_ids[item] for item in step.items]
        took = users.take(f"user-{step.user}", step.ts_ms, items, step.kinds, bit_of(step.user))
        learner.learn(took, step.ts_ms)
        lists.note(took.accepted)
        events += len(items)
        if not found[0]:
            written = lists.lists(took.moved, step.ts_ms)
            if any(decode_list(write.payload).reason == "personalised" for write in written):
                found, found_ms = (events, number, sessions.place(number)), step.ts_ms
    in_time = bool(found[0]) and bool(sessions.resembling) and found_ms <= sessions.last_ms
    return FirstList(*found, sessions.resembling, in_time, 0 < sessions.possible_ms <= sessions.last_ms)
