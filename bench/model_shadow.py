"""How soon a shadow shows that a model is worse, and how often it is wrong about an equal one.

Two models of each kind rank the same histories once, before each event; then runs of the test draw recorded pairs.
Lists are those of new items, as the job serves by default: a pair counts if its next item is one.
"""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from bench.model_quality import COLUMNS, Say
from deploy.demo.shop import training_interactions
from evaluation.frozen import choose_decay, rows_of
from evaluation.job_twin import JobRules, Took
from evaluation.methods import FrozenMethod, OnlineMethod, trained_scorer
from evaluation.side_by_side import Asked, Method, replay
from evaluation.steps import Protocol, moving, plan, rows_before_questions
from models.interactions import Interactions, read
from models.paired_gains import LEVELS, LISTED, capital, differences, gain_of, growth
from models.transitions import TrainingSettings, train
from udfs.judging import OVERALL, JudgeSettings

TOLERANCE: Final = JudgeSettings().tolerance
ERROR: Final = OVERALL * JudgeSettings().error
RUNS: Final = 100
DETECTED_LISTS: Final = 5_000
ALARM_LISTS: Final = 50_000
WORSE: Final = 0.10
CANDIDATES: Final = 100
SHOP_USERS: Final = 300
_STEPS: Final = 12
ALIKE_NOISE: Final = 0.2

Gains = npt.NDArray[np.int64]
"""int64[lists]: their gains, in steps."""


class GainPairs(NamedTuple):
    """Recorded gains of the lists of two models, parallel."""

    served: Gains
    other: Gains

    def loss(self) -> float:
        """By which share the other model's mean gain is below that of the served one."""
        return float(1 - self.other.mean() / self.served.mean())


class Kind(Enum):
    """What is known of two models: the other one is worse; both are equal, because each pair is turned at random; or
    nothing, as of two that were trained on two draws of the same users."""

    WORSE = "worse"
    EQUAL = "equal"
    UNKNOWN = "unknown"


class Runs(NamedTuple):
    """After how many lists each run found the other model worse, int64[runs]; 0 if it never did."""

    name: str
    kind: Kind
    loss: float
    lists: int
    found: Gains

    @property
    def worse(self) -> int:
        """In how many runs."""
        return int((self.found > 0).sum())

    def half(self) -> int:
        """After how many lists half of these runs had found it; 0 if none did."""
        return int(np.median(self.found[self.found > 0])) if self.worse else 0


@dataclass
class RecordedLists:
    """A :class:`evaluation.side_by_side.Method` that keeps its lists, with scores, of the questions it was asked."""

    method: OnlineMethod | FrozenMethod
    lists: list[tuple[list[int], npt.NDArray[np.float32]]] = field(default_factory=list)
    met: list[set[int]] = field(default_factory=list)

    def rank(self, asked: Asked) -> list[int]:
        """Keep a list."""
        self.lists.append(self.method.scored(asked))
        return self.lists[-1][0]

    def learn(self, asked: Asked, items: list[int], took: Took) -> None:
        """Keep what followed a list: items that are new to the user."""
        if len(self.met) < len(self.lists):
            self.met.append({item for item in items if item not in asked.past.had})
        self.method.learn(asked, items, took)

    def gains(self) -> Gains:
        """The gain of each list."""
        return _gains([ranked for ranked, _ in self.lists], self.met)

    def with_noise(self, scale: float, seed: int) -> Gains:
        """The same, with normal noise on the scores, in units of the list's own spread."""
        random, lists = np.random.default_rng(seed), []
        for ranked, scores in self.lists:
            noise = random.standard_normal(len(scores)) * scale * (np.std(scores) if len(scores) else 0)
            order = np.argsort(-(scores + noise), kind="stable")[:LISTED].tolist()
            lists.append([ranked[place] for place in order])
        return _gains(lists, self.met)


def _gains(lists: list[list[int]], met: list[set[int]]) -> Gains:
    return np.array([gain_of(ranked, items) for ranked, items in zip(lists, met, strict=True)], np.int64)


def measure(data: Path, events: int | None, seed: int, say: Say) -> list[Runs]:
    """Runs with pairs of models of each kind, on a simulated shop and on Online Retail, where that is there."""
    shops = {"simulated shop": training_interactions(seed, SHOP_USERS)}
    if data.exists():
        shops["Online Retail"] = _first(read(data, COLUMNS), events)
    found = []
    for shop, interactions in shops.items():
        say(f"shadow, {shop}: recording lists of {len(interactions):,} events")
        for name, (kind, pairs) in record(interactions, seed).items():
            runs = simulate(f"{shop}, {name}", kind, pairs, seed)
            say(f"shadow, {runs.name}: {runs.loss:.1%} worse, found in {runs.worse} of {RUNS} runs")
            found.append(runs)
    return found


def _first(interactions: Interactions, events: int | None) -> Interactions:
    if events is None:
        return interactions
    return interactions.where(interactions.ts_ms <= np.sort(interactions.ts_ms)[min(events, len(interactions)) - 1])


def record(interactions: Interactions, seed: int) -> dict[str, tuple[Kind, GainPairs]]:
    """Pairs of gains of the second half of the events, by name."""
    counted, rules = moving(interactions), JobRules()
    steps = plan(counted, Protocol.PREQUENTIAL)
    half, ids = rows_of(counted, rows_before_questions(steps)), interactions.item_ids
    many = rules._replace(lists=msgspec.structs.replace(rules.lists, items=CANDIDATES))
    online = RecordedLists(OnlineMethod(ids, many))
    drawn = [RecordedLists(_frozen(_drawn(half, seed + place), ids, rules)) for place in range(2)]
    methods: dict[str, Method] = {"online": online, "frozen 0": drawn[0], "frozen 1": drawn[1]}
    replay(steps, methods, ids, rules)
    gains = online.gains()
    noisy = online.with_noise(scale_for(online, WORSE, seed), seed)
    useless = np.where(np.random.default_rng(seed).random(len(gains)) < WORSE, 0, gains)
    alike = GainPairs(online.with_noise(ALIKE_NOISE, seed + 1), online.with_noise(ALIKE_NOISE, seed + 2))
    trained = GainPairs(drawn[0].gains(), drawn[1].gains())
    return {
        "noise in the scores": (Kind.WORSE, GainPairs(gains, noisy)),
        "a tenth of the lists useless": (Kind.WORSE, GainPairs(gains, useless)),
        "equal, noise in both": (Kind.EQUAL, alike),
        "equal, trained on two draws of the users": (Kind.EQUAL, trained),
        "trained on two draws of the users": (Kind.UNKNOWN, trained),
    }


def _frozen(before: Interactions, ids: list[str], rules: JobRules) -> FrozenMethod:
    settings = choose_decay(before, TrainingSettings())
    return FrozenMethod(trained_scorer(train(before, settings), settings), ids, rules)


def _drawn(interactions: Interactions, seed: int) -> Interactions:
    """A bootstrap: as many users as there are, drawn with replacement, each a user of their own."""
    users, places = np.unique(interactions.users, return_inverse=True)
    drawn = np.random.default_rng(seed).integers(0, len(users), len(users))
    by_user = np.argsort(places, kind="stable")
    starts = np.searchsorted(places[by_user], np.arange(len(users) + 1))
    rows = [by_user[starts[user] : starts[user + 1]] for user in drawn.tolist()]
    order = np.concatenate(rows)
    again = np.repeat(np.arange(len(rows)), [len(each) for each in rows])
    return Interactions(
        again, interactions.items[order], interactions.ts_ms[order], interactions.kinds[order], interactions.item_ids
    )


def scale_for(recorded: RecordedLists, loss: float, seed: int) -> float:
    """The scale of the noise that costs this share of the gain."""
    best, low, high = recorded.gains().mean(), 0.0, 4.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if recorded.with_noise(middle, seed).mean() > best * (1 - loss):
            low = middle
        else:
            high = middle
    return high


def simulate(name: str, kind: Kind, pairs: GainPairs, seed: int) -> Runs:
    """Runs of the test on drawn pairs. It looks after each list, which is more often than a job does."""
    lists = DETECTED_LISTS if kind == Kind.WORSE else ALARM_LISTS
    growths = growth(differences(TOLERANCE).ravel(), 0.0, -1)
    found = np.zeros(RUNS, np.int64)
    for run in range(RUNS):
        random = np.random.default_rng([seed, run])
        drawn = random.integers(0, len(pairs.served), lists)
        served, other = pairs.served[drawn], pairs.other[drawn]
        if kind == Kind.EQUAL:
            turned = random.random(lists) < 0.5
            served, other = np.where(turned, other, served), np.where(turned, served, other)
        reached = capital(np.cumsum(growths[served * (LEVELS + 1) + other], axis=0)) >= -np.log(ERROR)
        found[run] = int(np.argmax(reached)) + 1 if reached.any() else 0
    return Runs(name, kind, 0.0 if kind == Kind.EQUAL else pairs.loss(), lists, found)
