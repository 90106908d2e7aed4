"""What the online model costs: CPU of learning and scoring, and memory of an item, on made streams.

CPU times are of this process (one thread): what else the machine does does not count, but for the caches it takes.
"""

import time
import tracemalloc
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np

from models.online.blend import Blend, Histories
from models.online.dimensions import (
    CHANNELS,
    CONTEXTS,
    FEATURES,
    HISTORY,
    LAGS,
    NEIGHBOURS,
    OWN_ITEMS,
    POPULARITIES,
)
from models.online.learner import Learner
from models.online.lessons import Lesson, LessonSums, sum_lessons
from models.online.tables import Tables
from models.online.updates import Update, UpdateColumns, decode_update, encode_update, packed
from schemas.topics import DAY_MS

EVENTS: Final = 200_000
EVENTS_PER_SECOND: Final = 2_000
USERS: Final = 20_000
ITEMS: Final = 10_000
MANY_ITEMS: Final = 100_000
MILLION: Final = 1_000_000
BATCH: Final = 32
LIST_ITEMS: Final = 30
"""The default of `lists.items`."""
PAIRS_OF_AN_ITEM: Final = 40
"""More than are published, so that what scorers have is full."""
ROUNDS: Final = 15
RUNS: Final = 20
BEGIN_MS: Final = 1_700_000_000_000

Say = Callable[[str], None]


class Speed(NamedTuple):
    """µs of CPU, and bytes an item."""

    learning_us: float
    learning_last_us: float
    scoring_us: float
    scoring_many_us: float
    scoring_million_us: float
    refresh_million_ms: float
    learner_bytes: float
    served_bytes: float


def measure(seed: int, say: Say) -> Speed:
    """All of it, in about two minutes."""
    learning = _learning(seed)
    say(f"learning {float(np.mean(learning)):.1f} µs an event")
    tables, learner_bytes, served_bytes = _memory(ITEMS, seed)
    say(f"{learner_bytes:,.0f} bytes an item of the learner, {served_bytes:,.0f} of a scorer")
    scoring = _scoring(tables, ITEMS, seed)
    say(f"scoring {scoring:.1f} µs a list of {ITEMS:,} items")
    many = _scoring(full_tables(full_sums(MANY_ITEMS, seed), MANY_ITEMS)[1], MANY_ITEMS, seed)
    say(f"scoring {many:.1f} µs a list of {MANY_ITEMS:,} items")
    tables = made_tables(MILLION, seed)
    million, refresh = _scoring(tables, MILLION, seed), _least_us(tables.refresh, 1) / 1_000
    say(f"scoring {million:.1f} µs a list of {MILLION:,} items; {refresh:.1f} ms a second to follow their popularity")
    last = learning[-len(learning) // 4 :]
    each = float(np.mean(learning)), float(np.mean(last))
    return Speed(*each, scoring, many, million, refresh, learner_bytes, served_bytes)


def made_lessons(events: int, items: int, users: int, seed: int) -> list[Lesson]:
    """A stream at `EVENTS_PER_SECOND`: users drawn evenly, items by Zipf's law."""
    random = np.random.default_rng(seed)
    chances = 1 / np.arange(1, items + 1)
    what = random.choice(items, events, p=chances / chances.sum()).tolist()
    who = random.integers(0, users, events).tolist()
    names = [f"item-{number}" for number in range(items)]
    pasts: dict[int, list[str]] = {}
    lessons = []
    for number, (item, user) in enumerate(zip(what, who, strict=True)):
        past, name = pasts.setdefault(user, []), names[item]
        at_ms = BEGIN_MS + number * 1_000 // EVENTS_PER_SECOND
        lessons.append(Lesson(name, at_ms, user & 63, tuple(past[: -LAGS - 1 : -1])))
        if name in past:
            past.remove(name)
        past.append(name)
        del past[:-HISTORY]
    return lessons


def _learning(seed: int) -> list[float]:
    """CPU µs an event of each second: summing lessons, merging them, and publishing as bytes."""
    lessons, learner, found = made_lessons(EVENTS, ITEMS, USERS, seed), Learner(), []
    for begin in range(0, EVENTS, EVENTS_PER_SECOND):
        second = lessons[begin : begin + EVENTS_PER_SECOND]
        begun = time.process_time()
        encode_update(learner.learn([sum_lessons(second)], second[-1].ts))
        found.append((time.process_time() - begun) / len(second) * 1e6)
    return found


def full_sums(items: int, seed: int) -> LessonSums:
    """Lessons that fill every row of the tables, two users each."""
    random = np.random.default_rng(seed)
    events = np.repeat(np.arange(items), random.zipf(1.5, items).clip(2, 50))
    left = np.repeat(np.arange(items), PAIRS_OF_AN_ITEM)
    right = (left + random.integers(1, items, len(left))) % items
    counts = random.exponential(size=(len(left), 3))
    return LessonSums(
        BEGIN_MS,
        [f"item-{number}" for number in range(items)],
        packed(events.astype(np.int32)),
        packed(np.full(len(events), BEGIN_MS)),
        packed(np.full(len(events), 3, np.uint64)),
        packed(left.astype(np.int32)),
        packed(right.astype(np.int32)),
        packed(counts.astype(np.float32)),
        packed(np.full(len(left), 3, np.uint64)),
    )


def full_tables(sums: LessonSums, items: int) -> tuple[Learner, Tables]:
    """A learner that learned `sums`, and tables with all that it publishes."""
    learner, tables = Learner(items_max=2 * items, pair_rows_max=items), Tables()
    tables.apply(decode_update(encode_update(learner.learn([sums], BEGIN_MS))))
    tables.refresh()
    return learner, tables


def made_tables(items: int, seed: int) -> Tables:
    """Tables with every row full, as no learner has to be paid for: a learner of a million items takes 12 GB.

    Items are popular by Zipf's law, and neighbours drawn by that; what is said of them falls from the best to the last.
    """
    random = np.random.default_rng(seed)
    rows = np.arange(1, items + 1, dtype=np.int32)
    share = 1 / rows
    neighbours = np.exp(random.random((items, NEIGHBOURS)) * np.log(items)).astype(np.int32)  # by Zipf's law
    said = np.sort(random.exponential(0.03, (items, NEIGHBOURS)), axis=1)[:, ::-1].astype(np.float16)
    shares = np.repeat(said[:, :, None], len(CHANNELS), axis=2)
    columns = UpdateColumns(
        packed(rows),
        packed(np.repeat(share[:, None], POPULARITIES, axis=1)),
        packed((1 / np.sqrt(1e6 * share)).astype(np.float32)),
        packed(rows),
        packed(neighbours),
        packed(shares),
        packed(said),
    )
    born_ms = (BEGIN_MS - random.integers(0, 400 * DAY_MS, items)).tolist()
    names = [(row, f"item-{row}", born) for row, born in zip(rows.tolist(), born_ms, strict=True)]
    totals, weights = packed(np.full(POPULARITIES, share.sum())), packed(np.zeros((CONTEXTS + 1, FEATURES)))
    tables = Tables()
    tables.apply(Update(BEGIN_MS, 0, BEGIN_MS, BEGIN_MS, totals, weights, names, columns))
    tables.refresh()
    return tables


def _memory(items: int, seed: int) -> tuple[Tables, float, float]:
    """Tables, and bytes an item of a learner and of tables: what is still allocated when all has been learned."""
    sums = full_sums(items, seed)
    tracemalloc.start()
    try:
        learner, tables = full_tables(sums, items)
        both = tracemalloc.get_traced_memory()[0]
        del learner
        served = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    return tables, (both - served) / items, served / items


def made_histories(items: int, seed: int) -> Histories:
    """Of 32 users: 20 items each, and 20 that are excluded."""
    random, none = np.random.default_rng(seed), np.zeros((BATCH, OWN_ITEMS))
    rows = random.integers(1, items + 1, (BATCH, HISTORY)).astype(np.int32)
    excluded = random.integers(1, items + 1, (BATCH, HISTORY)).astype(np.int32)
    sizes = np.full(BATCH, HISTORY)
    return Histories(rows, excluded, none.astype(np.int32), none.astype(np.float32), sizes)


def _scoring(tables: Tables, items: int, seed: int) -> float:
    """CPU µs a list, the least of several rounds."""
    blend, histories = Blend(), made_histories(items, seed)
    return _least_us(lambda: blend.rank(histories, tables, LIST_ITEMS)) / BATCH


def _least_us(call: Callable[[], Any], runs: int = RUNS) -> float:
    found = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        for _ in range(runs):
            call()
        found.append((time.process_time() - begun) / runs * 1e6)
    return min(found)
