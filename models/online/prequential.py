"""Prequential evaluation: every step of every user is first a question, then a lesson.

A step is all that a user did at one moment, as a set of items. The list is made from what was published before it, and
is compared with the step's items; then the step is learned, and published as the job does: once `publish_every_ms` of
event time have passed. Only questions in the second half of the events are counted, so that learning from nothing does
not count. No sampling: lists come from all items (Krichene & Rendle, "On Sampled Metrics", KDD 2020).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.interactions import Interactions
from models.online.blend import Blend, Histories, empty_histories
from models.online.dimensions import HISTORY, LAGS, OWN_ITEMS
from models.online.learner import Learner
from models.online.lessons import Lesson, sum_lessons
from models.online.score_weights import Gradients
from models.online.tables import Tables
from models.online.updates import decode_update, encode_update

LISTED: Final = 20
HAD_MAX: Final = 512
_GAINS: Final = 1 / np.log2(np.arange(2, 12))
_IDEAL: Final = np.cumsum(_GAINS)


class Steps(NamedTuple):
    """Events in the order of time, a step's items once: `users`, `items` int64[n], `ts_ms` int64[n], `ends` int64[s]:
    where each step ends."""

    users: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]
    ts_ms: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    item_ids: list[str]


def steps_of(interactions: Interactions, in_order: bool = False) -> Steps:
    """The steps; `in_order`: every line is a step of its own, in the order of the file among equal times."""
    order = np.lexsort((np.arange(len(interactions)), interactions.users, interactions.ts_ms))
    users, items, ts = interactions.users[order], interactions.items[order], interactions.ts_ms[order]
    if in_order:
        order = np.argsort(interactions.ts_ms, kind="stable")
        users, items, ts = interactions.users[order], interactions.items[order], interactions.ts_ms[order]
        return Steps(users, items, ts, np.arange(1, len(users) + 1), interactions.item_ids)
    _, first = np.unique(np.stack([ts, users, items]), axis=1, return_index=True)
    first.sort()
    users, items, ts = users[first], items[first], ts[first]
    last = np.flatnonzero(np.r_[(np.diff(users) != 0) | (np.diff(ts) != 0), True])
    return Steps(users, items, ts, last + 1, interactions.item_ids)


@dataclass
class Past:
    """What the job keeps of a user: the last items, and how often they met each of the last 512."""

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
        if len(self.recents) > HISTORY:
            del self.recents[0]


class Asked(NamedTuple):
    """A step that is asked about: what a ranker may know, and what followed."""

    user: int
    at_ms: int
    past: Past
    answers: list[int]
    counted: bool


class Scores(NamedTuple):
    """Measures of questions, parallel: float64[q] each, and `users` int64[q]; `listed`: items in any top ten."""

    users: npt.NDArray[np.int64]
    ndcg: npt.NDArray[np.float64]
    hit: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    reciprocal: npt.NDArray[np.float64]
    listed: int

    def table(self) -> dict[str, float]:
        """The means: nDCG@10, HR@10, recall@20, MRR@20, and how many items are in any top ten."""
        return {
            "ndcg@10": float(self.ndcg.mean()),
            "hr@10": float(self.hit.mean()),
            "recall@20": float(self.recall.mean()),
            "mrr": float(self.reciprocal.mean()),
            "listed": float(self.listed),
            "questions": float(len(self.ndcg)),
        }


def measure_lists(lists: list[list[int]], questions: list[Asked]) -> Scores:
    """Compare lists, best first, of any length, with what followed."""
    rows = []
    listed: set[int] = set()
    for ranked, question in zip(lists, questions, strict=True):
        answers = set(question.answers)
        hits = [place for place, item in enumerate(ranked[:LISTED]) if item in answers]
        top = [place for place in hits if place < 10]
        ideal = _IDEAL[min(len(answers), 10) - 1]
        rows.append(
            (
                question.user,
                sum(_GAINS[place] for place in top) / ideal,
                float(bool(top)),
                len(hits) / len(answers),
                1 / (1 + hits[0]) if hits else 0.0,
            )
        )
        listed.update(ranked[:10])
    columns = np.array(rows, np.float64).reshape(-1, 5).T
    return Scores(columns[0].astype(np.int64), columns[1], columns[2], columns[3], columns[4], len(listed))


class RankedOnline(NamedTuple):
    """A way of ranking kept online: `rank` gives a list for a question, `learn` takes the step after it."""

    rank: Callable[[Asked], list[int]]
    learn: Callable[[Asked, list[int]], None]

    def counting(self, report: Callable[[int], None]) -> "RankedOnline":
        """The same, which calls `report` after each step with the number of steps learned so far."""
        learned = 0

        def learn(asked: Asked, items: list[int]) -> None:
            nonlocal learned
            self.learn(asked, items)
            learned += 1
            report(learned)

        return RankedOnline(self.rank, learn)


def replay(
    steps: Steps, rankers: dict[str, RankedOnline], new_items: bool, counted_from: float = 0.5
) -> dict[str, Scores]:
    """Ask and teach all `rankers` side by side. `new_items`: only items that the user has not had are asked for."""
    pasts: dict[int, Past] = {}
    lists: dict[str, list[list[int]]] = {name: [] for name in rankers}
    questions: list[Asked] = []
    begin, half = 0, int(len(steps.users) * counted_from)
    for end in steps.ends.tolist():
        user, items = int(steps.users[begin]), steps.items[begin:end].tolist()
        past = pasts.setdefault(user, Past())
        wanted = [item for item in items if item not in past.had] if new_items else items
        question = Asked(user, int(steps.ts_ms[begin]), past, wanted, begin >= half and bool(past.recents))
        for name, ranker in rankers.items():
            if question.counted and wanted:
                lists[name].append(ranker.rank(question))
            ranker.learn(question, items)
        if question.counted and wanted:
            questions.append(question)
        for item in items:
            past.note(item)
        begin = end
    return {name: measure_lists(found, questions) for name, found in lists.items()}


class OnlineRanker:
    """The online model in a replay: blend, learner and tables as the job runs them, updates as bytes.

    `cpu_s` is what scoring, weights, and learning have used, and `lists`, `events` of how many.
    """

    def __init__(self, item_ids: list[str], new_items: bool, publish_every_ms: int = 1_000) -> None:
        self._ids, self._new_items, self._every_ms = item_ids, new_items, publish_every_ms
        self._code = {item: code for code, item in enumerate(item_ids)}
        self._blend, self.learner, self.tables = Blend(), Learner(), Tables()
        self._lessons: list[Lesson] = []
        self._gradients = Gradients()
        self._published_ms = 0
        self.cpu_s = {"scoring": 0.0, "weights": 0.0, "learning": 0.0, "publishing": 0.0}
        self.counts = {"scored": 0, "events": 0, "weighed": 0, "updates": 0}

    def ranker(self) -> RankedOnline:
        """As :func:`replay` takes it."""
        return RankedOnline(self.rank, self.learn)

    def histories(self, past: Past) -> Histories:
        """The inputs of one user."""
        row_of = self.tables.index.get
        had = [row_of(self._ids[item], 0) for item in past.had] if self._new_items else []
        found = empty_histories(1, max(1, len(had)))
        found.sizes[0] = len(past.recents)
        recents = [row for item in past.recents if (row := row_of(self._ids[item], 0))]
        if recents:
            found.items[0, -len(recents) :] = recents
        found.excluded[0, : len(had)] = had
        own = [
            (row, count) for item, count in list(past.had.items())[-OWN_ITEMS:] if (row := row_of(self._ids[item], 0))
        ]
        if own and not self._new_items:
            found.own[0, : len(own)] = [row for row, _ in own]
            found.own_counts[0, : len(own)] = np.log1p([count for _, count in own]) * 0.5
        return found

    def rank(self, question: Asked) -> list[int]:
        """The list of a question."""
        return self.scored(question, LISTED)[0]

    def scored(self, question: Asked, listed: int) -> tuple[list[int], npt.NDArray[np.float32]]:
        """The first `listed` items for a question, best first, and their scores."""
        if self.tables.is_empty:
            return [], np.empty(0, np.float32)
        begun = time.process_time()
        scores, rows = self._blend.rank(self.histories(question.past), self.tables, LISTED)
        self.cpu_s["scoring"] += time.process_time() - begun
        self.counts["scored"] += 1
        kept = np.isfinite(scores[0])
        ranked = rows[0][kept][:listed].tolist()
        return [self._code[self.tables.ids[row]] for row in ranked], scores[0][kept][:listed]

    def learn(self, question: Asked, items: list[int]) -> None:
        """Take a step; publish when it is time to."""
        begun = time.process_time()
        if not self.tables.is_empty and question.answers and question.past.recents:
            rows = [row for item in question.answers if (row := self.tables.index.get(self._ids[item]))]
            followed = [np.array(rows, np.int32)]
            self._gradients.add(self._blend.gradients(self.histories(question.past), self.tables, followed))
            self.counts["weighed"] += 1
        self.cpu_s["weights"] += time.process_time() - begun
        begun = time.process_time()
        recents = list(question.past.recents)
        for item in items:
            before = tuple(self._ids[other] for other in recents[: -LAGS - 1 : -1])
            self._lessons.append(Lesson(self._ids[item], question.at_ms, _bit_of(question.user), before))
            if item in recents:
                recents.remove(item)
            recents.append(item)
        self.counts["events"] += len(items)
        self.cpu_s["learning"] += time.process_time() - begun
        if question.at_ms - self._published_ms >= self._every_ms:
            self._publish(question.at_ms)

    def _publish(self, at_ms: int) -> None:
        begun = time.process_time()
        lessons, gradients = self._lessons, self._gradients
        self._lessons, self._gradients, self._published_ms = [], Gradients(), at_ms
        raw = encode_update(self.learner.learn([sum_lessons(lessons, gradients)] if lessons else [], at_ms))
        self.cpu_s["learning"] += time.process_time() - begun
        begun = time.process_time()
        self.tables.apply(decode_update(raw))
        self.tables.refresh()
        self.cpu_s["publishing"] += time.process_time() - begun
        self.counts["updates"] += 1


def _bit_of(user: int) -> int:
    return (user * 2654435761 >> 7) & 63
