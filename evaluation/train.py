"""Trains the built-in model on a file (`freshet model train`).

The file is CSV, Parquet, JSON lines such as the clean events of the ``events`` topic, or the folder of an export.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import numpy as np

from evaluation.frozen import MEASURES, before_cut, choose_decay, evaluate
from models.csv_files import Layout
from models.files import ROWS_FOR_NAMES
from models.interactions import Columns, Interactions, default_user, from_rows, parse_line, read, user_among
from models.manifest import POPULAR_MAX, Manifest, TrainingWindow
from models.model_directory import Card, export
from models.transitions import Trained, TrainingSettings, train
from schemas.errors import ModelError

Print = Callable[[str], None]


def interactions_in(
    file: str, columns: Columns, user: str | None = None, say: Print = lambda line: None
) -> Interactions:
    """Read ``file`` for training; ``-`` is JSON lines on standard input. Calls ``say`` about all dropped rows.

    ``user`` is the column of the user; None: ``user_id``, or ``pseudonym`` if the file has that. Raises
    :class:`ModelError`.
    """
    with _stage("read", say):
        if columns.layout != Layout() and (file == "-" or Path(file).is_dir()):
            raise ModelError("standard input and exports name their fields: leave out --separator and --column-names")
        if file == "-":
            if sys.stdin is None:  # closed by whoever started this process
                raise ModelError("standard input is closed: name a file, or pass rows on standard input")
            rows = map(parse_line, sys.stdin.buffer)
            first = list(islice(rows, ROWS_FOR_NAMES))
            of_user = replace(columns, user=user or user_among({name for row in first for name in row}))
            interactions = from_rows(chain(first, rows), of_user)
        else:
            path = Path(file)
            interactions = read(path, replace(columns, user=user or default_user(path, columns.layout)))
    for line in interactions.report_lines():
        say(line)
    return interactions


def train_and_export(
    interactions: Interactions,
    directory: Path,
    settings: TrainingSettings | None = None,
    say: Print = lambda line: None,
) -> Manifest:
    """Evaluate on the last fifth of the time, train on all of it, write the model to ``directory``.

    Reports each stage and its seconds to ``say``. With too little data to evaluate, the model has no metrics; with too
    little to train, raises :class:`ModelError`.
    """
    settings = settings or TrainingSettings()
    if settings.history_decay is None:
        with _stage("choose how fast a history fades", say):
            settings = _chosen(interactions, settings)
    metrics: dict[str, dict[str, float]] = {}
    with _stage("evaluate on the last fifth of the time", say):
        try:
            metrics = evaluate(interactions, settings)
        except ModelError as error:
            say(f"  not evaluated: {error}")
    with _stage("train on all", say):
        trained = train(interactions, settings)
    with _stage("quantise and write", say):
        card = _card(interactions, trained, settings, metrics)
        return export(directory, trained.numbers, trained.items, settings.top_k, card)


def _chosen(interactions: Interactions, settings: TrainingSettings) -> TrainingSettings:
    try:
        return choose_decay(before_cut(interactions), settings)
    except ModelError:
        return settings


def _card(
    interactions: Interactions, trained: Trained, settings: TrainingSettings, metrics: dict[str, dict[str, float]]
) -> Card:
    popular = [
        item
        for item, users in zip(trained.items, trained.item_users, strict=True)
        if users >= settings.popular_users_min
    ]
    window = TrainingWindow(
        from_ms=int(interactions.ts_ms.min()),
        to_ms=int(interactions.ts_ms.max()),
        interactions=len(interactions),
        users=len(np.unique(interactions.users)),
        items=len(trained.items),
    )
    rounded = {way: {name: round(value, 5) for name, value in row.items()} for way, row in metrics.items()}
    return Card(
        "transitions",
        window,
        popular=popular[:POPULAR_MAX],
        popular_min_users=settings.popular_users_min,
        kind_weights=dict(settings.kind_weights),
        metrics=rounded,
    )


def table(metrics: dict[str, dict[str, float]], measures: Sequence[str] = MEASURES) -> list[str]:
    """The metrics as lines of text, one ranking method per line."""
    width = max(24, *(len(way) + 1 for way in metrics)) if metrics else 24
    lines = [f"{'':{width}}" + "".join(f"{name:>13}" for name in measures)]
    return lines + [
        f"{way:{width}}" + "".join(f"{row[name]:13.4f}" for name in measures) for way, row in metrics.items()
    ]


@contextmanager
def _stage(name: str, say: Print) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    say(f"{name}: {time.perf_counter() - begun:.1f} s")
