"""Train the built-in model on a file: ``python -m models.train FILE --out DIR``.

FILE is CSV, Parquet, JSON-lines such as the clean events of the ``events`` topic, or the folder of an export
(``freshet export``); ``-`` reads JSON-lines from stdin.
For the Online Retail data::

    python -m models.train online-retail.parquet --out model --user customer_id --item stock_code \\
        --time invoice_ts --every purchase --quantity quantity
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from models.evaluate import MEASURES, before_cut, choose_decay, evaluate
from models.export import Card, export
from models.interactions import CLEAN_EVENTS, Columns, Interactions, decoded, default_user, from_rows, read
from models.manifest import POPULAR_MAX, Manifest, TrainingWindow
from models.transitions import Settings, Trained, train
from schemas.errors import ModelError

Print = Callable[[str], None]


def train_and_export(
    interactions: Interactions, directory: Path, settings: Settings | None = None, say: Print = lambda line: None
) -> Manifest:
    """Evaluate on the last fifth of the time, train on all of it, write the model to ``directory``.

    ``say`` is told each stage and its seconds. Data too thin to evaluate gives a model without metrics; data too thin
    to train raises :class:`ModelError`.
    """
    settings = settings or Settings()
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


def _chosen(interactions: Interactions, settings: Settings) -> Settings:
    try:
        return choose_decay(before_cut(interactions), settings)
    except ModelError:
        return settings


def _card(
    interactions: Interactions, trained: Trained, settings: Settings, metrics: dict[str, dict[str, float]]
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


def table(metrics: dict[str, dict[str, float]]) -> list[str]:
    """The metrics as lines of text, one way of ranking a line."""
    lines = [f"{'':24}" + "".join(f"{name:>13}" for name in MEASURES)]
    return lines + [f"{way:24}" + "".join(f"{row[name]:13.4f}" for name in MEASURES) for way, row in metrics.items()]


@contextmanager
def _stage(name: str, say: Print) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    say(f"{name}: {time.perf_counter() - begun:.1f} s")


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    summary, _, details = (__doc__ or "").partition("\n\n")
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m models.train", description=summary, epilog=details, formatter_class=form
    )
    parser.add_argument("file", help="CSV, Parquet, JSON-lines or the folder of an export; - for JSON-lines on stdin")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="directory of the model, replaced whole")
    parser.add_argument("--user", help="column of the user (default: user_id, pseudonym in JSON-lines)")
    for option, text in (("item", ""), ("time", ": dates, or numbers in any usual unit"), ("kind", "")):
        parser.add_argument(
            f"--{option}", default=getattr(Columns(), option), help=f"column{text} (default: %(default)s)"
        )
    parser.add_argument("--every", metavar="KIND", help="kind of all rows, where there is no column for it")
    parser.add_argument("--time-format", metavar="FORMAT", help="how dates are written, as for strptime: %%d/%%m/%%Y")
    parser.add_argument("--quantity", help="column of a quantity; rows not above zero are dropped")
    for option, text in (("top-k", "items in a list"), ("neighbours", "neighbours kept for each item")):
        default = getattr(Settings(), option.replace("-", "_"))
        parser.add_argument(f"--{option}", type=int, default=default, help=f"{text} (default: %(default)s)")
    return parser.parse_args(arguments)


def _read(options: argparse.Namespace) -> Interactions:
    rest = (options.item, options.time, options.kind, options.every, options.quantity, options.time_format)
    if options.file == "-":
        return from_rows(map(decoded, sys.stdin.buffer), Columns(options.user or CLEAN_EVENTS.user, *rest))
    path = Path(options.file)
    return read(path, Columns(options.user or default_user(path), *rest))


def main(arguments: Sequence[str] | None = None, say: Print = print) -> int:
    """The command; returns the exit code, 1 where no model could be made."""
    options = _arguments(arguments)
    try:
        with _stage("read", say):
            interactions = _read(options)
        for line in interactions.told():
            say(line)
        settings = replace(Settings(), top_k=options.top_k, neighbours=options.neighbours)
        manifest = train_and_export(interactions, options.out, settings, say)
    except ModelError as error:
        say(f"no model: {error}")
        return 1
    for line in table(manifest.metrics):
        say(line)
    say(f"{manifest.name}: {manifest.items_count} items, {manifest.size_bytes / 1e6:.1f} MB, in {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
