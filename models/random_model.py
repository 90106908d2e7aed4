"""A model of random numbers with the graph of the real one: for benchmarks and tests, never for serving."""

from pathlib import Path
from typing import Final

import numpy as np

from models.export import Card, export
from models.graph import Factors, Floats
from models.manifest import POPULAR_MAX, RECENT_ITEMS_MAX, Manifest, TrainingWindow

LAG_DECAY: Final = 0.85
TRAINED_AT_MS: Final = 1_735_689_600_000
"""2025-01-01, a date for the name of a model that was never trained."""


def random_factors(items: int, dim: int, seed: int) -> Factors:
    """Random factors: embeddings N(0, 1), popularity falling with the row as in a shop (Zipf, exponent 1)."""
    random = np.random.default_rng(seed)
    inward = random.normal(size=(items + 1, dim)).astype(np.float32)
    inward[0] = 0
    outward = random.normal(size=(dim, items + 1)).astype(np.float32)
    bias = np.concatenate([[-np.inf], -np.log(np.arange(1, items + 1))]).astype(np.float32)
    return Factors(inward, outward, bias, lag_weights(LAG_DECAY))


def lag_weights(decay: float) -> Floats:
    """Weight of each position of the history, oldest first: ``decay ** lag``, the newest has lag 0."""
    return (decay ** np.arange(RECENT_ITEMS_MAX - 1, -1, -1)).astype(np.float32)


def random_model(
    directory: Path, items: int = 10_000, dim: int = 64, top_k: int = 50, seed: int = 0, *, int8: bool = True
) -> Manifest:
    """Export a random model with the ids ``item-00001``… to ``directory``; the same arguments give the same bytes."""
    ids = [f"item-{row:05d}" for row in range(1, items + 1)]
    window = TrainingWindow(TRAINED_AT_MS, TRAINED_AT_MS, 0, 0, items)
    card = Card("random", window, popular=ids[:POPULAR_MAX])
    return export(directory, random_factors(items, dim, seed), ids, top_k, card, int8=int8)
