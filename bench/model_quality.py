"""How good lists are: all ways of ranking side by side on Online Retail, each step first asked, then learned."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from evaluation.study import Comparison, StudyOptions, study
from models.interactions import Columns, Interactions, read

COLUMNS: Final = Columns("customer_id", "stock_code", "invoice_ts", every="purchase", quantity="quantity")

Say = Callable[[str], None]


def online_retail(path: Path, events: int | None, say: Say) -> Interactions:
    """The first `events` lines in time, or all."""
    interactions = read(path, COLUMNS)
    for line in interactions.report_lines():
        say(line.strip())
    if events is None:
        return interactions
    first = np.argsort(interactions.ts_ms, kind="stable")[:events]
    return interactions.where(np.isin(np.arange(len(interactions)), first))


def measure(interactions: Interactions, seed: int, say: Say) -> dict[str, Comparison]:
    """``all`` and ``new``."""
    tables = study(interactions, StudyOptions(seed=seed), say).tables
    for name, table in tables.items():
        for method in sorted(table.measured, key=table.ndcg, reverse=True):
            say(f"{name} items: nDCG@10 {table.ndcg(method):.4f} {method}")
    return tables
