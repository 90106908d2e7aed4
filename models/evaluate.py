"""Evaluates recommendation quality on a global time split, as in serving, against popularity.

All interactions before the cut are for training. Each later step of a user with a history is a question: given the last
20 items before the step, which items does the step contain? Steps and baskets are those of :mod:`models.transitions`. A
global cut leaks nothing from the future, unlike leave-one-out per user (Meng et al., "Exploring Data Splitting
Strategies for the Evaluation of Recommendation Models", RecSys 2020).

There are two tables: ``all``, where every item of the step counts, and ``new``, where items among the last 20 are
neither listed nor expected, which is how lists are served by default.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from models.interactions import Interactions
from models.manifest import RECENT_ITEMS_MAX, TrainingWindow
from models.model_directory import Card, export
from models.scorer import Scorer
from models.transitions import Trained, TrainingSettings, kind_weights_of, train
from schemas.errors import ModelError

TEST_SHARE: Final = 0.2
QUESTIONS_MAX: Final = 5_000
DECAYS: Final = (1.0, 0.95, 0.85, 0.7, 0.5)
MEASURES: Final = ("ndcg@10", "hr@10", "recall@20", "coverage@10")

Rows = npt.NDArray[np.int64]
Rank = Callable[[npt.NDArray[np.int32], npt.NDArray[np.float32]], Rows]


@dataclass(frozen=True)
class Questions:
    """Questions about users' next steps.

    ``histories`` int32[n, 20]: rows of the model, newest last, 0 = padding. ``weights``: float32 of the same shape.
    ``answers``: the distinct rows of each step; items that the model does not know are negative numbers.
    """

    histories: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]
    answers: list[Rows]


def evaluate(interactions: Interactions, settings: TrainingSettings) -> dict[str, dict[str, float]]:
    """Train on the first 80 % in time, test on the rest: ranking method → metric → value.

    The methods are ``int8`` and ``fp32`` (the model as served and before quantisation) and ``popularity`` (the same
    list for all, weighted by recency), each also as ``…, new items``. Raises :class:`ModelError` without enough data.
    """
    cut = _cut(interactions)
    trained = train(interactions.where(interactions.ts_ms < cut), settings)
    questions = questions_after(cut, interactions, trained, settings)
    if not questions.answers:
        raise ModelError(
            "no user with a history comes back in the last fifth of the time: there is nothing to evaluate"
        )
    k = min(settings.top_k, len(trained.items))
    popular = np.arange(1, k + 1)
    ways: dict[str, Rank] = {
        "int8": _ranked_by(trained, settings, int8=True),
        "fp32": _ranked_by(trained, settings, int8=False),
        "popularity": lambda histories, _: np.broadcast_to(popular, (len(histories), k)),
    }
    table = {}
    for way, rank in ways.items():
        lists = rank(questions.histories, questions.weights)
        table[way] = measure(lists, questions.answers, len(trained.items))
        table[f"{way}, new items"] = measure(*without_seen(lists, questions), len(trained.items))
    return table


def choose_decay(interactions: Interactions, settings: TrainingSettings) -> TrainingSettings:
    """``settings`` with the ``history_decay`` of `DECAYS` that ranks new items best in the last fifth of the time.

    The best value depends on the shop: yesterday's basket is still informative, twenty clicks ago hardly. Pass training
    data only. With too little data to test, the settings are unchanged.
    """
    cut = _cut(interactions)
    try:
        trained = train(interactions.where(interactions.ts_ms < cut), settings)
    except ModelError:
        return settings
    questions = questions_after(cut, interactions, trained, settings)
    if not questions.answers or not len(without_seen(questions.histories.astype(np.int64), questions)[1]):
        return settings

    def quality(decay: float) -> float:
        lists = _ranked_by(trained.with_decay(decay), settings, int8=False)(questions.histories, questions.weights)
        return measure(*without_seen(lists, questions), len(trained.items))["ndcg@10"]

    return replace(settings, history_decay=max(DECAYS, key=quality))


def _cut(interactions: Interactions) -> int:
    """The time (ms) at which the last `TEST_SHARE` of the interactions begins."""
    if not len(interactions):
        raise ModelError("there are no interactions to evaluate")
    return int(np.quantile(interactions.ts_ms, 1 - TEST_SHARE))


def before_cut(interactions: Interactions) -> Interactions:
    """The interactions that :func:`evaluate` trains on."""
    return interactions.where(interactions.ts_ms < _cut(interactions))


def questions_after(cut: int, interactions: Interactions, trained: Trained, settings: TrainingSettings) -> Questions:
    """Up to `QUESTIONS_MAX` questions, evenly sampled, about steps at or after ``cut`` (ms)."""
    row_of = {item: row for row, item in enumerate(trained.items, start=1)}
    known = [row_of.get(item, -1 - code) for code, item in enumerate(interactions.item_ids)]
    rows = np.array(known, np.int64)[interactions.items]
    weights = kind_weights_of(settings)[interactions.kinds]
    order = np.lexsort((rows, interactions.ts_ms, interactions.users))
    order = order[weights[order] > 0]
    users, times, rows, weights = interactions.users[order], interactions.ts_ms[order], rows[order], weights[order]
    fresh = np.r_[True, (np.diff(users) != 0) | (np.diff(times) != 0)]
    starts = np.flatnonzero(fresh)
    ends = np.r_[starts[1:], len(users)]
    first = np.searchsorted(users, users[starts])
    asked = np.flatnonzero((times[starts] >= cut) & (starts > first))
    if len(asked) > QUESTIONS_MAX:
        asked = asked[np.linspace(0, len(asked) - 1, QUESTIONS_MAX).astype(np.int64)]
    histories = np.zeros((len(asked), RECENT_ITEMS_MAX), np.int32)
    counted = np.zeros(histories.shape, np.float32)
    for question, step in enumerate(asked):
        past = np.arange(first[step], starts[step])
        past = past[rows[past] > 0][-RECENT_ITEMS_MAX:]
        histories[question, RECENT_ITEMS_MAX - len(past) :] = rows[past]
        counted[question, RECENT_ITEMS_MAX - len(past) :] = weights[past]
    return Questions(histories, counted, [np.unique(rows[starts[step] : ends[step]]) for step in asked])


def measure(lists: Rows, answers: list[Rows], items: int) -> dict[str, float]:
    """The mean of each of `MEASURES` over the questions; ``lists`` int64[n, k] best first, -1 fills short ones.

    With binary relevance, nDCG@10 is DCG over the DCG of the best possible list, each hit at rank r worth
    1 / log2(r + 1) (Järvelin & Kekäläinen, "Cumulated Gain-Based Evaluation of IR Techniques", TOIS 2002).
    HR@10 is whether there is any hit, recall@20 the share of the answers found, coverage@10 the share of the
    vocabulary that is in any list.
    """
    if not answers:
        return dict.fromkeys(MEASURES, 0.0)
    lists = lists[:, :20]
    hits = np.array([np.isin(row, answer[answer > 0]) for row, answer in zip(lists, answers, strict=True)])
    asked = np.array([len(answer) for answer in answers])
    gains = 1 / np.log2(np.arange(2, 12))
    ideal = np.cumsum(gains)[np.minimum(asked, 10) - 1]
    top = lists[:, :10]
    return {
        "ndcg@10": float(((hits[:, :10] * gains[: top.shape[1]]).sum(axis=1) / ideal).mean()),
        "hr@10": float(hits[:, :10].any(axis=1).mean()),
        "recall@20": float((hits.sum(axis=1) / asked).mean()),
        "coverage@10": len(np.unique(top[top > 0])) / items,
    }


def without_seen(lists: Rows, questions: Questions) -> tuple[Rows, list[Rows]]:
    """Lists and answers without the items of each history; questions without remaining answers are dropped."""
    kept, answers = [], []
    for row, history, answer in zip(lists, questions.histories, questions.answers, strict=True):
        wanted = answer[~np.isin(answer, history)]
        if not len(wanted):
            continue
        fresh = row[~np.isin(row, history)][:20]
        kept.append(np.pad(fresh, (0, 20 - len(fresh)), constant_values=-1))
        answers.append(wanted)
    return np.array(kept, np.int64).reshape(-1, 20), answers


def _ranked_by(trained: Trained, settings: TrainingSettings, *, int8: bool) -> Rank:
    """Rank through the exported graph, so that the served model is the one measured."""
    card = Card("evaluation", TrainingWindow(0, 0, 0, 0, len(trained.items)))

    def rank(histories: npt.NDArray[np.int32], weights: npt.NDArray[np.float32]) -> Rows:
        with tempfile.TemporaryDirectory() as scratch:
            directory = Path(scratch) / "model"
            export(directory, trained.numbers, trained.items, settings.top_k, card, int8=int8)
            return Scorer.open(directory).score(histories, weights)[1]

    return rank
