"""One evaluation (`freshet model evaluate`): the online model beside the frozen one, simple methods and a session-kNN.

Twice: for all items, and for items that are new to the user, which lists have by default.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from evaluation.bootstrap import Difference, difference
from evaluation.frozen import choose_decay, rows_of
from evaluation.job_twin import ANY_ITEM, JobRules
from evaluation.measures import Measured, mean
from evaluation.methods import FrozenMethod, OnlineMethod, trained_scorer
from evaluation.session_knn import SessionKnn
from evaluation.side_by_side import Method, replay
from evaluation.simple_methods import SimpleMethods
from evaluation.steps import Protocol, Step, moving, plan, rows_before_questions
from models.interactions import Interactions
from models.scorer import Scorer
from models.transitions import TrainingSettings, train
from schemas.errors import ModelError

ONLINE: Final = "online model"
FROZEN: Final = "frozen model"
PEER: Final = "VMIS-kNN (peer)"
TABLES: Final = {"all": ANY_ITEM, "new": JobRules().lists}
"""All items of a step count; or only those that the user has not had, and lists leave out the others."""
PRINTED: Final = ("ndcg@10", "hr@10", "recall@20", "mrr", "coverage@10", "novelty@10")
SEGMENTS_MAX: Final = 12
OTHERS: Final = "others"
SAY_EVERY: Final = 10_000

Say = Callable[[str], None]


@dataclass(frozen=True)
class StudyOptions:
    """How to evaluate. `model`: a folder of a model, in place of one that is trained on what is before the questions.
    `seed` draws the users of intervals."""

    protocol: Protocol = Protocol.PREQUENTIAL
    in_order: bool = False
    model: Path | None = None
    seed: int = 18


class Comparison(NamedTuple):
    """One of `TABLES`: measures by method, the online model minus others in nDCG@10, and the questions' labels."""

    measured: dict[str, Measured]
    best_simple: str
    intervals: dict[str, Difference]
    differences: dict[str, Difference]
    labels: dict[str, list[str]]
    times_ms: list[int]

    def ndcg(self, method: str) -> float:
        """The mean nDCG@10 of a method."""
        return self.intervals[method].mean

    def segments(self, dimension: str) -> dict[str, dict[str, float]]:
        """Label → nDCG@10 by method of :meth:`shown`, and the number of questions; small labels are `OTHERS`."""
        labels = np.array(self.labels[dimension], np.str_)
        names, sizes = np.unique(labels, return_counts=True)
        kept = names[np.argsort(-sizes, kind="stable")][:SEGMENTS_MAX].tolist()
        labels = np.where(np.isin(labels, kept), labels, OTHERS)
        found = {}
        for label in sorted(set(labels.tolist())):
            mine = labels == label
            ndcg = {name: mean(self.measured[name].column("ndcg@10")[mine]) for name in self.shown()}
            found[label] = {**ndcg, "questions": float(mine.sum())}
        return found

    def shown(self) -> list[str]:
        """The methods that are compared: the two models, the best simple method, and the session-kNN."""
        return [name for name in (ONLINE, FROZEN, self.best_simple, PEER) if name in self.measured]


class Study(NamedTuple):
    """The result: `tables` by name of :data:`TABLES`; one without questions is left out."""

    options: StudyOptions
    interactions: int
    items: int
    tables: dict[str, Comparison]


def study(interactions: Interactions, options: StudyOptions, say: Say = lambda line: None) -> Study:
    """Evaluate; raises :class:`ModelError` if there is nothing to ask."""
    counted = moving(interactions)
    steps = plan(counted, options.protocol, options.in_order)
    scorer = _frozen(counted, steps, options, say)
    known = {} if scorer is None else dict.fromkeys(scorer.items[1:])
    item_ids = list(dict.fromkeys([*interactions.item_ids, *known]))
    tables = {}
    for name, lists in TABLES.items():
        rules, column = JobRules(lists), counted.column()
        methods = _methods(item_ids, rules, scorer)
        report = _reporting(name, len(steps), say)
        replayed = replay(steps, methods, item_ids, rules, column, report)
        if replayed.times_ms:
            tables[name] = _table(replayed.measured, replayed.labels, replayed.times_ms, options.seed)
    return Study(options, len(counted), len(interactions.item_ids), tables)


def _frozen(counted: Interactions, steps: list[Step], options: StudyOptions, say: Say) -> Scorer | None:
    """The frozen model; None if what is before the questions is too little to train one."""
    if options.model is not None:
        return Scorer.open(options.model)
    before = rows_of(counted, rows_before_questions(steps))
    try:
        settings = choose_decay(before, TrainingSettings())
        return trained_scorer(train(before, settings), settings)
    except ModelError as error:
        say(f"no frozen model: {error}")
        return None


def _methods(item_ids: list[str], rules: JobRules, scorer: Scorer | None) -> dict[str, Method]:
    new_items = rules.lists.exclude_had
    simple = SimpleMethods(len(item_ids), new_items).methods()
    frozen: dict[str, Method] = {} if scorer is None else {FROZEN: FrozenMethod(scorer, item_ids, rules)}
    return {
        ONLINE: OnlineMethod(item_ids, rules),
        **frozen,
        PEER: SessionKnn(len(item_ids), new_items),
        **simple,
    }


def _reporting(name: str, steps: int, say: Say) -> Callable[[int], None]:
    def report(done: int) -> None:
        if done % SAY_EVERY == 0 or done == steps:
            say(f"evaluated, {name} items: {done:,} of {steps:,} steps")

    return report


def _table(measured: dict[str, Measured], labels: dict[str, list[str]], times_ms: list[int], seed: int) -> Comparison:
    users, ours = measured[ONLINE].users, measured[ONLINE].column("ndcg@10")
    columns = {name: each.column("ndcg@10") for name, each in measured.items()}
    intervals = {name: difference(users, column, np.zeros(len(users)), seed) for name, column in columns.items()}
    simple = [name for name in measured if name not in (ONLINE, FROZEN, PEER)]
    best = max(simple, key=lambda name: intervals[name].mean)
    others = [name for name in (FROZEN, best, PEER) if name in measured]
    differences = {name: difference(users, ours, columns[name], seed) for name in others}
    return Comparison(measured, best, intervals, differences, labels, times_ms)


def as_json_value(found: Study) -> dict[str, Any]:
    """For scripts: see docs/ml/evaluate.md."""
    return {
        "protocol": found.options.protocol.value,
        "in_order": found.options.in_order,
        "seed": found.options.seed,
        "interactions": found.interactions,
        "items": found.items,
        "tables": {name: _table_json(table) for name, table in found.tables.items()},
    }


def _table_json(table: Comparison) -> dict[str, Any]:
    methods = {
        name: each.table() | {"ndcg@10_low": table.intervals[name].low, "ndcg@10_high": table.intervals[name].high}
        for name, each in table.measured.items()
    }
    return {
        "methods": methods,
        "best_simple": table.best_simple,
        "online_minus": {name: each._asdict() for name, each in table.differences.items()},
        "segments": {dimension: table.segments(dimension) for dimension in table.labels},
    }


def lines(found: Study) -> list[str]:
    """The result as text."""
    told = []
    for name, table in found.tables.items():
        ranked = sorted(table.measured, key=lambda method: -table.ndcg(method))
        told += [_title(name, table), f"{'':36}" + "".join(f"{measure:>13}" for measure in PRINTED)]
        for method in ranked:
            values = table.measured[method].table()
            told.append(f"{method:36}" + "".join(f"{values[measure]:13.4f}" for measure in PRINTED))
        told += [f"{ONLINE} - {other}: {sentence(each)}" for other, each in table.differences.items()]
        told.append("")
    return told[:-1]


def _title(name: str, table: Comparison) -> str:
    return f"{name} items, {len(table.times_ms):,} questions; the best simple method in hindsight: {table.best_simple}"


def sentence(each: Difference) -> str:
    """A difference in nDCG@10 with its interval."""
    if not each.says_something:
        return f"{each.mean:+.4f} nDCG@10, of {each.users} users: too few for an interval"
    return f"{each.mean:+.4f} nDCG@10, 95 % interval {each.low:+.4f} to {each.high:+.4f}"
